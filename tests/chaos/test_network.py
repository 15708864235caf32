"""What lies between the SDK and the services is slow, narrow, cut or dead."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from marquee.client import AsyncRecommender
from tests.bundles import make_bundle
from tests.chaos.load import DEADLINE_OF_CALLS_S, PEOPLE, RIGHT, TOP, Expected, Load, expect, loading, record_people
from tests.chaos.promises import Happened, promise
from tests.chaos.proxy import Proxy, Way, proxy_to
from tests.encoder_rigs import encoder
from tests.rigs import publish, retriever

MOVIES = 50


class World(NamedTuple):
    """Is what the services serve, and what must come of it."""

    registry: Path
    expected: Expected


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    bundle = make_bundle(folder / "bundle", movies=MOVIES)
    publish(folder / "registry", bundle)
    return World(folder / "registry", expect(bundle, MOVIES))


class Ways(NamedTuple):
    """Is the way to each service, and the load that goes over it."""

    encoder: Proxy
    retriever: Proxy
    load: Load


@contextlib.asynccontextmanager
async def loaded_ways(world: World, folder: Path, *, detour: bool = False, rate: float = 40) -> AsyncIterator[Ways]:
    """Loads one replica of each service through proxies; with a detour the SDK knows a way around them as well."""
    async with (
        encoder(world.registry, folder / "features.sqlite") as users,
        retriever(world.registry) as movies,
        proxy_to(users.port) as to_users,
        proxy_to(movies.life.port) as to_movies,
    ):
        ports = {to_users: users.port, to_movies: movies.life.port}
        encoders, retrievers = (
            [way.address, f"127.0.0.1:{port}"] if detour else [way.address] for way, port in ports.items()
        )
        async with AsyncRecommender(encoders, retrievers, deadline_s=DEADLINE_OF_CALLS_S) as sdk:
            await record_people(sdk)
            async with loading(sdk, world.expected, rate=rate) as load:
                yield Ways(to_users, to_movies, load)


@promise("the network is slow, uneven, or passes byte by byte", "every list is right, as late as the network makes it")
@pytest.mark.parametrize(
    "way", [Way(latency_s=0.03), Way(jitter_s=0.06), Way(slice_bytes=1)], ids=["30 ms", "0 to 60 ms", "one-byte pieces"]
)
async def test_a_bad_way(world: World, tmp_path: Path, way: Way, happened: Happened) -> None:
    # Few calls: each byte costs the proxy, which runs here, as much as a piece does.
    async with loaded_ways(world, tmp_path, rate=10) as ways:
        ways.encoder.way = ways.retriever.way = way
        await ways.load.until(RIGHT, times=PEOPLE)
        ways.encoder.way = ways.retriever.way = Way()
    assert set(ways.load.count()) == {RIGHT}, ways.load.others()
    happened(ways.load.summary())


@promise(
    "the network carries less than is asked for (4 kB/s)",
    "what does not come in time is DeadlineExceeded, no list is wrong or cut; all is right once it carries enough",
)
async def test_a_narrow_way(world: World, tmp_path: Path, happened: Happened) -> None:
    async with loaded_ways(world, tmp_path) as ways:
        ways.retriever.way = Way(bytes_per_s=4_000, slice_bytes=400)
        await ways.load.until("DeadlineExceeded")
        ways.retriever.way = Way()
        back_s = await ways.load.until(RIGHT)
    assert set(ways.load.count()) == {RIGHT, "DeadlineExceeded"}
    happened(f"{ways.load.summary()}; right after {back_s:.1f} s")


@promise(
    "connections are cut in mid-stream, by a reset or by the server's end alone (half-close), five times",
    "every list is right: calls in flight are made again over a new connection",
)
@pytest.mark.parametrize("cut", [Proxy.reset, Proxy.half_close], ids=["reset", "half-close"])
async def test_connections_that_are_cut(
    world: World, tmp_path: Path, cut: Callable[[Proxy], int], happened: Happened
) -> None:
    async with loaded_ways(world, tmp_path, rate=20) as ways:
        # So that some calls are on their way at any time.
        ways.encoder.way = ways.retriever.way = Way(latency_s=0.01)
        cuts = 0
        for _ in range(5):
            cuts += cut(ways.encoder) + cut(ways.retriever)
            await ways.load.until(RIGHT, times=5)
    assert cuts >= 10
    assert set(ways.load.count()) == {RIGHT}, ways.load.others()
    happened(f"{cuts} cuts; {ways.load.summary()}")


@promise(
    "packets to one of two replicas are dropped without a word",
    "its calls end in time: with the most watched, flagged degraded, or as DeadlineExceeded where it is a retriever. "
    "Within seconds it gets none; no list is wrong",
)
async def test_one_of_two_ways_is_dead(world: World, tmp_path: Path, happened: Happened) -> None:
    async with loaded_ways(world, tmp_path, detour=True) as ways:
        ways.encoder.swallow()
        ways.retriever.swallow()
        left_out_s = await ways.load.until(RIGHT)
        ways.encoder.release()
        ways.retriever.release()
        await ways.load.until(RIGHT)
    assert set(ways.load.count()) <= {RIGHT, TOP, "DeadlineExceeded"}
    assert ways.load.count()["DeadlineExceeded"]
    happened(f"{ways.load.summary()}; left out after {left_out_s:.1f} s")


@promise(
    "packets to the only replica are dropped without a word",
    "without the encoder no call fails: lists are of the most watched, flagged degraded. Without the retriever calls "
    "end at their deadlines as DeadlineExceeded. All is right once packets pass again",
)
@pytest.mark.parametrize(
    ("service", "said"), [("encoder", TOP), ("retriever", "DeadlineExceeded")], ids=["encoder", "retriever"]
)
async def test_the_only_way_is_dead(world: World, tmp_path: Path, service: str, said: str, happened: Happened) -> None:
    async with loaded_ways(world, tmp_path) as ways:
        way = {"encoder": ways.encoder, "retriever": ways.retriever}[service]
        way.swallow()
        await ways.load.until(said)
        way.release()
        back_s = await ways.load.until(RIGHT)
    assert set(ways.load.count()) == {RIGHT, said}
    assert all(way.address in one.about for one in ways.load.others())
    happened(f"{ways.load.summary()}; right after {back_s:.1f} s")
