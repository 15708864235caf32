"""Connections that calls go over: HTTP/1.1 for JSON, HTTP/2 for gRPC. Both do as little as can be done.

A call is a number and the bytes of its request. What comes back are ends: of an answer nothing is read but its status
and where it stops, so that the load costs a fraction of what any server does; the bodies are looked at afterwards.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from benchmarks import http2
from benchmarks.http2 import Frame, Target
from marquee.errors import MarqueeError

OK = "OK"
# Nothing that is measured here takes this long.
_TIMEOUT_S = 20.0
_MOST_BYTES = 1 << 18


class LoadFailed(MarqueeError):
    """Says why a load cannot go on."""

    reason = "LOAD_FAILED"


class End(NamedTuple):
    """Is how a call ended: OK and its body, or what was wrong."""

    number: int
    status: str
    body: bytes


class Wire(Protocol):
    """Is a connection."""

    def fileno(self) -> int:
        """Says what to wait for."""

    def free(self) -> bool:
        """Says whether another call can begin."""

    def call(self, number: int, body: bytes) -> None:
        """Begins a call; it goes out with `flush`."""

    def flush(self) -> None:
        """Sends what has begun."""

    def receive(self) -> Iterator[End]:
        """Reads what has come, which must be something, and yields the calls that it ended."""

    def close(self) -> None:
        """Closes the connection."""


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _received(connection: socket.socket) -> bytes:
    received = connection.recv(_MOST_BYTES)
    if not received:
        raise LoadFailed("the server closed a connection; see what it wrote")
    return received


class Rpc:
    """Is a connection of gRPC that has up to `most` calls at a time."""

    def __init__(self, target: Target, most: int) -> None:
        self._socket = _connect(target.address)
        self._headers = http2.call_headers(target, f"{_TIMEOUT_S:.0f}S")
        self._most = most
        self._stream = 1
        self._window = http2.FIRST_WINDOW
        self._taken = http2.Taken()
        self._out = [http2.opening()]
        self._left_over = b""
        # stream → the call's number, and what has come of its body.
        self._under_way: dict[int, tuple[int, list[bytes]]] = {}

    def fileno(self) -> int:
        return self._socket.fileno()

    def free(self) -> bool:
        return len(self._under_way) < self._most and self._window > http2.FIRST_WINDOW // 4

    def call(self, number: int, body: bytes) -> None:
        framed = http2.prefixed(body)
        self._window -= len(framed)
        self._out.append(http2.frame(http2.HEADERS, http2.END_HEADERS, self._stream, self._headers))
        self._out.append(http2.last_data(self._stream, framed))
        self._under_way[self._stream] = (number, [])
        self._stream += 2

    def flush(self) -> None:
        if self._out:
            self._socket.sendall(b"".join(self._out))
            self._out.clear()

    def receive(self) -> Iterator[End]:
        frames, self._left_over = http2.split(self._left_over + _received(self._socket))
        for each in frames:
            if each.stream in self._under_way:
                yield from self._of_a_call(each)
            else:
                self._of_the_connection(each)

    def _of_a_call(self, frame: Frame) -> Iterator[End]:
        number, parts = self._under_way[frame.stream]
        if frame.kind == http2.DATA:
            parts.append(frame.payload)
            self._out += self._taken.give_back(frame)
        if frame.kind == http2.RESET or frame.flags & http2.END_STREAM:
            del self._under_way[frame.stream]
            # Without trailers there is no status, whatever came before.
            status = http2.read_status(frame.payload) if frame.kind == http2.HEADERS else "no status"
            # A message begins with whether it is compressed, in one byte, and its length in four.
            yield End(number, status, b"".join(parts)[5:])

    def _of_the_connection(self, frame: Frame) -> None:
        if frame.kind == http2.WINDOW:
            self._window += int.from_bytes(frame.payload) if frame.stream == 0 else 0
        elif frame.kind in (http2.SETTINGS, http2.PING) and not frame.flags & http2.ACK:
            self._out.append(http2.frame(frame.kind, http2.ACK, 0, frame.payload if frame.kind == http2.PING else b""))
        elif frame.kind == http2.GOAWAY:
            raise LoadFailed(f"the server ended the connection: {frame.payload!r}")

    def close(self) -> None:
        self._socket.close()


_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Http:
    """Is a connection of HTTP/1.1, kept alive: one call at a time."""

    def __init__(self, target: Target) -> None:
        self._socket = _connect(target.address)
        self._head = (
            f"POST {target.method} HTTP/1.1\r\nHost: {target.address}\r\nContent-Type: application/json\r\n"
            "Content-Length: "
        ).encode()
        self._out = b""
        self._number: int | None = None
        self._come = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def free(self) -> bool:
        return self._number is None

    def call(self, number: int, body: bytes) -> None:
        self._number = number
        self._out = b"%s%d\r\n\r\n%s" % (self._head, len(body), body)

    def flush(self) -> None:
        if self._out:
            self._socket.sendall(self._out)
            self._out = b""

    def receive(self) -> Iterator[End]:
        self._come += _received(self._socket)
        head, gap, body = self._come.partition(b"\r\n\r\n")
        if not gap:
            return
        length = _LENGTH.search(head)
        if length is None:
            raise LoadFailed(f"an answer does not say how long it is: {head[:200]!r}")
        if len(body) >= int(length[1]) and self._number is not None:
            code, number = head.split(b" ", 2)[1].decode(), self._number
            self._number, self._come = None, b""
            yield End(number, OK if code == "200" else f"status {code}", body)

    def close(self) -> None:
        self._socket.close()
