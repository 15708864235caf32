"""The limits of `server_options`, each met over a real socket by somebody who goes beyond it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from benchmarks import http2
from benchmarks.http2 import Frame
from services.common import server
from services.common.server_options import MAX_MESSAGE_BYTES, MAX_METADATA_BYTES, server_options
from services.common.settings import CommonSettings
from tests.chain_rigs import SERVICE, Method, Served, ended, serving
from tests.raw_http2 import ENHANCE_YOUR_CALM, REFUSED_STREAM, Raw, raw
from tests.rigs import DEADLINE_S, eventually

# Of the server's clock for pings, so that a test need not wait for minutes.
FASTER = 60
PINGS = (
    "grpc.keepalive_time_ms",
    "grpc.keepalive_timeout_ms",
    "grpc.http2.ping_timeout_ms",
    "grpc.http2.min_ping_interval_without_data_ms",
)
# A little longer than the service lets clients be silent between two pings.
PAUSE_S = 1.2 * 10 / FASTER
# Calls of which some would be refused at random, and some not, if two limits were apart.
ENOUGH = 8
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def count(request: bytes, context: object) -> bytes:
    """Answers how many bytes came."""
    return str(len(request)).encode()


async def zeros(request: bytes, context: object) -> bytes:
    """Answers as many bytes as it is asked for."""
    return bytes(int(request))


async def peer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """Answers who has called: a connection has a port of its own."""
    return context.peer().encode()


class Held:
    """Is a method that answers when it is told to; counts how many calls run."""

    def __init__(self) -> None:
        self.running = 0
        self.go = asyncio.Event()

    async def __call__(self, request: bytes, context: object) -> bytes:
        self.running += 1
        await self.go.wait()
        return b""


@contextlib.asynccontextmanager
async def unlimited(served: Served) -> Any:
    """Calls without limits of the client's own."""
    options = [(f"grpc.{name}", -1) for name in ("max_send_message_length", "max_receive_message_length")]
    options.append(("grpc.max_metadata_size", 1 << 20))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.life.port}", options) as channel:
        yield Served(served.life, channel)


@pytest.mark.parametrize(("name", "method"), [("Count", count), ("Zeros", zeros)])
async def test_a_message_has_up_to_32_mib_either_way(tmp_path: Path, name: str, method: Method) -> None:
    largest, larger = MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1
    fits, does_not = (bytes(largest), bytes(larger)) if name == "Count" else (b"%d" % largest, b"%d" % larger)
    async with serving(tmp_path, {name: method}) as served, unlimited(served) as client:
        assert isinstance(await ended(client.call(name, fits, timeout=DEADLINE_S)), bytes)
        refused = await ended(client.call(name, does_not, timeout=DEADLINE_S))
        assert isinstance(refused, grpc.aio.AioRpcError)
        assert (refused.code(), "larger than max" in (refused.details() or "")) == (EXHAUSTED, True)
        assert isinstance(await ended(client.call(name, fits, timeout=DEADLINE_S)), bytes)


async def test_headers_have_up_to_16_kib_and_what_is_beyond_is_always_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, {"Count": count}) as served, unlimited(served) as client:

        async def call(size: int) -> grpc.aio.AioRpcError | bytes:
            method: Any = client.channel.unary_unary(f"/{SERVICE}/Count")
            return await ended(method(b"", metadata=[("x-large", "x" * size)], timeout=DEADLINE_S))

        within = [await call(MAX_METADATA_BYTES - 1024) for _ in range(ENOUGH)]
        assert within == [b"0"] * ENOUGH
        for _ in range(ENOUGH):
            beyond = await call(MAX_METADATA_BYTES + 1)
            assert isinstance(beyond, grpc.aio.AioRpcError)
            assert (beyond.code(), "metadata" in (beyond.details() or "")) == (EXHAUSTED, True)


