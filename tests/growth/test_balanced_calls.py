"""The open loop behind round robin reaches every replica, and counts what came back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from benchmarks.balanced import measure
from marquee.v1 import user_encoder_pb2


class _Encoder:
    """Counts calls; refuses those of `nobody`, and never answers those of `late`."""

    def __init__(self) -> None:
        self.calls = 0

    async def encode(self, request: user_encoder_pb2.EncodeRequest, context: Any) -> user_encoder_pb2.EncodeResponse:
        self.calls += 1
        if request.user_id == "nobody":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        if request.user_id == "late":
            await asyncio.Event().wait()
        return user_encoder_pb2.EncodeResponse()

    def add_to(self, server: grpc.aio.Server) -> None:
        method = grpc.unary_unary_rpc_method_handler(
            self.encode,
            user_encoder_pb2.EncodeRequest.FromString,
            user_encoder_pb2.EncodeResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler("marquee.v1.UserEncoderService", {"Encode": method})
        server.add_generic_rpc_handlers((handler,))


@contextlib.asynccontextmanager
async def replicas(count: int) -> AsyncIterator[tuple[list[_Encoder], list[str]]]:
    async with contextlib.AsyncExitStack() as stack:
        encoders, addresses = [_Encoder() for _ in range(count)], []
        for encoder in encoders:
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            encoder.add_to(server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, 0)
        yield encoders, addresses


def request(user: str) -> bytes:
    return user_encoder_pb2.EncodeRequest(user_id=user).SerializeToString()


async def test_replicas_get_as_many_calls_each() -> None:
    async with replicas(3) as (encoders, addresses):
        found = await measure(addresses, [request("ada")], [at / 1000 for at in range(300)], 5.0, clients=2)
    assert len(found["seconds"]) == 300
    assert found["ended"] == {}
    counts = [encoder.calls for encoder in encoders]
    # With those that open the connections, which may all go where one is open first.
    assert sum(counts) == 300 + 32
    assert min(counts) >= 98


async def test_ends_are_counted_by_their_status() -> None:
    users = ["ada", "nobody", "late", "ada"]
    async with replicas(2) as (_, addresses):
        found = await measure(addresses, [request(user) for user in users], [0.0] * 40, 0.5, clients=1)
    assert len(found["seconds"]) == 20
    assert found["ended"] == {"RESOURCE_EXHAUSTED": 10, "DEADLINE_EXCEEDED": 10}
    assert max(found["seconds"]) == pytest.approx(0.25, abs=0.25)
