"""A TCP proxy whose way can be made slow, narrow, choppy or dead, and whose connections can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

_READ_BYTES = 65_536


@dataclass(slots=True)
class Way:
    """Says how bytes travel, either direction alike; the default is as fast as can be.

    `latency_s` and up to `jitter_s` more pass before each piece; order is kept. `slice_bytes` is how many bytes at most
    travel in one piece, `bytes_per_s` how many in a second; 0: any number.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int = 0
    bytes_per_s: float = 0.0


class Proxy:
    """Carries connections to a port; `way` may be replaced at any time, and holds for what comes from then on."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._links: set[_Link] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.way = Way()
        self.port = 0

    @property
    def address(self) -> str:
        """Is where it listens."""
        return f"127.0.0.1:{self.port}"

    def swallow(self) -> None:
        """Becomes a black hole: connections stay, and nothing comes out of them, as where packets are dropped."""
        self._open.clear()

    def release(self) -> None:
        """Lets pass what was held back, and all that follows."""
        self._open.set()

    def reset(self) -> int:
        """Cuts all connections, both ends hearing of a reset; says how many."""
        links = list(self._links)
        for link in links:
            link.abort()
        return len(links)

    def half_close(self) -> int:
        """Ends what servers say on each connection, as if they had, while what callers say still gets through."""
        links = list(self._links)
        for link in links:
            link.to_caller.end()
        return len(links)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection to its end."""
        try:
            server = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        there, back = _Pump(self, reader, server[1]), _Pump(self, server[0], writer)
        self._links.add(link := _Link(there, back))
        try:
            await asyncio.gather(there.run(), back.run())
        finally:
            self._links.discard(link)
            link.abort()

    async def delay(self, size: int) -> None:
        """Waits as long as a piece of so many bytes takes."""
        delay_s = self.way.latency_s + random.random() * self.way.jitter_s
        if self.way.bytes_per_s:
            delay_s += size / self.way.bytes_per_s
        if delay_s:
            await asyncio.sleep(delay_s)
        await self._open.wait()


class _Pump:
    """Carries one direction of a connection."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy, self._reader, self.writer = proxy, reader, writer
        self._ended = False

    async def run(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(_READ_BYTES):
                await self._pass_on(data)
            await self._proxy.delay(0)
            self.end()

    async def _pass_on(self, data: bytes) -> None:
        size = self._proxy.way.slice_bytes or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            await self._proxy.delay(len(piece))
            if self._ended or self.writer.is_closing():
                return
            self.writer.write(piece)
            await self.writer.drain()

    def end(self) -> None:
        """Says that nothing more comes; what comes all the same is dropped."""
        if not self._ended and not self.writer.is_closing():
            self.writer.write_eof()
        self._ended = True


class _Link(NamedTuple):
    """Is one connection."""

    to_server: _Pump
    to_caller: _Pump

    def abort(self) -> None:
        for pump in self:
            pump.writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Runs a proxy to a port of this machine, on a free port of its own."""
    proxy = Proxy(port)
    running: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(task := asyncio.ensure_future(proxy.carry(reader, writer)))
        task.add_done_callback(running.discard)

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as listening:
        proxy.port = listening.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            listening.close()
            for task in list(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
