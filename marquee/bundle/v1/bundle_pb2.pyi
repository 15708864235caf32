from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Manifest(_message.Message):
    __slots__ = ("format", "space", "revision", "files", "features", "tower", "index", "dataset", "seed", "code_version", "trained_history_rows", "movies")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TOWER_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRAINED_HISTORY_ROWS_FIELD_NUMBER: _ClassVar[int]
    MOVIES_FIELD_NUMBER: _ClassVar[int]
    format: FormatVersion
    space: str
    revision: str
    files: _containers.RepeatedCompositeFieldContainer[File]
    features: FeatureSpec
    tower: TowerSpec
    index: IndexSpec
    dataset: Dataset
    seed: int
    code_version: str
    trained_history_rows: int
    movies: int
    def __init__(self, format: _Optional[_Union[FormatVersion, _Mapping]] = ..., space: _Optional[str] = ..., revision: _Optional[str] = ..., files: _Optional[_Iterable[_Union[File, _Mapping]]] = ..., features: _Optional[_Union[FeatureSpec, _Mapping]] = ..., tower: _Optional[_Union[TowerSpec, _Mapping]] = ..., index: _Optional[_Union[IndexSpec, _Mapping]] = ..., dataset: _Optional[_Union[Dataset, _Mapping]] = ..., seed: _Optional[int] = ..., code_version: _Optional[str] = ..., trained_history_rows: _Optional[int] = ..., movies: _Optional[int] = ...) -> None: ...

class FormatVersion(_message.Message):
    __slots__ = ("major", "minor")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("name", "size", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class FeatureSpec(_message.Message):
    __slots__ = ("version", "max_history", "dimension", "age_edges_s", "gap_edges_s", "content_buckets", "max_content_tokens")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_HISTORY_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    AGE_EDGES_S_FIELD_NUMBER: _ClassVar[int]
    GAP_EDGES_S_FIELD_NUMBER: _ClassVar[int]
    CONTENT_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTENT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    version: int
    max_history: int
    dimension: int
    age_edges_s: _containers.RepeatedScalarFieldContainer[float]
    gap_edges_s: _containers.RepeatedScalarFieldContainer[float]
    content_buckets: int
    max_content_tokens: int
    def __init__(self, version: _Optional[int] = ..., max_history: _Optional[int] = ..., dimension: _Optional[int] = ..., age_edges_s: _Optional[_Iterable[float]] = ..., gap_edges_s: _Optional[_Iterable[float]] = ..., content_buckets: _Optional[int] = ..., max_content_tokens: _Optional[int] = ...) -> None: ...

class TowerSpec(_message.Message):
    __slots__ = ("kind", "config")
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    kind: str
    config: _struct_pb2.Struct
    def __init__(self, kind: _Optional[str] = ..., config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class IndexSpec(_message.Message):
    __slots__ = ("kind", "parameters")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    parameters: _struct_pb2.Struct
    def __init__(self, kind: _Optional[str] = ..., parameters: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "fingerprint", "events", "users", "movies", "simulated")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    MOVIES_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    events: int
    users: int
    movies: int
    simulated: bool
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., events: _Optional[int] = ..., users: _Optional[int] = ..., movies: _Optional[int] = ..., simulated: bool = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("metrics", "timings_s", "created_at", "carried_from", "index")
    class TimingsSEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_S_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    CARRIED_FROM_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    timings_s: _containers.ScalarMap[str, float]
    created_at: str
    carried_from: str
    index: IndexReport
    def __init__(self, metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., timings_s: _Optional[_Mapping[str, float]] = ..., created_at: _Optional[str] = ..., carried_from: _Optional[str] = ..., index: _Optional[_Union[IndexReport, _Mapping]] = ...) -> None: ...

class IndexReport(_message.Message):
    __slots__ = ("kind", "reason", "recall", "recall_target", "at", "queries", "queries_of", "latency_ms", "exact_latency_ms", "bytes", "build_s")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    RECALL_TARGET_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    QUERIES_OF_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    EXACT_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    BUILD_S_FIELD_NUMBER: _ClassVar[int]
    kind: str
    reason: str
    recall: float
    recall_target: float
    at: int
    queries: int
    queries_of: str
    latency_ms: float
    exact_latency_ms: float
    bytes: int
    build_s: float
    def __init__(self, kind: _Optional[str] = ..., reason: _Optional[str] = ..., recall: _Optional[float] = ..., recall_target: _Optional[float] = ..., at: _Optional[int] = ..., queries: _Optional[int] = ..., queries_of: _Optional[str] = ..., latency_ms: _Optional[float] = ..., exact_latency_ms: _Optional[float] = ..., bytes: _Optional[int] = ..., build_s: _Optional[float] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("system", "protocol", "targets", "name", "value", "n", "low", "high")
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    system: str
    protocol: str
    targets: str
    name: str
    value: float
    n: int
    low: float
    high: float
    def __init__(self, system: _Optional[str] = ..., protocol: _Optional[str] = ..., targets: _Optional[str] = ..., name: _Optional[str] = ..., value: _Optional[float] = ..., n: _Optional[int] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...
