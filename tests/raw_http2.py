"""A connection that speaks HTTP/2 by hand, as no client of gRPC would: it sends what a test wants and reads frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from benchmarks import http2
from benchmarks.http2 import Frame, Target

ENHANCE_YOUR_CALM, REFUSED_STREAM = 11, 7


class Raw:
    """Is one connection; streams are numbered as the sender likes. Acknowledges nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        self._reader, self._writer = reader, writer
        self._address = f"127.0.0.1:{port}"

    def send(self, *parts: bytes) -> None:
        """Sends bytes, whatever they are."""
        self._writer.write(b"".join(parts))

    def open(self) -> None:
        """Begins as every client does."""
        self.send(http2.opening())

    def call(self, stream: int, method: str, request: bytes = b"", timeout: str = "20S", **headers: str) -> None:
        """Sends a whole call: `method` is a path, `timeout` as gRPC writes it."""
        self.send(*call_frames(self._address, stream, method, request, timeout, **headers))

    def ping(self) -> None:
        """Sends a ping."""
        self.send(http2.frame(http2.PING, 0, 0, bytes(8)))

    def reset(self, stream: int) -> None:
        """Cancels a call."""
        self.send(http2.frame(http2.RESET, 0, stream, http2.CANCEL.to_bytes(4)))

    async def frame(self) -> Frame:
        """Reads the next frame; raises IncompleteReadError where the server has closed the connection."""
        head = await self._reader.readexactly(9)
        size, stream = int.from_bytes(head[:3]), int.from_bytes(head[5:])
        return Frame(head[3], head[4], stream, await self._reader.readexactly(size))

    async def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        """Reads until such a frame comes."""
        while not wanted(frame := await self.frame()):
            pass
        return frame

    async def closed(self) -> None:
        """Reads until the server has closed the connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.frame()


def call_frames(
    address: str, stream: int, method: str, request: bytes, timeout: str = "20S", **headers: str
) -> tuple[bytes, bytes]:
    """Writes the two frames of a call."""
    block = http2.call_headers(Target(address, method, [], headers), timeout)
    return (
        http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block),
        http2.last_data(stream, http2.prefixed(request)),
    )


@contextlib.asynccontextmanager
async def raw(port: int, *, begin: bool = True) -> AsyncIterator[Raw]:
    """Connects, and begins as every client does, unless it is told not to."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        connection = Raw(reader, writer, port)
        if begin:
            connection.open()
        yield connection
    finally:
        # At once: what the other side does not read would be waited for.
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
