"""An encoder whose Redis fails, and whose way to it fails.

tests/services/test_encoder_store_faults.py breaks it in more ways and looks at each step; here is what is promised.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import grpc.aio
import pytest

from marquee.errors import StoreUnavailable, UserUnknown
from marquee.features import LIKED
from marquee.v1 import live_features_pb2
from tests.bundles import make_bundle
from tests.chaos.promises import Happened, promise
from tests.chaos.proxy import Proxy, Way, proxy_to
from tests.encoder_rigs import EncoderRig, Row, recording, rows_of
from tests.fault_rigs import COLD_START, DEADLINE_S, STALE, STORE, encode, encoder_on_redis, recovered, remember, seen
from tests.redis_rigs import RedisServer, redis_server
from tests.rigs import error_of, eventually, publish

_ROUNDS_S = 1.5


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Is a Redis that keeps what it was told."""
    with redis_server(tmp_path_factory.mktemp("redis"), "--appendonly", "yes", "--save", "") as started:
        yield started


class Broken(NamedTuple):
    """Is what a fault may break."""

    server: RedisServer
    way: Proxy


class Tally:
    """Encodes a known person, and records somebody's likes, one after the other, while the store is broken."""

    def __init__(self, rig: EncoderRig) -> None:
        self._rig = rig
        self.sources: Counter[str] = Counter()
        self.confirmed: set[int] = set()
        self.refused = 0

    async def run(self, seconds: float = _ROUNDS_S) -> None:
        ends_at = time.monotonic() + seconds
        for number in itertools.count(len(self.confirmed) + self.refused):
            await self._encode()
            await self._record(1 + number)
            if time.monotonic() >= ends_at:
                return

    async def _encode(self) -> None:
        answer = await encode(self._rig, "ada")
        said = {STORE: "fresh", STALE: "stale", COLD_START: "blind"}[answer.source]
        assert answer.degraded == (said != "fresh")
        assert seen(answer) == ([] if said == "blind" else [1, 4])
        self.sources[said] += 1

    async def _record(self, movie: int) -> None:
        try:
            answer = await self._rig.features.RecordEvents(
                recording("fan", Row(movie, LIKED, 0, 1000 + movie)), timeout=DEADLINE_S
            )
        except grpc.aio.AioRpcError as failure:
            if not isinstance(error_of(failure), StoreUnavailable):
                raise
            self.refused += 1
        else:
            assert answer.recorded == 1
            self.confirmed.add(movie)

    async def check(self) -> None:
        """Waits until the store is read again, and checks that all that was confirmed is in it."""
        await recovered(self._rig)
        history = await self._rig.features.GetHistory(
            live_features_pb2.GetHistoryRequest(user_id="fan", page_size=1000), timeout=DEADLINE_S
        )
        assert {row.movie for row in rows_of(history.events)} >= self.confirmed

    def __str__(self) -> str:
        answers = ", ".join(f"{count} {said}" for said, count in sorted(self.sources.items()))
        return f"{answers} answers; of {len(self.confirmed)} confirmed likes none lost, {self.refused} refused"


@contextlib.asynccontextmanager
async def tallied(registry: Path, server: RedisServer) -> AsyncIterator[tuple[Broken, Tally]]:
    """Runs an encoder whose way to the server may be broken; in the end all is as it was."""
    server.flush()
    async with proxy_to(server.port) as way, encoder_on_redis(registry, f"redis://{way.address}") as rig:
        await remember(rig)
        tally = Tally(rig)
        await tally.run(0.0)
        yield Broken(server, way), tally
        await tally.check()


Act: TypeAlias = Callable[[Broken], object]


def _told(*words: str) -> Act:
    return lambda broken: broken.server.ask.execute_command(*words)


def _signalled(number: signal.Signals) -> Act:
    return lambda broken: broken.server.signal(number)


class Fault(NamedTuple):
    """Is how a server is broken and mended."""

    breaks: Act
    mends: Act


FAULTS = {
    "killed": Fault(_signalled(signal.SIGKILL), lambda broken: broken.server.start()),
    "hung": Fault(_signalled(signal.SIGSTOP), _signalled(signal.SIGCONT)),
    # Longer than an answer waits for the store.
    "slow": Fault(_told("CLIENT", "PAUSE", "400", "ALL"), _told("CLIENT", "UNPAUSE")),
    "full": Fault(_told("CONFIG", "SET", "maxmemory", "1"), _told("CONFIG", "SET", "maxmemory", "0")),
}


