"""A service that is gone without a word: its machine lost power, or what lies between forgot the connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from benchmarks import http2
from marquee.client.channels import OPTIONS
from marquee.v1 import user_encoder_pb2
from tests.encoder_rigs import stubs
from tests.rigs import DEADLINE_S

# The SDK's clock for pings runs so much faster here. The core of a client does not ping more often than every 10 s.
FASTER = 20
PINGS = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """Serves whoever greets with a greeting, and then says nothing more; gives the port."""
    settings = http2.frame(http2.SETTINGS, 0, 0, b"") + http2.frame(http2.SETTINGS, http2.ACK, 0, b"")

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(settings)
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


async def test_it_is_found_out_by_pings_and_the_call_does_not_wait_for_its_deadline() -> None:
    told = {name: int(value) // FASTER if name in PINGS else value for name, value in OPTIONS}
    # Retried, it would meet the same again.
    told["grpc.enable_retries"] = 0
    async with silent() as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}", list(told.items())) as channel:
        users = stubs(channel).users
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await users.Encode(user_encoder_pb2.EncodeRequest(), timeout=DEADLINE_S)
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
