from marquee.bundle.v1 import bundle_pb2 as _bundle_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_KIND_UNSPECIFIED: _ClassVar[EventKind]
    EVENT_KIND_RATED: _ClassVar[EventKind]
    EVENT_KIND_LIKED: _ClassVar[EventKind]
    EVENT_KIND_DISLIKED: _ClassVar[EventKind]
    EVENT_KIND_WATCHED: _ClassVar[EventKind]
    EVENT_KIND_CLICKED: _ClassVar[EventKind]
    EVENT_KIND_WATCHLISTED: _ClassVar[EventKind]
    EVENT_KIND_NOT_INTERESTED: _ClassVar[EventKind]
    EVENT_KIND_RETRACTED: _ClassVar[EventKind]

class BundleRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUNDLE_ROLE_UNSPECIFIED: _ClassVar[BundleRole]
    BUNDLE_ROLE_ACTIVE: _ClassVar[BundleRole]
    BUNDLE_ROLE_STANDBY: _ClassVar[BundleRole]
    BUNDLE_ROLE_RETIRING: _ClassVar[BundleRole]
EVENT_KIND_UNSPECIFIED: EventKind
EVENT_KIND_RATED: EventKind
EVENT_KIND_LIKED: EventKind
EVENT_KIND_DISLIKED: EventKind
EVENT_KIND_WATCHED: EventKind
EVENT_KIND_CLICKED: EventKind
EVENT_KIND_WATCHLISTED: EventKind
EVENT_KIND_NOT_INTERESTED: EventKind
EVENT_KIND_RETRACTED: EventKind
BUNDLE_ROLE_UNSPECIFIED: BundleRole
BUNDLE_ROLE_ACTIVE: BundleRole
BUNDLE_ROLE_STANDBY: BundleRole
BUNDLE_ROLE_RETIRING: BundleRole

class EventColumns(_message.Message):
    __slots__ = ("movie_ids", "kinds", "values", "times_ms")
    MOVIE_IDS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TIMES_MS_FIELD_NUMBER: _ClassVar[int]
    movie_ids: _containers.RepeatedScalarFieldContainer[int]
    kinds: _containers.RepeatedScalarFieldContainer[EventKind]
    values: _containers.RepeatedScalarFieldContainer[float]
    times_ms: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, movie_ids: _Optional[_Iterable[int]] = ..., kinds: _Optional[_Iterable[_Union[EventKind, str]]] = ..., values: _Optional[_Iterable[float]] = ..., times_ms: _Optional[_Iterable[int]] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("language", "country", "surface", "utc_offset_minutes")
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    UTC_OFFSET_MINUTES_FIELD_NUMBER: _ClassVar[int]
    language: str
    country: str
    surface: str
    utc_offset_minutes: int
    def __init__(self, language: _Optional[str] = ..., country: _Optional[str] = ..., surface: _Optional[str] = ..., utc_offset_minutes: _Optional[int] = ...) -> None: ...

class MovieFilter(_message.Message):
    __slots__ = ("genres_any", "genres_all", "genres_none", "year_min", "year_max", "languages", "include_ids", "exclude_ids", "people_any", "rating_min", "rating_count_min", "rating_count_max")
    GENRES_ANY_FIELD_NUMBER: _ClassVar[int]
    GENRES_ALL_FIELD_NUMBER: _ClassVar[int]
    GENRES_NONE_FIELD_NUMBER: _ClassVar[int]
    YEAR_MIN_FIELD_NUMBER: _ClassVar[int]
    YEAR_MAX_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_IDS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_IDS_FIELD_NUMBER: _ClassVar[int]
    PEOPLE_ANY_FIELD_NUMBER: _ClassVar[int]
    RATING_MIN_FIELD_NUMBER: _ClassVar[int]
    RATING_COUNT_MIN_FIELD_NUMBER: _ClassVar[int]
    RATING_COUNT_MAX_FIELD_NUMBER: _ClassVar[int]
    genres_any: _containers.RepeatedScalarFieldContainer[str]
    genres_all: _containers.RepeatedScalarFieldContainer[str]
    genres_none: _containers.RepeatedScalarFieldContainer[str]
    year_min: int
    year_max: int
    languages: _containers.RepeatedScalarFieldContainer[str]
    include_ids: _containers.RepeatedScalarFieldContainer[int]
    exclude_ids: _containers.RepeatedScalarFieldContainer[int]
    people_any: _containers.RepeatedScalarFieldContainer[str]
    rating_min: float
    rating_count_min: int
    rating_count_max: int
    def __init__(self, genres_any: _Optional[_Iterable[str]] = ..., genres_all: _Optional[_Iterable[str]] = ..., genres_none: _Optional[_Iterable[str]] = ..., year_min: _Optional[int] = ..., year_max: _Optional[int] = ..., languages: _Optional[_Iterable[str]] = ..., include_ids: _Optional[_Iterable[int]] = ..., exclude_ids: _Optional[_Iterable[int]] = ..., people_any: _Optional[_Iterable[str]] = ..., rating_min: _Optional[float] = ..., rating_count_min: _Optional[int] = ..., rating_count_max: _Optional[int] = ...) -> None: ...

