"""Searches through a Milvus that is killed, hung, emptied and brought back: right answers, whole lists, in time."""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from marquee.errors import Unavailable, from_status
from marquee.v1 import retriever_pb2
from services.retriever.milvus import MILVUS, Milvus
from tests.milvus_rigs import MilvusServer, needs_milvus
from tests.rigs import Rig, error_of, eventually, retriever
from tests.search_checks import DIMENSION, check, correlated_queries, random_query
from tests.search_twin import World, make_world, packed, twin

pytestmark = needs_milvus

MOVIES = 700
DEADLINE_S = 4.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), movies=MOVIES, dimension=DIMENSION)


def request(world: World, seed: int = 1, **fields: Any) -> retriever_pb2.SearchRequest:
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype("<f4").tobytes()
    defaults: dict[str, Any] = {"vector": vector, "space": world.bundle.space, "k": 50}
    return retriever_pb2.SearchRequest(**defaults | fields)


async def search(rig: Rig, world: World, seed: int = 1) -> str:
    """Searches, and checks that the answer is the twin's; returns what looked for it."""
    asked = request(world, seed, exclude_packed=packed(list(range(1, 100, 3))))
    asked.options.debug = True
    answer = await rig.search.Search(asked, timeout=DEADLINE_S)
    expected = twin(world, asked)
    assert list(answer.movie_ids) == expected.movie_ids
    assert answer.short_reason == expected.short_reason
    return answer.debug.path


async def goes_through_milvus(rig: Rig, world: World) -> bool:
    try:
        return await search(rig, world) == MILVUS
    except grpc.aio.AioRpcError as failure:
        return not is_outage(failure)


def is_outage(failure: grpc.aio.AioRpcError) -> bool:
    """Says that a call was refused because Milvus is away, in words that name it."""
    error = error_of(failure)
    return isinstance(error, Unavailable) and error.message.startswith("Milvus at http://127.0.0.1:")


async def recovered(rig: Rig, world: World) -> None:
    await eventually(partial(goes_through_milvus, rig, world))


async def test_search_equals_its_twin(world: World, milvus_lite: MilvusServer) -> None:
    rng = np.random.default_rng(7)
    with milvus_lite.connection() as milvus:
        answers = await check(world, [random_query(rng) for _ in range(40)], milvus)
    assert sum(bool(answer.movie_ids) for answer in answers) > 20


async def test_filters_correlated_with_the_query_cost_no_movie(world: World, milvus_lite: MilvusServer) -> None:
    with milvus_lite.connection() as milvus:
        await check(world, list(correlated_queries(world)), milvus)


async def test_similar_movies_are_found(world: World, milvus_lite: MilvusServer) -> None:
    asked = retriever_pb2.SearchSimilarRequest(movie_ids=[1, 4], negative_movie_ids=[7], k=20)
    asked.options.debug = True
    async with retriever(world.registry) as rig:
        alone = await rig.search.SearchSimilar(asked)
    with milvus_lite.connection() as milvus:
        async with retriever(world.registry, milvus=milvus) as rig:
            found = await rig.search.SearchSimilar(asked)
    assert list(found.movie_ids) == list(alone.movie_ids)
    assert (found.debug.path, alone.debug.path) == (MILVUS, "exact")


async def test_killed_amid_searches_no_list_is_short(world: World, milvus_lite: MilvusServer) -> None:
    """One retriever compares everything while Milvus is away, and one refuses; both come back by themselves."""
    answered, killed = 0, False
    refused = {"exact": 0, "unavailable": 0}

    async def ask_on(rig: Rig, fallback: str, seed: int) -> None:
        nonlocal answered
        after = 0
        while after < 5:
            try:
                await search(rig, world, seed)
                answered += 1
            except grpc.aio.AioRpcError as failure:
                refused[fallback] += is_outage(failure)
            after += killed

    with milvus_lite.connection() as one, milvus_lite.connection(milvus_fallback="unavailable") as other:
        async with retriever(world.registry, milvus=one) as exact, retriever(world.registry, milvus=other) as strict:
            rigs = {"exact": exact, "unavailable": strict}
            asking = [asyncio.create_task(ask_on(rig, name, seed)) for seed in range(4) for name, rig in rigs.items()]
            await eventually(lambda: answered >= 20)
            milvus_lite.signal(signal.SIGKILL)
            killed = True
            await asyncio.gather(*asking)
            assert refused["exact"] == 0 < refused["unavailable"]
            await check_batches(world, exact, strict)
            milvus_lite.start()
            await recovered(exact, world)
            await recovered(strict, world)


