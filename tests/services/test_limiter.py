"""Overload: a class has its places and its queue, what is too much is refused, and health never hears of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from marquee.client.failures import Peer, translate
from marquee.client.rpcs import Service
from marquee.errors import Overloaded
from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, user_encoder_pb2
from services.common.limiter import BATCH, INTERACTIVE, Lane, class_of
from services.common.server_options import server_options
from services.common.settings import CommonSettings
from tests.chain_rigs import SERVICE, Served, ended, serving
from tests.rigs import error_of, eventually


class Held:
    """Is a method that answers once it is told to; notes which requests it began with."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.go = asyncio.Event()

    async def __call__(self, request: bytes, context: object) -> bytes:
        self.begun.append(request)
        await self.go.wait()
        return request


async def at_once(request: bytes, context: object) -> bytes:
    return b"here"


def test_what_is_a_batch() -> None:
    files = (user_encoder_pb2, live_features_pb2, retriever_pb2, catalog_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    names = [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]
    batches = {name.rpartition("/")[2] for name in names if class_of(name) == BATCH}
    assert batches == {"BatchEncode", "BatchSearch", "BatchGetMovies", "ExportEvents"}
    assert len(names) > 15


async def reaches(number: int, count: Callable[[], int]) -> None:
    await eventually(lambda: count() == number)


def _lane(served: Served, name: str) -> Lane:
    return served.life._limiter.lanes[name]


def _known(lane: Lane) -> int:
    return lane.running + lane.waiting + lane.refused


async def test_a_full_class_waits_then_refuses_and_says_when_to_come_back(tmp_path: Path) -> None:
    held = Held()
    methods = {"BatchHeld": held.__call__, "Quick": at_once}
    async with serving(tmp_path, methods, batch_calls=1, waiting_calls=2) as served:
        calls = [asyncio.ensure_future(served.call("BatchHeld", bytes([0])))]
        await reaches(1, lambda: len(held.begun))
        for number in (1, 2):
            calls.append(asyncio.ensure_future(served.call("BatchHeld", bytes([number]))))
            await reaches(number, lambda: _lane(served, BATCH).waiting)
        refused = await ended(served.call("BatchHeld"))
        assert isinstance(refused, grpc.aio.AioRpcError)
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        error = error_of(refused)
        assert isinstance(error, Overloaded)
        assert (error.retry_after_s, error.metadata) == (1.0, {"class": "batch"})
        assert dict(refused.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "1000"
        assert "1 batch calls run here and 2 wait; send the call again in 1 s" in error.message

        assert await served.call("Quick") == b"here"

        assert held.begun == [b"\0"]
        held.go.set()
        assert await asyncio.gather(*calls) == [b"\0", b"\1", b"\2"]
        assert held.begun == [b"\0", b"\1", b"\2"]
        lane = _lane(served, BATCH)
        assert (lane.running, lane.waiting, lane.refused) == (0, 0, 1)


async def test_what_expires_in_the_queue_never_runs_and_leaves_its_place(tmp_path: Path) -> None:
    held = Held()
    async with serving(tmp_path, {"BatchHeld": held.__call__}, batch_calls=1, waiting_calls=2) as served:
        first = asyncio.ensure_future(served.call("BatchHeld", b"first"))
        await reaches(1, lambda: len(held.begun))
        late = await asyncio.gather(*(ended(served.call("BatchHeld", b"late", timeout=0.05)) for _ in range(2)))
        assert {isinstance(one, bytes) or one.code() for one in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        await eventually(lambda: _lane(served, BATCH).waiting == 0)
        last = asyncio.ensure_future(served.call("BatchHeld", b"last"))
        held.go.set()
        assert list(await asyncio.gather(first, last)) == [b"first", b"last"]
        assert held.begun == [b"first", b"last"]
        assert _lane(served, BATCH).given_up == 2


async def test_a_place_given_to_a_caller_that_has_just_gone_is_given_on() -> None:
    lane = Lane(INTERACTIVE, 1, 2)
    assert lane.enter()
    gone, next_one = (asyncio.ensure_future(lane.wait()) for _ in range(2))
    await eventually(lambda: lane.waiting == 2)
    lane.leave()
    gone.cancel()
    await next_one
    assert gone.cancelled()
    assert (lane.running, lane.waiting) == (1, 0)


async def test_a_place_is_not_given_to_who_has_gone_before() -> None:
    lane = Lane(INTERACTIVE, 1, 2)
    assert lane.enter()
    gone, next_one = (asyncio.ensure_future(lane.wait()) for _ in range(2))
    await eventually(lambda: lane.waiting == 2)
    gone.cancel()
    lane.leave()
    await next_one
    assert (lane.running, lane.waiting) == (1, 0)
    lane.leave()
    assert lane.running == 0


async def test_a_call_that_fails_gives_its_place_back(tmp_path: Path) -> None:
    async def fail(request: bytes, context: object) -> bytes:
        raise ZeroDivisionError

    async with serving(tmp_path, {"BatchFail": fail}, batch_calls=1) as served:
        for _ in range(3):
            failed = await ended(served.call("BatchFail"))
            assert isinstance(failed, grpc.aio.AioRpcError)
            assert failed.code() == grpc.StatusCode.INTERNAL
        assert _lane(served, BATCH).running == 0


class Busy:
    """Is a method whose first call holds the event loop until it is told to go on: what comes meanwhile has to wait."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    async def __call__(self, request: bytes, context: object) -> bytes:
        self.entered.set()
        assert self.go.wait(30)
        return b""


def flood(port: int, busy: Busy, connections: int, calls: int, away: int) -> list[Any]:
    """Sends calls while the event loop is held, from a thread, until so many are turned away; returns all, ended."""
    # Otherwise channels of one target share a connection.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(connections)]
    methods = [cast("Any", channel.unary_unary(f"/{SERVICE}/Busy")) for channel in channels]
    try:
        first = methods[0].future(b"")
        assert busy.entered.wait(30)
        rest = [method.future(b"") for method in methods for _ in range(calls)]
        # What is turned away is told at once: for that, nobody needs the event loop.
        deadline = time.monotonic() + 10
        while sum(one.done() for one in rest) < away and time.monotonic() < deadline:
            time.sleep(0.01)
        busy.go.set()
        for one in rest:
            one.exception()
        return [first, *rest]
    finally:
        for channel in channels:
            channel.close()


async def test_what_cannot_begin_soon_is_turned_away_and_counted(tmp_path: Path) -> None:
    busy = Busy()
    settings = {"waiting_calls": 20, "max_streams": 10, "metrics_port": 0}
    async with serving(tmp_path, {"Busy": busy.__call__}, **settings) as served:
        calls = await asyncio.to_thread(flood, served.life.port, busy, 8, 10, 81 - 20 - 5)
        ends = Counter(call.code() for call in calls)
        away = ends[grpc.StatusCode.CANCELLED]
        assert ends == {grpc.StatusCode.OK: 81 - away, grpc.StatusCode.CANCELLED: away}
        # Twenty may wait, and one or two are further in.
        assert away >= 81 - 20 - 5
        assert (await served.metrics())["marquee_test_calls_turned_away_total"] == away
        failed = next(call for call in calls if call.code() is grpc.StatusCode.CANCELLED)
        assert isinstance(translate(failed, Peer(Service.RETRIEVER, "here", 1.0, encrypted=False)), Overloaded)


async def test_one_connection_alone_loses_nothing(tmp_path: Path) -> None:
    busy = Busy()
    async with serving(tmp_path, {"Busy": busy.__call__}, waiting_calls=20, max_streams=10) as served:
        calls = await asyncio.to_thread(flood, served.life.port, busy, 1, 80, 0)
        assert Counter(call.code() for call in calls) == {grpc.StatusCode.OK: 81}


async def test_health_is_answered_whatever_is_full(tmp_path: Path) -> None:
    held = Held()
    methods = {"Held": held.__call__, "BatchHeld": held.__call__}
    async with serving(tmp_path, methods, batch_calls=1, interactive_calls=1, waiting_calls=2) as served:
        calls = []
        for name in (INTERACTIVE, BATCH):
            lane = _lane(served, name)
            for number in range(1, 5):
                calls.append(asyncio.ensure_future(ended(served.call("Held" if name == INTERACTIVE else "BatchHeld"))))
                # One by one: of calls that come together, more than two cannot wait to begin.
                await reaches(number, partial(_known, lane))
            assert (lane.running, lane.waiting, lane.refused) == (1, 2, 1)
        health = health_pb2_grpc.HealthStub(served.channel)
        for name in ("", "liveness", "readiness", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        held.go.set()
        await asyncio.gather(*calls)


def test_a_connection_alone_is_never_turned_away_by_default() -> None:
    options = dict(server_options(CommonSettings()))
    assert options["grpc.max_concurrent_streams"] <= options["grpc.server.max_pending_requests"]
