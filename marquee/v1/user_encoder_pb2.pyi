from google.rpc import status_pb2 as _status_pb2
from marquee.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeatureSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_SOURCE_UNSPECIFIED: _ClassVar[FeatureSource]
    FEATURE_SOURCE_STORE: _ClassVar[FeatureSource]
    FEATURE_SOURCE_REQUEST: _ClassVar[FeatureSource]
    FEATURE_SOURCE_COLD_START: _ClassVar[FeatureSource]
    FEATURE_SOURCE_STALE: _ClassVar[FeatureSource]
FEATURE_SOURCE_UNSPECIFIED: FeatureSource
FEATURE_SOURCE_STORE: FeatureSource
FEATURE_SOURCE_REQUEST: FeatureSource
FEATURE_SOURCE_COLD_START: FeatureSource
FEATURE_SOURCE_STALE: FeatureSource

class EncodeRequest(_message.Message):
    __slots__ = ("user_id", "events", "as_of_ms", "space", "allow_cold_start", "context", "request_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_COLD_START_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    events: _types_pb2.EventColumns
    as_of_ms: int
    space: str
    allow_cold_start: bool
    context: _types_pb2.Context
    request_id: str
    def __init__(self, user_id: _Optional[str] = ..., events: _Optional[_Union[_types_pb2.EventColumns, _Mapping]] = ..., as_of_ms: _Optional[int] = ..., space: _Optional[str] = ..., allow_cold_start: bool = ..., context: _Optional[_Union[_types_pb2.Context, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("vector", "space", "bundle_id", "request_id", "as_of_ms", "source", "events_used", "events_unknown", "events_truncated", "newest_event_ms", "seen", "features_age_ms", "degraded")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_USED_FIELD_NUMBER: _ClassVar[int]
    EVENTS_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    EVENTS_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    NEWEST_EVENT_MS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    FEATURES_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    vector: bytes
    space: str
    bundle_id: str
    request_id: str
    as_of_ms: int
    source: FeatureSource
    events_used: int
    events_unknown: int
    events_truncated: int
    newest_event_ms: int
    seen: bytes
    features_age_ms: int
    degraded: bool
    def __init__(self, vector: _Optional[bytes] = ..., space: _Optional[str] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ..., as_of_ms: _Optional[int] = ..., source: _Optional[_Union[FeatureSource, str]] = ..., events_used: _Optional[int] = ..., events_unknown: _Optional[int] = ..., events_truncated: _Optional[int] = ..., newest_event_ms: _Optional[int] = ..., seen: _Optional[bytes] = ..., features_age_ms: _Optional[int] = ..., degraded: bool = ...) -> None: ...

class BatchEncodeRequest(_message.Message):
    __slots__ = ("items", "as_of_ms", "space", "allow_cold_start", "request_id")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_COLD_START_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[BatchEncodeItem]
    as_of_ms: int
    space: str
    allow_cold_start: bool
    request_id: str
    def __init__(self, items: _Optional[_Iterable[_Union[BatchEncodeItem, _Mapping]]] = ..., as_of_ms: _Optional[int] = ..., space: _Optional[str] = ..., allow_cold_start: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class BatchEncodeItem(_message.Message):
    __slots__ = ("user_id", "events")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    events: _types_pb2.EventColumns
    def __init__(self, user_id: _Optional[str] = ..., events: _Optional[_Union[_types_pb2.EventColumns, _Mapping]] = ...) -> None: ...

class BatchEncodeResponse(_message.Message):
    __slots__ = ("vectors", "results", "space", "bundle_id", "request_id", "as_of_ms")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    vectors: bytes
    results: _containers.RepeatedCompositeFieldContainer[BatchEncodeResult]
    space: str
    bundle_id: str
    request_id: str
    as_of_ms: int
    def __init__(self, vectors: _Optional[bytes] = ..., results: _Optional[_Iterable[_Union[BatchEncodeResult, _Mapping]]] = ..., space: _Optional[str] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ..., as_of_ms: _Optional[int] = ...) -> None: ...

class BatchEncodeResult(_message.Message):
    __slots__ = ("status", "source", "events_used", "events_unknown", "events_truncated", "newest_event_ms", "seen", "features_age_ms", "degraded")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_USED_FIELD_NUMBER: _ClassVar[int]
    EVENTS_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    EVENTS_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    NEWEST_EVENT_MS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    FEATURES_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    source: FeatureSource
    events_used: int
    events_unknown: int
    events_truncated: int
    newest_event_ms: int
    seen: bytes
    features_age_ms: int
    degraded: bool
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., source: _Optional[_Union[FeatureSource, str]] = ..., events_used: _Optional[int] = ..., events_unknown: _Optional[int] = ..., events_truncated: _Optional[int] = ..., newest_event_ms: _Optional[int] = ..., seen: _Optional[bytes] = ..., features_age_ms: _Optional[int] = ..., degraded: bool = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("user_id", "events", "as_of_ms", "space", "movie_ids", "max_events", "request_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    MOVIE_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_EVENTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    events: _types_pb2.EventColumns
    as_of_ms: int
    space: str
    movie_ids: _containers.RepeatedScalarFieldContainer[int]
    max_events: int
    request_id: str
    def __init__(self, user_id: _Optional[str] = ..., events: _Optional[_Union[_types_pb2.EventColumns, _Mapping]] = ..., as_of_ms: _Optional[int] = ..., space: _Optional[str] = ..., movie_ids: _Optional[_Iterable[int]] = ..., max_events: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("movie_ids", "unknown_movie_ids", "events", "scores", "contributions", "space", "bundle_id", "request_id", "as_of_ms", "source", "events_used", "features_age_ms", "degraded")
    MOVIE_IDS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_MOVIE_IDS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_USED_FIELD_NUMBER: _ClassVar[int]
    FEATURES_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    movie_ids: _containers.RepeatedScalarFieldContainer[int]
    unknown_movie_ids: _containers.RepeatedScalarFieldContainer[int]
    events: _types_pb2.EventColumns
    scores: bytes
    contributions: bytes
    space: str
    bundle_id: str
    request_id: str
    as_of_ms: int
    source: FeatureSource
    events_used: int
    features_age_ms: int
    degraded: bool
    def __init__(self, movie_ids: _Optional[_Iterable[int]] = ..., unknown_movie_ids: _Optional[_Iterable[int]] = ..., events: _Optional[_Union[_types_pb2.EventColumns, _Mapping]] = ..., scores: _Optional[bytes] = ..., contributions: _Optional[bytes] = ..., space: _Optional[str] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ..., as_of_ms: _Optional[int] = ..., source: _Optional[_Union[FeatureSource, str]] = ..., events_used: _Optional[int] = ..., features_age_ms: _Optional[int] = ..., degraded: bool = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("state", "request_id", "store")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    state: _types_pb2.ReplicaState
    request_id: str
    store: StoreState
    def __init__(self, state: _Optional[_Union[_types_pb2.ReplicaState, _Mapping]] = ..., request_id: _Optional[str] = ..., store: _Optional[_Union[StoreState, _Mapping]] = ...) -> None: ...

class StoreState(_message.Message):
    __slots__ = ("kind", "reachable", "last_error", "stale_answers", "blind_answers", "refused_writes")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    STALE_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    BLIND_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_WRITES_FIELD_NUMBER: _ClassVar[int]
    kind: str
    reachable: bool
    last_error: str
    stale_answers: int
    blind_answers: int
    refused_writes: int
    def __init__(self, kind: _Optional[str] = ..., reachable: bool = ..., last_error: _Optional[str] = ..., stale_answers: _Optional[int] = ..., blind_answers: _Optional[int] = ..., refused_writes: _Optional[int] = ...) -> None: ...