async def check_batches(world: World, exact: Rig, strict: Rig) -> None:
    """Each query of a batch says that Milvus was away, but for those that nobody had to ask it for."""
    vector = request(world).vector
    queries = [retriever_pb2.BatchSearchQuery(vector=vector, k=k) for k in (5, 0, 10, 5)]
    queries[3].filter.include_ids.extend([1, 4])
    batch = retriever_pb2.BatchSearchRequest(queries=queries, space=world.bundle.space)
    for rig, expected in ((exact, ""), (strict, "UNAVAILABLE")):
        results = (await rig.search.BatchSearch(batch, timeout=DEADLINE_S)).results
        reasons = [from_status(one.status).reason if one.HasField("status") else "" for one in results]
        assert (reasons[:3], sorted(results[3].movie_ids)) == ([expected, "INVALID_REQUEST", expected], [1, 4])


async def test_hung_it_is_waited_for_half_of_what_is_left(world: World, milvus_lite: MilvusServer) -> None:
    with milvus_lite.connection(milvus_timeout_s=60.0) as milvus:
        async with retriever(world.registry, milvus=milvus) as rig:
            await recovered(rig, world)
            milvus_lite.signal(signal.SIGSTOP)
            # Each within its deadline, also those that wait for a thread.
            paths = await asyncio.gather(*(search(rig, world, seed) for seed in range(60)))
            assert MILVUS not in paths
            milvus_lite.signal(signal.SIGCONT)
            await recovered(rig, world)


async def test_hung_it_holds_up_no_other_call(world: World, milvus_lite: MilvusServer) -> None:
    with milvus_lite.connection(milvus_timeout_s=2.0) as milvus:
        async with retriever(world.registry, milvus=milvus) as rig:
            await recovered(rig, world)
            milvus_lite.signal(signal.SIGSTOP)
            hanging = asyncio.create_task(search(rig, world))
            for _ in range(20):
                await rig.search.GetIndex(retriever_pb2.GetIndexRequest(), timeout=1.0)
            assert not hanging.done()
            assert await hanging != MILVUS
            milvus_lite.signal(signal.SIGCONT)
            await recovered(rig, world)


async def test_while_it_is_away_few_calls_wait_for_it(
    world: World, milvus_lite: MilvusServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    plain = Milvus.search

    def counting(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return plain(*arguments)

    with milvus_lite.connection(milvus_timeout_s=0.2) as milvus:
        async with retriever(world.registry, milvus=milvus) as rig:
            await recovered(rig, world)
            milvus_lite.signal(signal.SIGSTOP)
            monkeypatch.setattr(Milvus, "search", counting)
            began = time.monotonic()
            for seed in range(60):
                assert await search(rig, world, seed) != MILVUS
            assert milvus is not None
            assert (milvus.reachable, milvus.misses) == (False, 60)
            # Five find out, and then one in half a second tries.
            assert 5 <= asked <= 6 + 2 * (time.monotonic() - began)
            monkeypatch.undo()
            milvus_lite.signal(signal.SIGCONT)
            await recovered(rig, world)
            assert milvus.reachable
    (told,) = [record.message for record in caplog.records if record.name == "services.common.breaker"]
    assert "no answer within 0.2 s; see that it runs, can be reached and is not overloaded" in told
    assert "5 reads in a row have failed: until one succeeds, every vector is compared here" in told


async def test_one_that_starts_while_it_is_away_compares_and_fills_later(
    world: World, milvus_lite: MilvusServer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in milvus_lite.client().list_collections():
        milvus_lite.client().drop_collection(name)
    milvus_lite.signal(signal.SIGKILL)
    with milvus_lite.connection() as milvus:
        async with retriever(world.registry, milvus=milvus) as rig:
            assert await search(rig, world) != MILVUS
            assert "; until it is, every vector is compared here" in caplog.text
            milvus_lite.start()
            await recovered(rig, world)
            assert len(milvus_lite.client().list_collections()) == 1


async def test_a_collection_that_somebody_dropped_is_filled_again(world: World, milvus_lite: MilvusServer) -> None:
    with milvus_lite.connection() as milvus:
        async with retriever(world.registry, milvus=milvus) as rig:
            await recovered(rig, world)
            client = milvus_lite.client()
            for name in client.list_collections():
                client.drop_collection(name)
            assert await search(rig, world) != MILVUS
            await recovered(rig, world)
            (name,) = client.list_collections()
            assert client.get_collection_stats(name)["row_count"] == MOVIES
