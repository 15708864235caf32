"""Processes that are killed, that hang, and that are restarted, while the SDK calls them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from marquee.client import AsyncRecommender
from tests.chaos.fleet import Fleet, running_fleet
from tests.chaos.load import (
    BLIND,
    DEADLINE_OF_CALLS_S,
    RIGHT,
    TOP,
    Load,
    check_confirmed,
    loading,
    record_people,
)
from tests.chaos.promises import Happened, promise
from tests.rigs import DEADLINE_S

SERVICES = ("user_encoder", "retriever")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@contextlib.asynccontextmanager
async def under_load(
    fleet: Fleet, deadline_s: float = DEADLINE_OF_CALLS_S, **counts: int
) -> AsyncIterator[tuple[AsyncRecommender, Load]]:
    """Loads so many replicas of a service, two where nothing is said; what was confirmed is there in the end."""
    encoders, retrievers = (fleet.addresses(service, counts.get(service, 2)) for service in SERVICES)
    async with AsyncRecommender(encoders, retrievers, deadline_s=deadline_s) as sdk:
        await record_people(sdk)
        async with loading(sdk, fleet.expected, likes=True) as load:
            yield sdk, load
        await check_confirmed(sdk, load)


@promise(
    "one of two replicas is killed (kill -9) under load",
    "every list is right: calls in flight are made again elsewhere. It takes part again once it is started",
)
@pytest.mark.parametrize("service", SERVICES)
async def test_one_of_two_is_killed(fleet: Fleet, service: str, happened: Happened) -> None:
    replica = fleet.replicas[service][0]
    async with under_load(fleet) as (_, load):
        await load.burst()
        replica.signal(signal.SIGKILL)
        await load.until(RIGHT)
        await asyncio.to_thread(replica.start)
        await load.until(RIGHT)
    assert set(load.count()) == {RIGHT}, load.others()
    happened(load.summary())


# What becomes of a call to a replica that hangs.
LATE = {"user_encoder": TOP, "retriever": "DeadlineExceeded"}


@promise(
    "one of two replicas hangs (SIGSTOP) under load",
    "its calls end in time: with the most watched, flagged degraded, or as DeadlineExceeded where it is a retriever. "
    "Within seconds it gets none; no list is wrong",
)
@pytest.mark.parametrize("service", SERVICES)
async def test_one_of_two_hangs(fleet: Fleet, service: str, happened: Happened) -> None:
    replica = fleet.replicas[service][0]
    async with under_load(fleet) as (_, load):
        replica.signal(signal.SIGSTOP)
        try:
            left_out_s = await load.until(RIGHT)
        finally:
            replica.signal(signal.SIGCONT)
        await load.until(RIGHT)
    assert set(load.count()) == {RIGHT, LATE[service]}, load.others()
    happened(f"{load.summary()}; left out after {left_out_s:.1f} s")


@promise("one of two replicas is restarted (SIGTERM) under load", "every list is right")
@pytest.mark.parametrize("service", SERVICES)
async def test_one_of_two_is_restarted(fleet: Fleet, service: str, happened: Happened) -> None:
    replica = fleet.replicas[service][0]
    async with under_load(fleet) as (_, load):
        await asyncio.to_thread(replica.stop)
        await asyncio.to_thread(replica.start)
        await load.until(RIGHT)
    assert set(load.count()) == {RIGHT}, load.others()
    happened(load.summary())


# What becomes of a call while nobody serves, and a method that is one call of the service.
AWAY = {"user_encoder": TOP, "retriever": "Unavailable"}
ONE_CALL = {"user_encoder": AsyncRecommender.encoder_state, "retriever": AsyncRecommender.retriever_state}


@promise(
    "the only replica of a service is restarted (SIGTERM) under load",
    "what was under way is answered, and the process ends with exit code 0. Until it serves again no call fails where "
    "it is the encoder: lists are of the most watched, flagged degraded. Without the retriever calls fail as "
    "Unavailable within their deadlines, which name it. All is right by itself once it serves again",
)
@pytest.mark.parametrize("service", SERVICES)
async def test_the_only_one_is_restarted(fleet: Fleet, service: str, happened: Happened) -> None:
    replica = fleet.replicas[service][0]
    async with under_load(fleet, **{service: 1}) as (sdk, load):
        under_way = [asyncio.ensure_future(ONE_CALL[service](sdk)) for _ in range(24)]
        # Any of them takes longer than that.
        await asyncio.sleep(0.002)
        await asyncio.to_thread(replica.stop)
        await asyncio.gather(*under_way)
        await load.until(AWAY[service])
        await asyncio.to_thread(replica.start)
        back_s = await load.until(RIGHT)
    assert set(load.count()) == {RIGHT, AWAY[service]}, load.others()
    assert all(service in one.about and replica.address in one.about for one in load.others())
    happened(f"{len(under_way)} under way answered; {load.summary()}; right {back_s:.1f} s after it served again")


@promise(
    "the only encoder is killed under load",
    "no call fails: lists are of the most watched, flagged degraded. Once it is started they are right by themselves",
)
async def test_the_only_encoder_is_killed(fleet: Fleet, happened: Happened) -> None:
    replica = fleet.replicas["user_encoder"][0]
    async with under_load(fleet, user_encoder=1) as (_, load):
        await load.burst()
        replica.signal(signal.SIGKILL)
        await load.until(TOP)
        await asyncio.to_thread(replica.start)
        back_s = await load.until(RIGHT)
    assert set(load.count()) == {RIGHT, TOP}, load.others()
    happened(f"{load.summary()}; right {back_s:.1f} s after it served again")


@promise(
    "the only retriever is killed under load",
    "calls fail as Unavailable within their deadlines, and succeed by themselves once it is started",
)
async def test_the_only_retriever_is_killed(fleet: Fleet, happened: Happened) -> None:
    replica = fleet.replicas["retriever"][0]
    async with under_load(fleet, retriever=1) as (_, load):
        await load.burst()
        replica.signal(signal.SIGKILL)
        await load.until("Unavailable")
        await asyncio.to_thread(replica.start)
        back_s = await load.until(RIGHT)
    assert set(load.count()) <= {RIGHT, "Unavailable", "DeadlineExceeded"}
    assert all("retriever" in one.about and replica.address in one.about for one in load.others())
    happened(f"{load.summary()}; right {back_s:.1f} s after it served again")


@promise(
    "the only replica of a service hangs under load",
    "without the encoder no call fails: lists are of the most watched, flagged degraded. Without the retriever calls "
    "end at their deadlines as DeadlineExceeded, which names it. All is right once it goes on",
)
@pytest.mark.parametrize("service", SERVICES)
async def test_the_only_one_hangs(fleet: Fleet, service: str, happened: Happened) -> None:
    replica = fleet.replicas[service][0]
    # What is left of it after a hung encoder must do for an answer of a machine that is busy with all of this.
    async with under_load(fleet, deadline_s=2 * DEADLINE_OF_CALLS_S, **{service: 1}) as (_, load):
        replica.signal(signal.SIGSTOP)
        try:
            await load.until(LATE[service])
        finally:
            replica.signal(signal.SIGCONT)
        back_s = await load.until(RIGHT)
    assert set(load.count()) == {RIGHT, LATE[service]}, load.others()
    assert all(f"{service} at {replica.address} did not answer in time" in one.about for one in load.others())
    happened(f"{load.summary()}; right {back_s:.1f} s after it went on")


@promise(
    "the Redis of two encoders is killed under load, and started again",
    "no call fails: lists are made of what each encoder remembers, or flagged. Likes are stored or refused: what was "
    "confirmed is there afterwards",
)
async def test_redis_is_killed(fleet: Fleet, happened: Happened) -> None:
    async with under_load(fleet) as (sdk, load):
        fleet.redis.signal(signal.SIGKILL)
        await _until_not_reachable(sdk)
        await load.until(RIGHT, BLIND)
        await asyncio.to_thread(fleet.redis.start)
        await load.until(RIGHT)
    assert set(load.count()) <= {RIGHT, BLIND}, load.others()
    happened(f"{load.summary()}; {len(load.confirmed)} likes confirmed and kept, {load.refused.total()} refused")


@promise(
    "the Redis of two encoders hangs (SIGSTOP) under load",
    "no call fails: lists are made of what each encoder remembers, or flagged. What was confirmed is there afterwards",
)
async def test_redis_hangs(fleet: Fleet, happened: Happened) -> None:
    async with under_load(fleet) as (sdk, load):
        fleet.redis.signal(signal.SIGSTOP)
        try:
            await _until_not_reachable(sdk)
            await load.until(RIGHT, BLIND)
        finally:
            fleet.redis.signal(signal.SIGCONT)
        await load.until(RIGHT)
    assert set(load.count()) <= {RIGHT, BLIND}, load.others()
    happened(f"{load.summary()}; {len(load.confirmed)} likes confirmed and kept, {load.refused.total()} refused")


async def _until_not_reachable(sdk: AsyncRecommender) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await sdk.encoder_state(deadline_s=DEADLINE_S)).store.reachable:
            await asyncio.sleep(0.02)
