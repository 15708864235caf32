"""The open loop behind round robin reaches every replica, and tells how calls ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from benchmarks.balanced import measure
from marquee.v1 import user_encoder_pb2
from tests.rigs import DEADLINE_S


class _Encoder:
    """Notes in `calls` that it was called; has a way to answer for each person of `test_ends_are_counted`."""

    def __init__(self, number: int, calls: list[int]) -> None:
        self._number, self._calls = number, calls

    async def encode(self, request: user_encoder_pb2.EncodeRequest, context: Any) -> user_encoder_pb2.EncodeResponse:
        self._calls.append(self._number)
        if request.user_id == "nobody":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        if request.user_id == "slow":
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "over")
        if request.user_id == "never":
            await asyncio.Event().wait()
        return user_encoder_pb2.EncodeResponse(degraded=request.user_id == "unread")

    def add_to(self, server: grpc.aio.Server) -> None:
        method = grpc.unary_unary_rpc_method_handler(
            self.encode,
            user_encoder_pb2.EncodeRequest.FromString,
            user_encoder_pb2.EncodeResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler("marquee.v1.UserEncoderService", {"Encode": method})
        server.add_generic_rpc_handlers((handler,))


@contextlib.asynccontextmanager
async def replicas(count: int) -> AsyncIterator[tuple[list[int], list[str]]]:
    async with contextlib.AsyncExitStack() as stack:
        calls: list[int] = []
        addresses = []
        for encoder in [_Encoder(number, calls) for number in range(count)]:
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            encoder.add_to(server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, 0)
        yield calls, addresses


def request(user: str) -> bytes:
    return user_encoder_pb2.EncodeRequest(user_id=user).SerializeToString()


async def test_replicas_get_as_many_calls_each() -> None:
    async with replicas(3) as (calls, addresses):
        found = await measure(addresses, [request("ada")], [at / 1000 for at in range(300)], DEADLINE_S, clients=2)
    assert len(found["seconds"]) == 300
    assert found["ended"] == {}
    # Before those come the ones that warm up.
    assert Counter(calls[-300:]) == {0: 100, 1: 100, 2: 100}


async def test_ends_are_counted() -> None:
    users = ["ada", "nobody", "slow", "unread"]
    async with replicas(2) as (_, addresses):
        found = await measure(addresses, [request(user) for user in users], [0.0] * 40, DEADLINE_S, clients=1)
    assert len(found["seconds"]) == 10
    assert found["ended"] == {"RESOURCE_EXHAUSTED": 10, "DEADLINE_EXCEEDED": 10, "degraded": 10}


async def test_calls_are_given_up_at_the_deadline() -> None:
    async with replicas(1) as (_, addresses):
        found = await measure(addresses, [request("ada"), request("never")], [0.0] * 20, 0.2, clients=1)
    # Those of ada may be late, too.
    assert found["ended"]["DEADLINE_EXCEEDED"] >= 10
    assert len(found["seconds"]) + sum(found["ended"].values()) == 20


async def test_seconds_count_from_when_a_call_was_due() -> None:
    async with replicas(1) as (_, addresses):
        # Due long before it can begin.
        found = await measure(addresses, [request("ada")], [-5.0], DEADLINE_S, clients=1)
    assert found["seconds"][0] > 5
