"""A retriever that follows the registry under load: every call is answered at once, and right for its bundle."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import grpc.aio
import numpy as np
import pytest

from marquee.bundle.format import Bundle
from marquee.bundle.registry import Registry
from marquee.v1 import retriever_pb2, retriever_pb2_grpc
from tests.bundles import make_bundle
from tests.rigs import eventually, publish, service_process
from tests.search_twin import Answer, twin, world_of

# Quoted: only the stubs' types know it.
Stub: TypeAlias = "retriever_pb2_grpc.RetrieverServiceAsyncStub"

DIMENSION, K = 16, 12
CALL_TIMEOUT_S, PATIENCE_S = 10.0, 30.0
# Within these a refresh must be searched; what it takes is a look at the pointer and the load of a small bundle.
SECONDS = 5.0
CALLERS, CALLS_A_ROUND = 5, 8
# Nothing is tried twice behind the callers' backs: what is answered was answered at once.
NO_RETRIES = [("grpc.enable_retries", 0)]

# From the plain list to one that takes everything there is, and one that is picked in another thread.
OPTIONS = [
    None,
    retriever_pb2.SearchOptions(min_score=-0.9, quality=retriever_pb2.QUALITY_EXACT),
    retriever_pb2.SearchOptions(diversity=0.4, max_per_genre=4, max_per_director=2, vectors=True, debug=True),
]


class Bundles(NamedTuple):
    """Holds bundles of two spaces, and a revision of the first."""

    a: Bundle
    a_refreshed: Bundle
    b: Bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    folder = tmp_path_factory.mktemp("reload")
    made = Bundles(
        make_bundle(folder / "a", movies=90, seed=1),
        make_bundle(folder / "a-refreshed", movies=90, seed=1, added=30, dropped=10),
        make_bundle(folder / "b", movies=100, seed=2),
    )
    assert made.a.space == made.a_refreshed.space != made.b.space
    return made


def queries() -> list[retriever_pb2.BatchSearchQuery]:
    vector = np.random.default_rng(5).standard_normal(DIMENSION).astype("<f4").tobytes()
    picked_apart = retriever_pb2.SearchOptions(diversity=0.4)
    return [
        *(retriever_pb2.BatchSearchQuery(vector=vector, k=K, options=options) for options in OPTIONS),
        retriever_pb2.BatchSearchQuery(vector=vector, k=60, options=picked_apart),
    ]


class Callers:
    """Searches each space, one by one and as a batch, until told to stop; a call that fails ends the test."""

    def __init__(self, stub: Stub, bundles: Bundles) -> None:
        self._stub = stub
        self._spaces = [bundles.a.space, bundles.b.space]
        self._queries = queries()
        self._expected = {bundle.id: self._answers(bundle) for bundle in bundles}
        self._stopped = asyncio.Event()
        self.answers: Counter[tuple[str, str]] = Counter()

    def _answers(self, bundle: Bundle) -> list[Answer]:
        world = world_of(bundle.path, bundle)
        return [twin(world, query) for query in self._queries]

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        while not self._stopped.is_set():
            for space in self._spaces:
                await self._search(space)
                await self._search_batch(space)

    async def go_on(self) -> None:
        """Waits until all have asked for everything again, twice."""
        calls = self.answers.total() + 2 * CALLERS * CALLS_A_ROUND
        await eventually(lambda: self.answers.total() >= calls, PATIENCE_S)

    async def _search(self, space: str) -> None:
        for at, query in enumerate(self._queries):
            request = retriever_pb2.SearchRequest(vector=query.vector, k=query.k, options=query.options, space=space)
            answer = await self._stub.Search(request, timeout=CALL_TIMEOUT_S)
            assert answer.space == space
            expected = self._expected[answer.bundle_id][at]
            assert list(answer.movie_ids) == expected.movie_ids
            assert list(answer.scores) == pytest.approx(expected.scores, abs=1e-6)
            self.answers[space, answer.bundle_id] += 1

    async def _search_batch(self, space: str) -> None:
        request = retriever_pb2.BatchSearchRequest(queries=self._queries, space=space)
        answer = await self._stub.BatchSearch(request, timeout=CALL_TIMEOUT_S)
        # All of a batch is of one bundle, whatever is swapped meanwhile.
        found = [list(result.movie_ids) for result in answer.results]
        assert found == [expected.movie_ids for expected in self._expected[answer.bundle_id]]
        self.answers[space, answer.bundle_id] += 1


async def test_a_hot_swap_under_load_fails_no_call_and_a_refresh_is_searched_within_seconds(
    tmp_path: Path, bundles: Bundles
) -> None:
    registry = publish(tmp_path / "registry", bundles.a)
    await asyncio.to_thread(registry.publish, bundles.b.path, check=None)
    with service_process("retriever", tmp_path, registry.root, "--drain-s=0") as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}", options=NO_RETRIES) as channel:
            stub = cast("Stub", retriever_pb2_grpc.RetrieverServiceStub(channel))
            callers = Callers(stub, bundles)
            async with asyncio.TaskGroup() as group:
                for _ in range(CALLERS):
                    group.create_task(callers.run())
                await callers.go_on()
                await asyncio.to_thread(registry.activate, bundles.b.id, confirm=None)
                await followed(registry, stub)
                await callers.go_on()
                await asyncio.to_thread(registry.publish, bundles.a_refreshed.path, check=None)
                published = time.monotonic()
                await searched(callers, bundles.a_refreshed)
                assert time.monotonic() - published < SECONDS
                await asyncio.to_thread(registry.activate, bundles.a_refreshed.id, confirm=None)
                await followed(registry, stub)
                await callers.go_on()
                callers.stop()
        code, log = await asyncio.to_thread(process.stop)
    assert (code, "ERROR" in log) == (0, False), log
    a, a_refreshed, b = bundles
    assert set(callers.answers) == {(a.space, a.id), (a.space, a_refreshed.id), (b.space, b.id)}


async def followed(registry: Registry, stub: Stub) -> None:
    """Waits until the retriever serves what the pointer says."""
    generation = registry.read().generation

    async def is_followed() -> bool:
        return (await stub.GetIndex(retriever_pb2.GetIndexRequest())).state.generation == generation

    await eventually(is_followed, PATIENCE_S)


async def searched(callers: Callers, bundle: Bundle) -> None:
    """Waits until a caller has an answer from a bundle."""
    await eventually(lambda: callers.answers[bundle.space, bundle.id] > 0, PATIENCE_S)
