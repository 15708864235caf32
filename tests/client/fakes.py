"""Real servers on real sockets with canned answers, and one face for the blocking and the asyncio client."""

# The servicers' methods are named as the rpcs are.
# ruff: noqa: N802

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from marquee import errors
from marquee.client import AsyncRecommender, Recommender
from marquee.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    live_features_pb2,
    live_features_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    types_pb2,
    user_encoder_pb2,
    user_encoder_pb2_grpc,
)
from services.common.health import Health

ROOT = Path(__file__).parents[2]
SPACE = "a" * 8
VECTOR = b"\x00\x00\x80\x3f\x00\x00\x00\x00"
SEEN = (7).to_bytes(8, "little")

# What one call does instead of the canned answer: fails, answers this, or does whatever it likes.
Act = errors.MarqueeError | Exception | Any


class Seen(NamedTuple):
    """Is one call as it came in."""

    rpc: str
    request: Any
    remaining_s: float
    metadata: dict[str, str | bytes]


class Fake:
    """Keeps what came in and the acts that are still to come, per rpc; then come the canned answers."""

    def __init__(self) -> None:
        self.calls: list[Seen] = []
        self._acts: defaultdict[str, deque[Act]] = defaultdict(deque)

    def then(self, rpc: str, *acts: Act) -> None:
        self._acts[rpc].extend(acts)

    def names(self) -> list[str]:
        return [call.rpc for call in self.calls]

    def requests(self, rpc: str) -> list[Any]:
        return [call.request for call in self.calls if call.rpc == rpc]

    async def answer(self, rpc: str, request: Any, context: Any, canned: Any) -> Any:
        metadata = dict(context.invocation_metadata())
        self.calls.append(Seen(rpc, request, context.time_remaining(), metadata))
        act = self._acts[rpc].popleft() if self._acts[rpc] else canned
        if isinstance(act, errors.MarqueeError):
            details = ((errors.DETAILS_KEY, errors.to_status(act).SerializeToString()),)
            await context.abort(act.code, act.message, trailing_metadata=details)
        return await act(request, context) if callable(act) else act


def movie(movie_id: int, title: str = "", **fields: Any) -> types_pb2.Movie:
    return types_pb2.Movie(movie_id=movie_id, title=title or f"Movie {movie_id}", **fields)


MOVIES = {
    1: movie(
        1,
        "Toy Story",
        year=1995,
        genres=["Animation", "Comedy"],
        language="en",
        release_date="1995-11-22",
        runtime_minutes=81,
        directors=["John Lasseter"],
        cast=["Tom Hanks", "Tim Allen"],
        external_id="imdb:tt0114709",
        mean_rating=3.92,
        rating_count=215,
    ),
    2: movie(2, "[REC] a very long title, long enough to pass what a terminal of eighty columns holds", year=2007),
    3: movie(3, "Amélie", year=2001),
}


def hit_columns(k: int) -> dict[str, Any]:
    ids = sorted(MOVIES)[:k]
    return {
        "movie_ids": ids,
        "scores": [0.9 - 0.1 * rank for rank in range(len(ids))],
        "movies": [MOVIES[i] for i in ids],
    }


