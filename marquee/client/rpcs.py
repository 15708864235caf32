"""The rpcs that the SDK calls, each with the types of its request and its answer and the service that has it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from marquee.errors import Overloaded
from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, user_encoder_pb2
from marquee.v1.catalog_pb2_grpc import CatalogServiceStub
from marquee.v1.live_features_pb2_grpc import LiveFeaturesServiceStub
from marquee.v1.retriever_pb2_grpc import RetrieverServiceStub
from marquee.v1.user_encoder_pb2_grpc import UserEncoderServiceStub

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
R = TypeVar("R")

Stub: TypeAlias = Callable[[grpc.Channel | grpc.aio.Channel], object]


class Service(enum.StrEnum):
    """Names the two services, as their folders are called."""

    USER_ENCODER = "user_encoder"
    RETRIEVER = "retriever"


# Equal to itself alone: it is looked up with every call, and a hash of three fields would cost more than the look-up.
@dataclass(frozen=True, slots=True, eq=False)
class Rpc(Generic[Q, A]):
    """Is one unary rpc: where it is served, the generated stub that has it, and its name there."""

    service: Service
    stub: Stub
    method: str

    @property
    def name(self) -> str:
        """Names the rpc as it is called on the wire: "marquee.v1.RetrieverService/Search"."""
        return f"marquee.v1.{self.stub.__name__.removesuffix('Stub')}/{self.method}"


class Call(NamedTuple):
    """Is what a flow wants done next: this request sent to this rpc. It gets the answer back, or the error.

    `again`: it was refused, and the pause that the service asked for is over. `part`: how much of the time that is left
    it may take.
    """

    rpc: Rpc[Any, Any]
    request: Message
    again: bool = False
    part: float = 1.0


class Page(NamedTuple, Generic[R]):
    """Is one page of a longer answer; `next_token` asks for the page after, and is empty at the last."""

    items: Sequence[R]
    next_token: str = ""


class Pause(NamedTuple):
    """Is what a flow wants done before it calls again: to wait as long as the service said with its refusal.

    Where that is longer than the deadline, or the service refuses others as well, it gets the refusal back.
    """

    rpc: Rpc[Any, Any]
    refusal: Overloaded


# A method of the SDK without its input and output: yields calls, receives answers, returns the result.
Flow: TypeAlias = Generator[Call | Pause, Any, R]
# A method that answers page by page: yields a flow for each page, receives that page.
Pages: TypeAlias = Generator[Flow[Page[R]], Page[R], None]


def call(rpc: Rpc[Q, A], request: Q, part: float = 1.0) -> Flow[A]:
    """Yields one call and returns its answer, typed; calls once more where a service with too many calls asks to.

    `part` is how much of the time that is left each of them may take.
    """
    try:
        answer: A = yield Call(rpc, request, part=part)
    except Overloaded as refusal:
        if refusal.retry_after_s is None:
            raise
        yield Pause(rpc, refusal)
        answer = yield Call(rpc, request, again=True, part=part)
    return answer


ENCODE: Rpc[user_encoder_pb2.EncodeRequest, user_encoder_pb2.EncodeResponse] = Rpc(
    Service.USER_ENCODER, UserEncoderServiceStub, "Encode"
)
BATCH_ENCODE: Rpc[user_encoder_pb2.BatchEncodeRequest, user_encoder_pb2.BatchEncodeResponse] = Rpc(
    Service.USER_ENCODER, UserEncoderServiceStub, "BatchEncode"
)
EXPLAIN: Rpc[user_encoder_pb2.ExplainRequest, user_encoder_pb2.ExplainResponse] = Rpc(
    Service.USER_ENCODER, UserEncoderServiceStub, "Explain"
)
GET_MODEL: Rpc[user_encoder_pb2.GetModelRequest, user_encoder_pb2.GetModelResponse] = Rpc(
    Service.USER_ENCODER, UserEncoderServiceStub, "GetModel"
)
RECORD_EVENTS: Rpc[live_features_pb2.RecordEventsRequest, live_features_pb2.RecordEventsResponse] = Rpc(
    Service.USER_ENCODER, LiveFeaturesServiceStub, "RecordEvents"
)
GET_HISTORY: Rpc[live_features_pb2.GetHistoryRequest, live_features_pb2.GetHistoryResponse] = Rpc(
    Service.USER_ENCODER, LiveFeaturesServiceStub, "GetHistory"
)
DELETE_USER: Rpc[live_features_pb2.DeleteUserRequest, live_features_pb2.DeleteUserResponse] = Rpc(
    Service.USER_ENCODER, LiveFeaturesServiceStub, "DeleteUser"
)
SEARCH: Rpc[retriever_pb2.SearchRequest, retriever_pb2.SearchResponse] = Rpc(
    Service.RETRIEVER, RetrieverServiceStub, "Search"
)
BATCH_SEARCH: Rpc[retriever_pb2.BatchSearchRequest, retriever_pb2.BatchSearchResponse] = Rpc(
    Service.RETRIEVER, RetrieverServiceStub, "BatchSearch"
)
SEARCH_SIMILAR: Rpc[retriever_pb2.SearchSimilarRequest, retriever_pb2.SearchSimilarResponse] = Rpc(
    Service.RETRIEVER, RetrieverServiceStub, "SearchSimilar"
)
GET_INDEX: Rpc[retriever_pb2.GetIndexRequest, retriever_pb2.GetIndexResponse] = Rpc(
    Service.RETRIEVER, RetrieverServiceStub, "GetIndex"
)
GET_MOVIE: Rpc[catalog_pb2.GetMovieRequest, catalog_pb2.GetMovieResponse] = Rpc(
    Service.RETRIEVER, CatalogServiceStub, "GetMovie"
)
BATCH_GET_MOVIES: Rpc[catalog_pb2.BatchGetMoviesRequest, catalog_pb2.BatchGetMoviesResponse] = Rpc(
    Service.RETRIEVER, CatalogServiceStub, "BatchGetMovies"
)
TOP_MOVIES: Rpc[catalog_pb2.TopMoviesRequest, catalog_pb2.TopMoviesResponse] = Rpc(
    Service.RETRIEVER, CatalogServiceStub, "TopMovies"
)
LIST_GENRES: Rpc[catalog_pb2.ListGenresRequest, catalog_pb2.ListGenresResponse] = Rpc(
    Service.RETRIEVER, CatalogServiceStub, "ListGenres"
)
GET_FACETS: Rpc[catalog_pb2.GetFacetsRequest, catalog_pb2.GetFacetsResponse] = Rpc(
    Service.RETRIEVER, CatalogServiceStub, "GetFacets"
)
SEARCH_MOVIES: Rpc[catalog_pb2.SearchMoviesRequest, catalog_pb2.SearchMoviesResponse] = Rpc(
    Service.RETRIEVER, CatalogServiceStub, "SearchMovies"
)

RPCS: tuple[Rpc[Any, Any], ...] = (
    ENCODE,
    BATCH_ENCODE,
    EXPLAIN,
    GET_MODEL,
    RECORD_EVENTS,
    GET_HISTORY,
    DELETE_USER,
    SEARCH,
    BATCH_SEARCH,
    SEARCH_SIMILAR,
    GET_INDEX,
    GET_MOVIE,
    BATCH_GET_MOVIES,
    TOP_MOVIES,
    LIST_GENRES,
    GET_FACETS,
    SEARCH_MOVIES,
)
