from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.rpc import status_pb2 as _status_pb2
from marquee.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ShortReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHORT_REASON_UNSPECIFIED: _ClassVar[ShortReason]
    SHORT_REASON_FILTER: _ClassVar[ShortReason]
    SHORT_REASON_EXCLUDED: _ClassVar[ShortReason]
    SHORT_REASON_CATALOG: _ClassVar[ShortReason]
    SHORT_REASON_SCORE: _ClassVar[ShortReason]
    SHORT_REASON_CAPS: _ClassVar[ShortReason]

class Quality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUALITY_UNSPECIFIED: _ClassVar[Quality]
    QUALITY_EXACT: _ClassVar[Quality]
    QUALITY_BALANCED: _ClassVar[Quality]
    QUALITY_FAST: _ClassVar[Quality]
SHORT_REASON_UNSPECIFIED: ShortReason
SHORT_REASON_FILTER: ShortReason
SHORT_REASON_EXCLUDED: ShortReason
SHORT_REASON_CATALOG: ShortReason
SHORT_REASON_SCORE: ShortReason
SHORT_REASON_CAPS: ShortReason
QUALITY_UNSPECIFIED: Quality
QUALITY_EXACT: Quality
QUALITY_BALANCED: Quality
QUALITY_FAST: Quality

class SearchOptions(_message.Message):
    __slots__ = ("min_score", "quality", "diversity", "max_per_genre", "max_per_director", "vectors", "debug")
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_GENRE_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_DIRECTOR_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    min_score: float
    quality: Quality
    diversity: float
    max_per_genre: int
    max_per_director: int
    vectors: bool
    debug: bool
    def __init__(self, min_score: _Optional[float] = ..., quality: _Optional[_Union[Quality, str]] = ..., diversity: _Optional[float] = ..., max_per_genre: _Optional[int] = ..., max_per_director: _Optional[int] = ..., vectors: bool = ..., debug: bool = ...) -> None: ...

class SearchDebug(_message.Message):
    __slots__ = ("candidates", "matching", "path", "filter_us", "search_us", "finish_us")
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MATCHING_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FILTER_US_FIELD_NUMBER: _ClassVar[int]
    SEARCH_US_FIELD_NUMBER: _ClassVar[int]
    FINISH_US_FIELD_NUMBER: _ClassVar[int]
    candidates: int
    matching: int
    path: str
    filter_us: int
    search_us: int
    finish_us: int
    def __init__(self, candidates: _Optional[int] = ..., matching: _Optional[int] = ..., path: _Optional[str] = ..., filter_us: _Optional[int] = ..., search_us: _Optional[int] = ..., finish_us: _Optional[int] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("vector", "space", "k", "filter", "exclude_packed", "details", "request_id", "options")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_PACKED_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    vector: bytes
    space: str
    k: int
    filter: _types_pb2.MovieFilter
    exclude_packed: bytes
    details: _field_mask_pb2.FieldMask
    request_id: str
    options: SearchOptions
    def __init__(self, vector: _Optional[bytes] = ..., space: _Optional[str] = ..., k: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.MovieFilter, _Mapping]] = ..., exclude_packed: _Optional[bytes] = ..., details: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., request_id: _Optional[str] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("movie_ids", "scores", "movies", "short_reason", "space", "bundle_id", "request_id", "vectors", "debug")
    MOVIE_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    MOVIES_FIELD_NUMBER: _ClassVar[int]
    SHORT_REASON_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    movie_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    movies: _containers.RepeatedCompositeFieldContainer[_types_pb2.Movie]
    short_reason: ShortReason
    space: str
    bundle_id: str
    request_id: str
    vectors: bytes
    debug: SearchDebug
    def __init__(self, movie_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., movies: _Optional[_Iterable[_Union[_types_pb2.Movie, _Mapping]]] = ..., short_reason: _Optional[_Union[ShortReason, str]] = ..., space: _Optional[str] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ..., vectors: _Optional[bytes] = ..., debug: _Optional[_Union[SearchDebug, _Mapping]] = ...) -> None: ...

class BatchSearchRequest(_message.Message):
    __slots__ = ("queries", "space", "request_id")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[BatchSearchQuery]
    space: str
    request_id: str
    def __init__(self, queries: _Optional[_Iterable[_Union[BatchSearchQuery, _Mapping]]] = ..., space: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class BatchSearchQuery(_message.Message):
    __slots__ = ("vector", "k", "filter", "exclude_packed", "options")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_PACKED_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    vector: bytes
    k: int
    filter: _types_pb2.MovieFilter
    exclude_packed: bytes
    options: SearchOptions
    def __init__(self, vector: _Optional[bytes] = ..., k: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.MovieFilter, _Mapping]] = ..., exclude_packed: _Optional[bytes] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ...) -> None: ...

class BatchSearchResponse(_message.Message):
    __slots__ = ("results", "space", "bundle_id", "request_id")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchSearchResult]
    space: str
    bundle_id: str
    request_id: str
    def __init__(self, results: _Optional[_Iterable[_Union[BatchSearchResult, _Mapping]]] = ..., space: _Optional[str] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class BatchSearchResult(_message.Message):
    __slots__ = ("status", "movie_ids", "scores", "short_reason")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MOVIE_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SHORT_REASON_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    movie_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    short_reason: ShortReason
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., movie_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., short_reason: _Optional[_Union[ShortReason, str]] = ...) -> None: ...

class SearchSimilarRequest(_message.Message):
    __slots__ = ("movie_ids", "negative_movie_ids", "k", "filter", "exclude_packed", "space", "details", "request_id", "options")
    MOVIE_IDS_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_MOVIE_IDS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_PACKED_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    movie_ids: _containers.RepeatedScalarFieldContainer[int]
    negative_movie_ids: _containers.RepeatedScalarFieldContainer[int]
    k: int
    filter: _types_pb2.MovieFilter
    exclude_packed: bytes
    space: str
    details: _field_mask_pb2.FieldMask
    request_id: str
    options: SearchOptions
    def __init__(self, movie_ids: _Optional[_Iterable[int]] = ..., negative_movie_ids: _Optional[_Iterable[int]] = ..., k: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.MovieFilter, _Mapping]] = ..., exclude_packed: _Optional[bytes] = ..., space: _Optional[str] = ..., details: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., request_id: _Optional[str] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ...) -> None: ...

class SearchSimilarResponse(_message.Message):
    __slots__ = ("movie_ids", "scores", "movies", "short_reason", "space", "bundle_id", "request_id", "vectors", "debug")
    MOVIE_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    MOVIES_FIELD_NUMBER: _ClassVar[int]
    SHORT_REASON_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    movie_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    movies: _containers.RepeatedCompositeFieldContainer[_types_pb2.Movie]
    short_reason: ShortReason
    space: str
    bundle_id: str
    request_id: str
    vectors: bytes
    debug: SearchDebug
    def __init__(self, movie_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., movies: _Optional[_Iterable[_Union[_types_pb2.Movie, _Mapping]]] = ..., short_reason: _Optional[_Union[ShortReason, str]] = ..., space: _Optional[str] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ..., vectors: _Optional[bytes] = ..., debug: _Optional[_Union[SearchDebug, _Mapping]] = ...) -> None: ...

class GetIndexRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetIndexResponse(_message.Message):
    __slots__ = ("state", "request_id")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    state: _types_pb2.ReplicaState
    request_id: str
    def __init__(self, state: _Optional[_Union[_types_pb2.ReplicaState, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...
