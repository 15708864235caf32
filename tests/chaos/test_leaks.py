"""Thousands of calls of every rpc that are answered, fail, or are given up: nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio
import pytest

from marquee.features import LIKED
from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.chaos.anything import Rpc, rpcs_of
from tests.chaos.handles import held_by
from tests.chaos.promises import Happened, promise
from tests.encoder_rigs import Row, encoder, recording
from tests.rigs import eventually, publish, retriever

# A pool of threads grows by one when its threads are all busy, which is no leak and comes to an end: what leaks grows
# with every forty rounds.
WARM_UP, ROUNDS, TRIES = 5, 40, 4
# Nothing takes as long, not even on a busy machine.
PATIENCE_S = 10.0
NO_MESSAGE = b"\x0a\x05he"


class Target(NamedTuple):
    """Is where a service listens, in this process, and a request of each method that is answered well."""

    port: int
    good: dict[str, bytes]


@asynccontextmanager
async def serving(service: str, folder: Path) -> AsyncIterator[Target]:
    bundle = make_bundle(folder / "bundle")
    registry = publish(folder / "registry", bundle).root
    if service == "user_encoder":
        async with encoder(registry, folder / "features.sqlite") as rig:
            yield Target(rig.port, good_for_the_encoder())
    else:
        async with retriever(registry) as running:
            yield Target(running.life.port, good_for_the_retriever(bundle.space))


def good_for_the_encoder() -> dict[str, bytes]:
    messages = {
        "RecordEvents": recording("ada", Row(1, LIKED, 0, 1000), Row(4, LIKED, 0, 2000)),
        "Encode": user_encoder_pb2.EncodeRequest(user_id="ada"),
        "BatchEncode": user_encoder_pb2.BatchEncodeRequest(items=[{"user_id": "ada"}] * 3),
        "Explain": user_encoder_pb2.ExplainRequest(user_id="ada", movie_ids=[7]),
        "GetHistory": live_features_pb2.GetHistoryRequest(user_id="ada"),
        "DeleteUser": live_features_pb2.DeleteUserRequest(user_id="bob"),
        "ExportEvents": live_features_pb2.ExportEventsRequest(),
    }
    return {name: message.SerializeToString() for name, message in messages.items()}


def good_for_the_retriever(space: str) -> dict[str, bytes]:
    vector = b"\0\0\x80?" * 16
    key = catalog_pb2.MovieKey(movie_id=1)
    options = retriever_pb2.SearchOptions(diversity=0.3)
    messages = {
        # Long and varied: made in another thread.
        "Search": retriever_pb2.SearchRequest(vector=vector, space=space, k=60, options=options),
        "BatchSearch": retriever_pb2.BatchSearchRequest(queries=[{"vector": vector, "k": 5}] * 3, space=space),
        "SearchSimilar": retriever_pb2.SearchSimilarRequest(movie_ids=[1], k=5),
        "GetMovie": catalog_pb2.GetMovieRequest(key=key),
        "BatchGetMovies": catalog_pb2.BatchGetMoviesRequest(keys=[key]),
        "SearchMovies": catalog_pb2.SearchMoviesRequest(query="harbor"),
        "TopMovies": catalog_pb2.TopMoviesRequest(k=5),
    }
    return {name: message.SerializeToString() for name, message in messages.items()}


async def use(service: str, target: Target, ended: Counter[str]) -> None:
    """Calls every rpc on a connection of its own: well, badly, and so that the call is given up at once or at last."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}", options) as channel:
        # The store of the encoder is filled by one of them: in their order, one after the other.
        for rpc in rpcs_of(service):
            good = target.good.get(rpc.path.rpartition("/")[2], b"")
            calls = [call_of(channel, rpc, request) for request in (good, NO_MESSAGE, good, good)]
            calls[2].cancel()
            await asyncio.sleep(0)
            calls[3].cancel()
            for call in calls:
                ended[(await call.code()).name] += 1


def call_of(channel: grpc.aio.Channel, rpc: Rpc, request: Any) -> Any:
    if not rpc.streams:
        return channel.unary_unary(rpc.path)(request, timeout=PATIENCE_S)
    # A Watch ends when its caller does not want it any more.
    call: Any = channel.unary_stream(rpc.path)(request, timeout=PATIENCE_S)
    asyncio.get_running_loop().call_later(0.05, call.cancel)
    return call


class Holding(NamedTuple):
    """Is what this process holds, and the tasks of its event loop."""

    files: int
    threads: int
    tasks: int

    def within(self, other: Holding) -> bool:
        """Says whether it is no more than that, in any respect."""
        return all(ours <= theirs for ours, theirs in zip(self, other, strict=True))

    def told(self) -> str:
        return f"{self.files} open files, {self.threads} threads, {self.tasks} tasks"


def holding() -> Holding:
    gc.collect()
    return Holding(*held_by(os.getpid()), len(asyncio.all_tasks()))


async def lets_go(before: Holding) -> Holding:
    """Waits until this process holds no more than before, or for as long as closing may take; returns what it holds."""
    with suppress(TimeoutError):
        await eventually(lambda: holding().within(before), PATIENCE_S)
    return holding()


@pytest.mark.parametrize("service", ["user_encoder", "retriever"])
@promise(
    "every rpc is called well, with bytes that are no request, and given up, on connections that come and go",
    "no open file, socket, thread or task stays",
)
async def test_nothing_stays(service: str, tmp_path: Path, happened: Happened) -> None:
    ended: Counter[str] = Counter()
    async with serving(service, tmp_path) as target:
        for _ in range(WARM_UP):
            await use(service, target, ended)
        for _ in range(TRIES):
            before = holding()
            for _ in range(ROUNDS):
                await use(service, target, ended)
            after = await lets_go(before)
            if after.within(before):
                break
    counted = ", ".join(f"{count} {how}" for how, count in sorted(ended.items()))
    told = f"{counted}; before: {before.told()}; after: {after.told()}"
    assert after.within(before), f"every one of {TRIES} times {ROUNDS} rounds left something: {told}"
    assert {"OK", "INVALID_ARGUMENT", "CANCELLED"} <= set(ended)
    happened(told)
