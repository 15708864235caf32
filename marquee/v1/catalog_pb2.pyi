from google.rpc import status_pb2 as _status_pb2
from marquee.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MovieKey(_message.Message):
    __slots__ = ("movie_id", "external_id")
    MOVIE_ID_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_ID_FIELD_NUMBER: _ClassVar[int]
    movie_id: int
    external_id: str
    def __init__(self, movie_id: _Optional[int] = ..., external_id: _Optional[str] = ...) -> None: ...

class GetMovieRequest(_message.Message):
    __slots__ = ("key", "request_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    key: MovieKey
    request_id: str
    def __init__(self, key: _Optional[_Union[MovieKey, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetMovieResponse(_message.Message):
    __slots__ = ("movie", "bundle_id", "request_id")
    MOVIE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    movie: _types_pb2.Movie
    bundle_id: str
    request_id: str
    def __init__(self, movie: _Optional[_Union[_types_pb2.Movie, _Mapping]] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class BatchGetMoviesRequest(_message.Message):
    __slots__ = ("keys", "request_id")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[MovieKey]
    request_id: str
    def __init__(self, keys: _Optional[_Iterable[_Union[MovieKey, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class BatchGetMoviesResponse(_message.Message):
    __slots__ = ("results", "request_id")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchGetMoviesResult]
    request_id: str
    def __init__(self, results: _Optional[_Iterable[_Union[BatchGetMoviesResult, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class BatchGetMoviesResult(_message.Message):
    __slots__ = ("status", "movie", "bundle_id")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MOVIE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    movie: _types_pb2.Movie
    bundle_id: str
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., movie: _Optional[_Union[_types_pb2.Movie, _Mapping]] = ..., bundle_id: _Optional[str] = ...) -> None: ...

class SearchMoviesRequest(_message.Message):
    __slots__ = ("query", "page_size", "page_token", "request_id")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    query: str
    page_size: int
    page_token: str
    request_id: str
    def __init__(self, query: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class SearchMoviesResponse(_message.Message):
    __slots__ = ("movies", "next_page_token", "bundle_id", "request_id")
    MOVIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    movies: _containers.RepeatedCompositeFieldContainer[_types_pb2.Movie]
    next_page_token: str
    bundle_id: str
    request_id: str
    def __init__(self, movies: _Optional[_Iterable[_Union[_types_pb2.Movie, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ListGenresRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class ListGenresResponse(_message.Message):
    __slots__ = ("genres", "bundle_id", "request_id")
    GENRES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    genres: _containers.RepeatedCompositeFieldContainer[Facet]
    bundle_id: str
    request_id: str
    def __init__(self, genres: _Optional[_Iterable[_Union[Facet, _Mapping]]] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class Facet(_message.Message):
    __slots__ = ("value", "movies")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MOVIES_FIELD_NUMBER: _ClassVar[int]
    value: str
    movies: int
    def __init__(self, value: _Optional[str] = ..., movies: _Optional[int] = ...) -> None: ...

class GetFacetsRequest(_message.Message):
    __slots__ = ("filter", "request_id")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    filter: _types_pb2.MovieFilter
    request_id: str
    def __init__(self, filter: _Optional[_Union[_types_pb2.MovieFilter, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetFacetsResponse(_message.Message):
    __slots__ = ("movies", "genres", "decades", "languages", "bundle_id", "request_id")
    MOVIES_FIELD_NUMBER: _ClassVar[int]
    GENRES_FIELD_NUMBER: _ClassVar[int]
    DECADES_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    movies: int
    genres: _containers.RepeatedCompositeFieldContainer[Facet]
    decades: _containers.RepeatedCompositeFieldContainer[Facet]
    languages: _containers.RepeatedCompositeFieldContainer[Facet]
    bundle_id: str
    request_id: str
    def __init__(self, movies: _Optional[int] = ..., genres: _Optional[_Iterable[_Union[Facet, _Mapping]]] = ..., decades: _Optional[_Iterable[_Union[Facet, _Mapping]]] = ..., languages: _Optional[_Iterable[_Union[Facet, _Mapping]]] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class TopMoviesRequest(_message.Message):
    __slots__ = ("k", "filter", "exclude_packed", "request_id")
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_PACKED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    k: int
    filter: _types_pb2.MovieFilter
    exclude_packed: bytes
    request_id: str
    def __init__(self, k: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.MovieFilter, _Mapping]] = ..., exclude_packed: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...

class TopMoviesResponse(_message.Message):
    __slots__ = ("movies", "bundle_id", "request_id")
    MOVIES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    movies: _containers.RepeatedCompositeFieldContainer[_types_pb2.Movie]
    bundle_id: str
    request_id: str
    def __init__(self, movies: _Optional[_Iterable[_Union[_types_pb2.Movie, _Mapping]]] = ..., bundle_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...