@promise(
    "Redis is killed, hangs, is slow, or is full (noeviction)",
    "Encode is fresh, or made of what is remembered and flagged; RecordEvents stores or refuses. What it confirmed is "
    "there afterwards",
)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_redis(registry: Path, server: RedisServer, fault: str, happened: Happened) -> None:
    breaks, mends = FAULTS[fault]
    async with tallied(registry, server) as (broken, tally):
        try:
            breaks(broken)
            await tally.run()
        finally:
            await asyncio.to_thread(mends, broken)
    assert set(tally.sources) <= {"fresh", "stale"}
    assert tally.sources["stale"] or fault == "full"
    assert tally.refused or fault == "slow"
    happened(str(tally))


WAYS = {
    "20 to 60 ms": Way(latency_s=0.02, jitter_s=0.04),
    "300 ms": Way(latency_s=0.3),
    "one-byte pieces": Way(slice_bytes=1),
    "1 kB/s": Way(bytes_per_s=1000),
}


@promise(
    "the way to Redis is slow, uneven, narrow, or passes byte by byte",
    "Encode is fresh where that comes in time, else made of what is remembered and flagged; nothing confirmed is lost",
)
@pytest.mark.parametrize("way", WAYS)
async def test_a_bad_way_to_redis(registry: Path, server: RedisServer, way: str, happened: Happened) -> None:
    async with tallied(registry, server) as (broken, tally):
        broken.way.way = WAYS[way]
        await tally.run()
        broken.way.way = Way()
    # Longer than an answer waits for the store, or a write for its.
    late = way == "300 ms"
    assert bool(tally.sources["stale"]) >= late
    assert bool(tally.refused) >= late
    happened(str(tally))


@promise(
    "connections to Redis are reset, or ended by its side (half-close), ten times a second; or they are dead",
    "Encode is fresh, or flagged: made of what is remembered, or blind, since a deletion may have been missed. "
    "RecordEvents stores or refuses; nothing confirmed is lost",
)
@pytest.mark.parametrize("cut", [Proxy.reset, Proxy.half_close, Proxy.swallow])
async def test_cut_connections_to_redis(
    registry: Path, server: RedisServer, cut: Callable[[Proxy], object], happened: Happened
) -> None:
    async with tallied(registry, server) as (broken, tally):
        # So that some call is on its way at nearly any time.
        broken.way.way = Way(latency_s=0.01)
        cutting = asyncio.ensure_future(_go_on_cutting(broken.way, cut))
        await tally.run()
        cutting.cancel()
        await asyncio.gather(cutting, return_exceptions=True)
        broken.way.release()
    happened(str(tally))


async def _go_on_cutting(way: Proxy, cut: Callable[[Proxy], object]) -> None:
    while True:
        cut(way)
        await asyncio.sleep(0.1)


@promise(
    "Redis comes back empty (restarted without what it kept)",
    "people are unknown, and not answered from memory as if they were stored; what is recorded from then on counts",
)
async def test_redis_that_comes_back_empty(registry: Path, tmp_path: Path, happened: Happened) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with encoder_on_redis(registry, server.url) as rig:
            await remember(rig)
            server.signal(signal.SIGKILL)
            assert (await encode(rig, "ada")).source == STALE
            server.start()
            await eventually(lambda: _is_unknown(rig, "ada"))
            await rig.features.RecordEvents(recording("ada", Row(7, LIKED, 0, 3000)), timeout=DEADLINE_S)
            answer = await encode(rig, "ada")
            assert (answer.source, answer.degraded, seen(answer)) == (STORE, False, [7])
    happened("flagged as stale while it was away, USER_UNKNOWN afterwards, fresh with the first new event")


async def _is_unknown(rig: EncoderRig, user_id: str) -> bool:
    try:
        answer = await encode(rig, user_id)
    except grpc.aio.AioRpcError as failure:
        return isinstance(error_of(failure), UserUnknown)
    assert answer.degraded
    return False