class Movie(_message.Message):
    __slots__ = ("movie_id", "external_id", "title", "year", "genres", "language", "release_date", "runtime_minutes", "directors", "cast", "mean_rating", "rating_count", "links")
    MOVIE_ID_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    YEAR_FIELD_NUMBER: _ClassVar[int]
    GENRES_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_DATE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_MINUTES_FIELD_NUMBER: _ClassVar[int]
    DIRECTORS_FIELD_NUMBER: _ClassVar[int]
    CAST_FIELD_NUMBER: _ClassVar[int]
    MEAN_RATING_FIELD_NUMBER: _ClassVar[int]
    RATING_COUNT_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    movie_id: int
    external_id: str
    title: str
    year: int
    genres: _containers.RepeatedScalarFieldContainer[str]
    language: str
    release_date: str
    runtime_minutes: int
    directors: _containers.RepeatedScalarFieldContainer[str]
    cast: _containers.RepeatedScalarFieldContainer[str]
    mean_rating: float
    rating_count: int
    links: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, movie_id: _Optional[int] = ..., external_id: _Optional[str] = ..., title: _Optional[str] = ..., year: _Optional[int] = ..., genres: _Optional[_Iterable[str]] = ..., language: _Optional[str] = ..., release_date: _Optional[str] = ..., runtime_minutes: _Optional[int] = ..., directors: _Optional[_Iterable[str]] = ..., cast: _Optional[_Iterable[str]] = ..., mean_rating: _Optional[float] = ..., rating_count: _Optional[int] = ..., links: _Optional[_Iterable[str]] = ...) -> None: ...

class LoadedBundle(_message.Message):
    __slots__ = ("space", "bundle_id", "revision", "role", "dimension", "movies", "loaded_at_ms", "tower", "feature_spec", "index", "metrics")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MOVIES_FIELD_NUMBER: _ClassVar[int]
    LOADED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    TOWER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SPEC_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    space: str
    bundle_id: str
    revision: str
    role: BundleRole
    dimension: int
    movies: int
    loaded_at_ms: int
    tower: str
    feature_spec: _bundle_pb2.FeatureSpec
    index: _bundle_pb2.IndexSpec
    metrics: _containers.RepeatedCompositeFieldContainer[_bundle_pb2.Metric]
    def __init__(self, space: _Optional[str] = ..., bundle_id: _Optional[str] = ..., revision: _Optional[str] = ..., role: _Optional[_Union[BundleRole, str]] = ..., dimension: _Optional[int] = ..., movies: _Optional[int] = ..., loaded_at_ms: _Optional[int] = ..., tower: _Optional[str] = ..., feature_spec: _Optional[_Union[_bundle_pb2.FeatureSpec, _Mapping]] = ..., index: _Optional[_Union[_bundle_pb2.IndexSpec, _Mapping]] = ..., metrics: _Optional[_Iterable[_Union[_bundle_pb2.Metric, _Mapping]]] = ...) -> None: ...

class ReplicaState(_message.Message):
    __slots__ = ("bundles", "generation", "reload_error")
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RELOAD_ERROR_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.RepeatedCompositeFieldContainer[LoadedBundle]
    generation: int
    reload_error: str
    def __init__(self, bundles: _Optional[_Iterable[_Union[LoadedBundle, _Mapping]]] = ..., generation: _Optional[int] = ..., reload_error: _Optional[str] = ...) -> None: ...
