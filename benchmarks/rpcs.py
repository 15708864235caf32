"""Requests for every rpc of both services, drawn from the data and from the bundle that is served."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from benchmarks.caller import EVENTS, draw_users, newest_events
from benchmarks.flooding import Flooded
from benchmarks.layers import BATCH_ENCODE, BATCH_SEARCH, ENCODE, SEARCH
from benchmarks.processes import Server
from benchmarks.work import Work
from marquee.bundle.catalog import Catalog
from marquee.bundle.format import CATALOG, open_bundle
from marquee.movies import MovieRecord
from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2
from marquee.v1.live_features_pb2_grpc import LiveFeaturesServiceStub
from marquee.v1.user_encoder_pb2_grpc import UserEncoderServiceStub

K, BATCH, QUERIES = 100, 32, 16
_PEOPLE = 100
_EXPLAINED = 10
_ALIKE = 3
_DEADLINE_S = 10.0
_SEED = 0
_ENCODER, _FEATURES, _RETRIEVER, _CATALOG = (
    f"/marquee.v1.{name}Service/" for name in ("UserEncoder", "LiveFeatures", "Retriever", "Catalog")
)


class Material(NamedTuple):
    """Is what requests are made of: people, the newest events of those with most, their vectors, and all movies."""

    users: Sequence[str]
    histories: Sequence[types_pb2.EventColumns]
    encoded: Sequence[user_encoder_pb2.EncodeResponse]
    movies: Sequence[MovieRecord]


def gather(work: Work, encoder: Server) -> Material:
    """Asks a running encoder for people's events and vectors."""
    users = draw_users(work.data)[:_PEOPLE]
    with grpc.insecure_channel(encoder.address) as channel:
        histories = [newest_events(LiveFeaturesServiceStub(channel), user) for user in users]
        stub = UserEncoderServiceStub(channel)
        asked = [user_encoder_pb2.EncodeRequest(user_id=user) for user in users]
        encoded = [stub.Encode(request, timeout=_DEADLINE_S) for request in asked]
    most = max(len(events.movie_ids) for events in histories)
    full = [events for events in histories if len(events.movie_ids) == most]
    with Catalog(open_bundle(work.bundle).file(CATALOG)) as catalog:
        return Material(users, full, encoded, list(catalog.all()))


def batch_encode(material: Material, people: int) -> user_encoder_pb2.BatchEncodeRequest:
    """Makes a batch of so many people, all with as many events."""
    histories = islice(cycle(material.histories), people)
    items = [user_encoder_pb2.BatchEncodeItem(events=events) for events in histories]
    return user_encoder_pb2.BatchEncodeRequest(items=items)


def batch_search(material: Material, queries: int) -> retriever_pb2.BatchSearchRequest:
    """Makes a batch of so many queries, without filters."""
    asked = [retriever_pb2.BatchSearchQuery(vector=one.vector, k=K) for one in islice(cycle(material.encoded), queries)]
    return retriever_pb2.BatchSearchRequest(queries=asked, space=material.encoded[0].space)


def searches(material: Material, k: int = K, details: Sequence[str] = ()) -> list[Message]:
    """Makes a search for each person."""
    mask = FieldMask(paths=details)
    return [
        retriever_pb2.SearchRequest(vector=one.vector, space=one.space, k=k, details=mask) for one in material.encoded
    ]


