"""A call whose deadline has passed is refused at once: written to the socket, as no client of gRPC sends it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from marquee.features import LIKED
from marquee.v1 import user_encoder_pb2
from tests.bundles import make_bundle
from tests.encoder_rigs import Row, columns, encoder
from tests.rigs import publish

EVENTS = columns(Row(1, LIKED, 0, 1000))
CALLS = {
    "Encode": user_encoder_pb2.EncodeRequest(events=EVENTS),
    "BatchEncode": user_encoder_pb2.BatchEncodeRequest(items=[user_encoder_pb2.BatchEncodeItem(events=EVENTS)]),
    "Explain": user_encoder_pb2.ExplainRequest(events=EVENTS, movie_ids=[4]),
}

# HTTP/2 frames and flags (RFC 9113).
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deadlines")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture
async def port(registry: Path, tmp_path: Path) -> AsyncIterator[int]:
    async with encoder(registry, tmp_path / "features.sqlite") as rig:
        yield rig.port


async def status_of(port: int, method: str, message: bytes, timeout: str) -> int:
    """Calls a method with a grpc-timeout of one's own; returns the grpc-status, which is a single digit here."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/marquee.v1.UserEncoderService/{method}",
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": timeout,
    }
    block = b"".join(literal(name.encode()) + literal(text.encode())[1:] for name, text in headers.items())
    body = struct.pack(">BI", 0, len(message)) + message
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))
    writer.write(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, body))
    mark = literal(b"grpc-status")[1:]
    try:
        await reader.readuntil(mark)
        return int((await reader.readexactly(2))[1:])
    except asyncio.IncompleteReadError as error:
        raise AssertionError(f"no status came: {error.partial!r}") from None
    finally:
        writer.close()


def literal(text: bytes) -> bytes:
    """Writes a header's name: a literal that is not indexed, its length and its bytes (RFC 7541)."""
    return bytes([0, len(text)]) + text


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@pytest.mark.parametrize("timeout", ["0n", "0m"])
@pytest.mark.parametrize("method", list(CALLS))
async def test_a_call_that_comes_too_late_is_refused(port: int, method: str, timeout: str) -> None:
    status = await status_of(port, method, CALLS[method].SerializeToString(), timeout)
    assert status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_a_call_that_comes_in_time_is_answered(port: int) -> None:
    assert await status_of(port, "Encode", CALLS["Encode"].SerializeToString(), "20S") == 0