async def test_a_connection_has_so_many_calls_and_the_others_wait_in_the_client(tmp_path: Path) -> None:
    held = Held()
    async with serving(tmp_path, {"Held": held.__call__}, max_streams=3) as served:
        calls = [asyncio.ensure_future(served.call("Held", timeout=DEADLINE_S)) for _ in range(7)]
        await eventually(lambda: held.running == 3)
        # Another connection is served meanwhile: so the other four have had their time to come.
        async with unlimited(served) as client:
            other = asyncio.ensure_future(client.call("Held", timeout=DEADLINE_S))
            await eventually(lambda: held.running == 4)
            held.go.set()
            assert await asyncio.gather(other, *calls) == [b""] * 8


async def test_who_has_more_calls_than_a_connection_may_is_refused(tmp_path: Path) -> None:
    held = Held()
    async with serving(tmp_path, {"Held": held.__call__}, max_streams=3) as served, raw(served.life.port) as client:
        told = http2.read_settings((await client.until(lambda frame: frame.kind == http2.SETTINGS)).payload)
        assert told[http2.MAX_STREAMS] == 3
        client.send(http2.frame(http2.SETTINGS, http2.ACK, 0, b""))
        for number in range(4):
            client.call(2 * number + 1, f"/{SERVICE}/Held")
        refused = await client.until(lambda frame: frame.kind == http2.RESET)
        assert (refused.stream, int.from_bytes(refused.payload)) == (7, REFUSED_STREAM)
        held.go.set()
        assert [await _answered(client) for _ in range(3)] == ["OK"] * 3


async def _answered(client: Raw) -> str:
    trailers = await client.until(lambda frame: bool(frame.kind == http2.HEADERS and frame.flags & http2.END_STREAM))
    return "OK" if b"grpc-status\x010" in trailers.payload else repr(trailers.payload)


async def test_who_pings_without_end_is_sent_away(tmp_path: Path) -> None:
    async with serving(tmp_path, {"Count": count}) as served:
        async with raw(served.life.port) as client:
            for _ in range(4):
                client.ping()
            goaway = await client.until(lambda frame: frame.kind == http2.GOAWAY)
            assert int.from_bytes(goaway.payload[4:8]) == ENHANCE_YOUR_CALM
            assert goaway.payload.endswith(b"too_many_pings")
            await client.closed()
        assert await served.call("Count") == b"0"


async def test_who_pings_as_often_as_it_may_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "server_options", _faster)
    async with serving(tmp_path, {"Count": count}) as served, raw(served.life.port) as client:
        for _ in range(5):
            client.ping()
            await client.until(lambda frame: frame.kind == http2.PING and bool(frame.flags & http2.ACK))
            await asyncio.sleep(PAUSE_S)
        client.call(1, f"/{SERVICE}/Count")
        assert await _answered(client) == "OK"


async def test_connections_end_with_age_and_no_call_fails(tmp_path: Path) -> None:
    async with serving(tmp_path, {"Peer": peer}, connection_age_s=0.1) as served:
        peers: set[bytes] = set()

        async def seen(number: int) -> bool:
            peers.add(await served.call("Peer", timeout=DEADLINE_S))
            return len(peers) >= number

        await eventually(lambda: seen(4))


@pytest.mark.parametrize("answers", [True, False])
async def test_a_client_that_is_gone_without_a_word_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(server, "server_options", _faster)
    async with serving(tmp_path, {"Count": count}) as served, raw(served.life.port) as client:
        for _ in range(2 if answers else 1):
            ping = await client.until(_is_ping)
            if answers:
                client.send(http2.frame(http2.PING, http2.ACK, 0, ping.payload))
        if answers:
            client.call(1, f"/{SERVICE}/Count")
            assert await _answered(client) == "OK"
        async with asyncio.timeout(DEADLINE_S):
            await client.closed()


def _is_ping(frame: Frame) -> bool:
    return frame.kind == http2.PING and not frame.flags & http2.ACK


def _faster(settings: CommonSettings) -> list[tuple[str, int]]:
    told = dict(server_options(settings))
    for name in PINGS:
        told[name] //= FASTER
    return list(told.items())
