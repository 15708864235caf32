"""What people are called, what they have seen, what they look for and with which key: in no log, whatever its level."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import grpc
import pytest

from marquee.bundle.format import ITEM_VECTORS, Bundle
from marquee.features import LIKED, RATED
from marquee.v1 import catalog_pb2 as catalog
from marquee.v1 import live_features_pb2 as live
from marquee.v1 import retriever_pb2 as retriever
from marquee.v1 import types_pb2 as types
from marquee.v1 import user_encoder_pb2 as users
from services.common.logs import configure_logs
from services.common.policy import POLICY, Role
from services.common.settings import CommonSettings
from tests.bundles import make_bundle
from tests.encoder_rigs import Row, columns, recording
from tests.redis_rigs import RedisServer
from tests.rigs import publish, service_process
from tests.secured import HOST, bearer, enroll

# Marked so that each is found wherever it is written, as text or as a number.
PERSON, OTHER = "marked-person-ada", "marked-person-bob"
MOVIES = (987_654_301, 987_654_302, 987_654_303)
QUERY = "marked query"
MARKED = ("marked", "987654", "987_654")


class Told(NamedTuple):
    """Is what services wrote into their logs, and what callers got as errors."""

    logs: str
    errors: list[str]


class Calls:
    """Calls methods with any message, and keeps the errors' texts."""

    def __init__(self, channel: grpc.Channel, service: str, key: str) -> None:
        self._channel, self._service, self._key = channel, service, key
        self.errors: list[str] = []

    def __call__(self, method: str, request: Any, key: str | None = None) -> None:
        path = f"/marquee.v1.{self._service}/{method}"
        assert path in POLICY
        call: Any = self._channel.unary_unary(path, request_serializer=type(request).SerializeToString)
        try:
            call(request, metadata=bearer(self._key if key is None else key), timeout=20)
        except grpc.RpcError as error:
            self.errors.append(f"{method}: {error.code().name}: {error.details()}")


def history() -> types.EventColumns:
    return columns(*(Row(movie, LIKED, 0.0, 1_000 + movie) for movie in MOVIES))


def use_features(call: Calls) -> None:
    """Writes down what people do, with and without mistakes, and reads and deletes it."""
    call("RecordEvents", recording(PERSON, *(Row(movie, RATED, 4.5, 1_000_000) for movie in MOVIES)))
    call("RecordEvents", recording(OTHER, Row(MOVIES[0], RATED, 77.0, 1_000_000), Row(-MOVIES[1], LIKED, 0.0, 1)))
    call("RecordEvents", recording(PERSON * 20, Row(MOVIES[0], RATED, 4.5, 1_000_000)))
    call("GetHistory", live.GetHistoryRequest(user_id=PERSON))
    call("GetHistory", live.GetHistoryRequest(user_id=PERSON * 20))
    call("GetHistory", live.GetHistoryRequest(user_id=PERSON), key=f"{PERSON}.{QUERY}")
    call("ExportEvents", live.ExportEventsRequest())
    call("DeleteUser", live.DeleteUserRequest(user_id=PERSON))
    call("RecordEvents", recording(PERSON, Row(MOVIES[0], RATED, 4.5, 1_000_000)))


def use_encoder(call: Calls) -> None:
    """Encodes stored and sent events, with and without mistakes."""
    call("Encode", users.EncodeRequest(user_id=PERSON, events=history()))
    call("Encode", users.EncodeRequest(user_id=OTHER))
    call("Encode", users.EncodeRequest(user_id=PERSON, space="marked-space"))
    odd = types.EventColumns(movie_ids=MOVIES, kinds=[types.EVENT_KIND_LIKED])
    call("Encode", users.EncodeRequest(user_id=PERSON, events=odd))
    call("BatchEncode", users.BatchEncodeRequest(items=[users.BatchEncodeItem(user_id=PERSON, events=history())]))
    call("Explain", users.ExplainRequest(user_id=PERSON, events=history()))
    call("GetModel", users.GetModelRequest())