class Encoder(user_encoder_pb2_grpc.UserEncoderServiceServicer, live_features_pb2_grpc.LiveFeaturesServiceServicer):
    def __init__(self, fake: Fake) -> None:
        self._fake = fake

    async def Encode(self, request: Any, context: Any) -> Any:
        canned = user_encoder_pb2.EncodeResponse(
            vector=VECTOR,
            space=request.space or SPACE,
            bundle_id="b" * 8,
            request_id=request.request_id,
            as_of_ms=request.as_of_ms or 1_700_000_000_000,
            source=user_encoder_pb2.FEATURE_SOURCE_STORE,
            events_used=3,
            events_unknown=2,
            events_truncated=1,
            seen=SEEN,
        )
        return await self._fake.answer("Encode", request, context, canned)

    async def BatchEncode(self, request: Any, context: Any) -> Any:
        account = {"source": user_encoder_pb2.FEATURE_SOURCE_STORE, "events_used": 3, "seen": SEEN}
        canned = user_encoder_pb2.BatchEncodeResponse(
            vectors=VECTOR * len(request.items),
            results=[account] * len(request.items),
            space=request.space or SPACE,
            bundle_id="b" * 8,
            request_id=request.request_id,
            as_of_ms=request.as_of_ms or 1_700_000_000_000,
        )
        return await self._fake.answer("BatchEncode", request, context, canned)

    async def GetModel(self, request: Any, context: Any) -> Any:
        metric = {"system": "model", "protocol": "last", "targets": "all", "name": "recall@10", "value": 0.1, "n": 610}
        bundle = types_pb2.LoadedBundle(
            space=SPACE, role=types_pb2.BUNDLE_ROLE_ACTIVE, loaded_at_ms=1_700_000_000_000, metrics=[metric]
        )
        store = user_encoder_pb2.StoreState(kind="sqlite", reachable=True, stale_answers=2)
        state = types_pb2.ReplicaState(bundles=[bundle], generation=4)
        canned = user_encoder_pb2.GetModelResponse(state=state, store=store)
        return await self._fake.answer("GetModel", request, context, canned)

    async def RecordEvents(self, request: Any, context: Any) -> Any:
        count = len(request.events)
        canned = live_features_pb2.RecordEventsResponse(statuses=[{} for _ in range(count)], recorded=count)
        return await self._fake.answer("RecordEvents", request, context, canned)

    async def GetHistory(self, request: Any, context: Any) -> Any:
        columns = types_pb2.EventColumns(
            movie_ids=[1, 2],
            kinds=[types_pb2.EVENT_KIND_RATED, types_pb2.EVENT_KIND_LIKED],
            values=[4.5, 0],
            times_ms=[1_700_000_000_000, 1_600_000_000_000],
        )
        canned = live_features_pb2.GetHistoryResponse(events=columns, total=2)
        return await self._fake.answer("GetHistory", request, context, canned)

    async def Explain(self, request: Any, context: Any) -> Any:
        kinds = [types_pb2.EVENT_KIND_LIKED, types_pb2.EVENT_KIND_RATED]
        columns = types_pb2.EventColumns(movie_ids=[1, 2], kinds=kinds, values=[0, 4.5], times_ms=[2_000, 1_000])
        canned = user_encoder_pb2.ExplainResponse(
            movie_ids=[3],
            unknown_movie_ids=[movie_id for movie_id in request.movie_ids if movie_id not in MOVIES],
            events=columns,
            scores=struct.pack("<f", 0.5),
            contributions=struct.pack("<2f", -0.125, 0.25),
            space=SPACE,
            request_id=request.request_id,
            source=user_encoder_pb2.FEATURE_SOURCE_STORE,
            events_used=2,
        )
        return await self._fake.answer("Explain", request, context, canned)

    async def DeleteUser(self, request: Any, context: Any) -> Any:
        canned = live_features_pb2.DeleteUserResponse(deleted_at_ms=1_700_000_000_000, existed=True)
        return await self._fake.answer("DeleteUser", request, context, canned)

    async def ExportEvents(self, request: Any, context: Any) -> Any:
        raise NotImplementedError


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer, catalog_pb2_grpc.CatalogServiceServicer):
    def __init__(self, fake: Fake) -> None:
        self._fake = fake

    async def Search(self, request: Any, context: Any) -> Any:
        canned = retriever_pb2.SearchResponse(
            **hit_columns(request.k), space=request.space, bundle_id="c" * 8, request_id=request.request_id
        )
        if request.options.vectors:
            canned.vectors = VECTOR * len(canned.movie_ids)
        if request.options.debug:
            canned.debug.MergeFrom(retriever_pb2.SearchDebug(candidates=3, matching=2, path="exact", search_us=7))
        return await self._fake.answer("Search", request, context, canned)

    async def BatchSearch(self, request: Any, context: Any) -> Any:
        hits = [hit_columns(query.k) for query in request.queries]
        results = [{"movie_ids": one["movie_ids"], "scores": one["scores"]} for one in hits]
        canned = retriever_pb2.BatchSearchResponse(
            results=results, space=request.space, bundle_id="c" * 8, request_id=request.request_id
        )
        return await self._fake.answer("BatchSearch", request, context, canned)

    async def SearchSimilar(self, request: Any, context: Any) -> Any:
        canned = retriever_pb2.SearchSimilarResponse(
            **hit_columns(request.k), space=SPACE, bundle_id="c" * 8, request_id=request.request_id
        )
        return await self._fake.answer("SearchSimilar", request, context, canned)

    async def GetIndex(self, request: Any, context: Any) -> Any:
        canned = retriever_pb2.GetIndexResponse(state=types_pb2.ReplicaState(reload_error="bundle is cut off"))
        return await self._fake.answer("GetIndex", request, context, canned)

    async def GetMovie(self, request: Any, context: Any) -> Any:
        found = MOVIES.get(request.key.movie_id or 1)
        canned = catalog_pb2.GetMovieResponse(movie=found) if found else errors.MovieUnknown("no such movie")
        return await self._fake.answer("GetMovie", request, context, canned)

    async def BatchGetMovies(self, request: Any, context: Any) -> Any:
        unknown = errors.to_status(errors.MovieUnknown("no such movie"))
        found = [MOVIES.get(key.movie_id) for key in request.keys]
        results = [{"movie": one} if one else {"status": unknown} for one in found]
        canned = catalog_pb2.BatchGetMoviesResponse(results=results)
        return await self._fake.answer("BatchGetMovies", request, context, canned)

    async def SearchMovies(self, request: Any, context: Any) -> Any:
        found = [one for one in MOVIES.values() if one.title.casefold().startswith(request.query.casefold())]
        return await self._fake.answer("SearchMovies", request, context, catalog_pb2.SearchMoviesResponse(movies=found))

    async def ListGenres(self, request: Any, context: Any) -> Any:
        canned = catalog_pb2.ListGenresResponse(genres=[{"value": "Comedy", "movies": 2}])
        return await self._fake.answer("ListGenres", request, context, canned)

    async def GetFacets(self, request: Any, context: Any) -> Any:
        canned = catalog_pb2.GetFacetsResponse(
            movies=3, decades=[{"value": "2000", "movies": 2}, {"value": "1990", "movies": 1}], bundle_id="c" * 8
        )
        return await self._fake.answer("GetFacets", request, context, canned)

    async def TopMovies(self, request: Any, context: Any) -> Any:
        found = [MOVIES[3], MOVIES[1]][: request.k]
        canned = catalog_pb2.TopMoviesResponse(movies=found, bundle_id="c" * 8, request_id=request.request_id)
        return await self._fake.answer("TopMovies", request, context, canned)