def of_encoder(material: Material) -> list[Flooded]:
    """Lists the rpcs of the user encoder, with requests."""
    users, histories = material.users, material.histories
    drawn = random.Random(_SEED)
    some = [[movie.movie_id for movie in drawn.sample(material.movies, _EXPLAINED)] for _ in histories]
    explained = [
        user_encoder_pb2.ExplainRequest(events=events, movie_ids=movie_ids)
        for events, movie_ids in zip(histories, some, strict=True)
    ]
    by_events = [user_encoder_pb2.EncodeRequest(events=events) for events in histories]
    history = [live_features_pb2.GetHistoryRequest(user_id=user, page_size=EVENTS) for user in users]
    strangers = [live_features_pb2.DeleteUserRequest(user_id=f"nobody-{number}") for number in range(_PEOPLE)]
    export = [live_features_pb2.ExportEventsRequest(page_size=100)]
    return [
        _flooded(f"Encode of {EVENTS} events", ENCODE, by_events),
        _flooded("Encode by id", ENCODE, [user_encoder_pb2.EncodeRequest(user_id=user) for user in users]),
        _flooded(f"BatchEncode({BATCH})", BATCH_ENCODE, [batch_encode(material, BATCH)]),
        _flooded(f"Explain of {_EXPLAINED} movies", f"{_ENCODER}Explain", explained),
        _flooded("GetModel", f"{_ENCODER}GetModel", [user_encoder_pb2.GetModelRequest()]),
        _flooded("RecordEvents(1)", f"{_FEATURES}RecordEvents", _recordings(material, drawn)),
        _flooded(f"GetHistory of {EVENTS} events", f"{_FEATURES}GetHistory", history),
        _flooded("DeleteUser of nobody", f"{_FEATURES}DeleteUser", strangers),
        _flooded("ExportEvents of 100 people", f"{_FEATURES}ExportEvents", export),
    ]


def _recordings(material: Material, drawn: random.Random) -> Iterable[Message]:
    for user in material.users:
        movie_id = drawn.choice(material.movies).movie_id
        event = live_features_pb2.Event(user_id=user, movie_id=movie_id, kind=types_pb2.EVENT_KIND_WATCHED)
        yield live_features_pb2.RecordEventsRequest(events=[event])


def of_retriever(material: Material) -> list[Flooded]:
    """Lists the rpcs of the retriever, with requests."""
    drawn = random.Random(_SEED)
    movies = drawn.sample(material.movies, _PEOPLE)
    keys = [catalog_pb2.MovieKey(movie_id=movie.movie_id) for movie in movies]
    titles = [movie.title[: drawn.randint(1, len(movie.title))] for movie in movies]
    alike = [[movie.movie_id for movie in drawn.sample(movies, _ALIKE)] for _ in movies]
    similar = [retriever_pb2.SearchSimilarRequest(movie_ids=movie_ids, k=K) for movie_ids in alike]
    return [
        _flooded(f"Search, k = {K}", SEARCH, searches(material)),
        _flooded("Search, k = 10, with all details", SEARCH, searches(material, 10, ("*",))),
        _flooded(f"BatchSearch({QUERIES}), k = {K}", BATCH_SEARCH, [batch_search(material, QUERIES)]),
        _flooded(f"SearchSimilar to {_ALIKE}, k = {K}", f"{_RETRIEVER}SearchSimilar", similar),
        _flooded("GetIndex", f"{_RETRIEVER}GetIndex", [retriever_pb2.GetIndexRequest()]),
        _flooded("GetMovie", f"{_CATALOG}GetMovie", [catalog_pb2.GetMovieRequest(key=key) for key in keys]),
        _flooded(f"BatchGetMovies({len(keys)})", f"{_CATALOG}BatchGetMovies", [_all(keys)]),
        _flooded("SearchMovies", f"{_CATALOG}SearchMovies", [catalog_pb2.SearchMoviesRequest(query=t) for t in titles]),
        _flooded("ListGenres", f"{_CATALOG}ListGenres", [catalog_pb2.ListGenresRequest()]),
        _flooded("GetFacets", f"{_CATALOG}GetFacets", [catalog_pb2.GetFacetsRequest()]),
        _flooded(f"TopMovies, k = {K}", f"{_CATALOG}TopMovies", [catalog_pb2.TopMoviesRequest(k=K)]),
    ]


def _all(keys: Sequence[catalog_pb2.MovieKey]) -> Message:
    return catalog_pb2.BatchGetMoviesRequest(keys=keys)


def _flooded(name: str, method: str, requests: Iterable[Message]) -> Flooded:
    return Flooded(name, method, [request.SerializeToString() for request in requests])