def use_retriever(call: Calls, bundle: Bundle) -> None:
    """Searches near a person's vector, with what they have seen left out."""
    vector = bundle.array(ITEM_VECTORS)[0].tobytes()
    near = retriever.SearchRequest(vector=vector, space=bundle.space, k=5, filter=types.MovieFilter(exclude_ids=MOVIES))
    call("Search", near)
    call(
        "Search",
        retriever.SearchRequest(
            vector=vector[1:], space=bundle.space, k=5, filter=types.MovieFilter(exclude_ids=MOVIES)
        ),
    )
    call("Search", retriever.SearchRequest(vector=vector, space="marked-space", k=5))
    call("SearchSimilar", retriever.SearchSimilarRequest(movie_ids=MOVIES, k=5))
    call("GetIndex", retriever.GetIndexRequest())


def use_catalog(call: Calls) -> None:
    """Looks for titles, and for movies that are not there."""
    call("SearchMovies", catalog.SearchMoviesRequest(query=QUERY))
    call("SearchMovies", catalog.SearchMoviesRequest(query=QUERY * 200))
    call("GetMovie", catalog.GetMovieRequest(key=catalog.MovieKey(movie_id=MOVIES[0])))
    call("GetMovie", catalog.GetMovieRequest(key=catalog.MovieKey(external_id="imdb:marked")))
    call("BatchGetMovies", catalog.BatchGetMoviesRequest(keys=[catalog.MovieKey(movie_id=movie) for movie in MOVIES]))


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_one: RedisServer) -> Told:
    folder = tmp_path_factory.mktemp("private")
    bundle = make_bundle(folder / "bundle", movies=20)
    registry = publish(folder / "registry", bundle).root
    key = enroll(folder / "callers", "marked-caller", Role.ADMIN)
    flags = ["--log-level=debug", "--auth=keys", f"--callers={folder / 'callers'}", "--reflection", "--metrics-port=0"]
    (folder / "store.key").write_bytes(b"marked-secret-of-the-store-marke")
    stores = {"sqlite": folder / "features.sqlite", "redis": redis_one.url}
    store = [f"--store={stores[request.param]}", f"--store-key={folder / 'store.key'}"]
    errors, logs = [], []
    with service_process("user_encoder", folder, registry, *flags, *store) as process:
        with grpc.insecure_channel(f"{HOST}:{process.port}") as channel:
            for service, use in (("LiveFeaturesService", use_features), ("UserEncoderService", use_encoder)):
                use(call := Calls(channel, service, key))
                errors += call.errors
        logs.append(process.stop()[1])
    with service_process("retriever", folder, registry, *flags) as process:
        with grpc.insecure_channel(f"{HOST}:{process.port}") as channel:
            use_retriever(call := Calls(channel, "RetrieverService", key), bundle)
            errors += call.errors
            use_catalog(call := Calls(channel, "CatalogService", key))
            errors += call.errors
        logs.append(process.stop()[1])
    return Told("".join(logs), errors)


def test_no_log_has_a_person_a_movie_a_query_or_a_key(told: Told) -> None:
    lines = told.logs.splitlines()
    assert len(lines) > 30, "at debug every call has its line"
    assert "/marquee.v1.LiveFeaturesService/DeleteUser" in told.logs
    assert [line for line in lines if any(marked in line for marked in MARKED)] == []


def test_no_error_has_a_key_or_what_else_a_person_has_seen(told: Told) -> None:
    assert len(told.errors) > 7
    assert "UNAUTHENTICATED" in str(told.errors)
    for error in told.errors:
        assert "marked-caller" not in error
        assert QUERY not in error
        assert sum(str(movie) in error for movie in MOVIES) <= 1, error


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_says_where_and_not_with_what(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        try:
            {"": 0}[PERSON]
        except KeyError as error:
            raise ValueError(f"nothing of {PERSON}") from error

    before = logging.root.handlers[:], logging.root.level
    try:
        configure_logs("service", CommonSettings(log_format=form))
        try:
            fail()
        except ValueError:
            logging.getLogger("x").exception("it failed")
    finally:
        logging.root.handlers[:], level = before
        logging.root.setLevel(level)
    line = capsys.readouterr().err.partition("\n")[2]
    assert PERSON not in line
    for part in ("it failed", "in fail", "ValueError", "while handling", "KeyError"):
        assert part in line