@asynccontextmanager
async def serving(
    *add: Callable[[grpc.aio.Server], None], credentials: grpc.ServerCredentials | None = None, port: int = 0
) -> AsyncIterator[str]:
    """Serves on a port, by default a free one, and yields the address."""
    # As the services take.
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 32 << 20)]
    server = grpc.aio.server(options=options)
    health = Health([])
    health.set_serving(True)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for one in add:
        one(server)
    address = f"127.0.0.1:{port}"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        health.close()
        await server.stop(None)


def encoder_on(server: grpc.aio.Server, fake: Fake) -> None:
    user_encoder_pb2_grpc.add_UserEncoderServiceServicer_to_server(Encoder(fake), server)
    live_features_pb2_grpc.add_LiveFeaturesServiceServicer_to_server(Encoder(fake), server)


def retriever_on(server: grpc.aio.Server, fake: Fake) -> None:
    retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(Retriever(fake), server)
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(Retriever(fake), server)


class Services(NamedTuple):
    """Is both services, up: what they saw and where they are."""

    fake: Fake
    encoder: str
    retriever: str


def hanging() -> tuple[Act, asyncio.Event]:
    """Makes an act that never ends, and the event that says it has begun."""
    started = asyncio.Event()

    async def hang(request: Any, context: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    return hang, started


class Ask(Protocol):
    """Calls a method of a client by name and waits for what it returns or iterates over, whichever kind it is."""

    def __call__(self, method: str, /, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...


class MakeClient(Protocol):
    """Makes a client, closed with the test."""

    def __call__(self, encoder: str | Sequence[str], retriever: str | Sequence[str], **settings: Any) -> Ask: ...


def blocking(client: Recommender) -> Ask:
    async def ask(method: str, /, *args: Any, **kwargs: Any) -> Any:
        def call() -> Any:
            answer = getattr(client, method)(*args, **kwargs)
            return tuple(answer) if isinstance(answer, Iterator) else answer

        # In a thread, because the servers run in this one.
        return await asyncio.to_thread(call)

    return ask


def awaitable(client: AsyncRecommender) -> Ask:
    async def ask(method: str, /, *args: Any, **kwargs: Any) -> Any:
        answer = getattr(client, method)(*args, **kwargs)
        return tuple([item async for item in answer]) if isinstance(answer, AsyncIterator) else await answer

    return ask


class Finished(NamedTuple):
    """Is a command line that has ended."""

    code: int
    out: str
    err: str


def cli_environment(**extra: str) -> dict[str, str]:
    """Makes an environment without what would change colours, widths or addresses."""
    drop = ("MARQUEE_ENCODER", "MARQUEE_RETRIEVER", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE")
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "COLUMNS": "80"} | extra


@contextmanager
def refusing() -> Iterator[str]:
    """Yields an address where nobody listens and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


class StartCli(Protocol):
    """Starts the command line with these arguments."""

    def __call__(self, *arguments: str, **options: Any) -> Awaitable[asyncio.subprocess.Process]: ...


class RunCli(Protocol):
    """Runs the command line with these arguments to its end."""

    def __call__(self, *arguments: str) -> Awaitable[Finished]: ...
