"""A service that is gone without a word: its machine lost power, or what lies between forgot the connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest

from benchmarks import http2
from marquee.client.channels import OPTIONS
from marquee.v1 import user_encoder_pb2
from tests.encoder_rigs import stubs
from tests.rigs import DEADLINE_S

# The SDK's clock for pings runs so much faster here.
FASTER = 20
PINGS = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Serves whoever connects with a greeting, and then says nothing more; gives the port."""
    greeting = http2.frame(http2.SETTINGS, 0, 0, b"") + http2.frame(http2.SETTINGS, http2.ACK, 0, b"")
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as held:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.enter_context(listening.accept()[0]).sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE_S)


async def test_it_is_found_out_by_pings_and_the_call_does_not_wait_for_its_deadline() -> None:
    told = {name: int(value) // FASTER if name in PINGS else value for name, value in OPTIONS}
    # Without retries, which would meet the same again, and without the watch of health, which is not answered either:
    # until it is, no call is sent.
    told |= {"grpc.enable_retries": 0, "grpc.service_config": "{}"}
    with silent() as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", list(told.items())) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await stubs(channel).users.Encode(user_encoder_pb2.EncodeRequest(), timeout=DEADLINE_S)
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
