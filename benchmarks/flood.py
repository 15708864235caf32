"""The flood: `python -m benchmarks.flood` keeps calls in flight to servers in turn, and prints JSON.

It speaks just enough HTTP/2 to be several times as fast as a server of grpc.aio: requests are bytes made beforehand,
and of an answer only the status in its trailers is read. So the server's core is the one that is full, for all alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from marquee.errors import MarqueeError

IN_FLIGHT = 32
PAIRS = 7
BLOCK_S = 1.5
_WARM_UP_S = 1.0
# Nothing that is measured here takes this long.
_TIMEOUT_S = 20.0

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TABLE_SIZE, _INITIAL_WINDOW = 1, 4
_LARGEST_WINDOW, _FIRST_WINDOW = 2**31 - 1, 65_535
# With a header table of size 0 the server can only write the trailer out.
_STATUS_OK = b"\x0bgrpc-status\x010"


class FloodFailed(MarqueeError):
    """Says what a server answered that was no answer."""

    reason = "FLOOD_FAILED"


class Target(NamedTuple):
    """Is where calls go: an address, a method's path and the requests' bytes, sent in turn."""

    address: str
    method: str
    requests: Sequence[bytes]


class Connection:
    """Keeps calls in flight on one connection; a context manager."""

    def __init__(self, target: Target) -> None:
        host, _, port = target.address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = _headers(target)
        self._bodies = itertools.cycle([_prefixed(request) for request in target.requests])
        self._stream = 1
        self._left_over = b""
        self._window = _FIRST_WINDOW
        settings = struct.pack(">HIHI", _TABLE_SIZE, 0, _INITIAL_WINDOW, _LARGEST_WINDOW)
        grow = struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW)
        self._out = [_PREFACE, _frame(_SETTINGS, 0, 0, settings), _frame(_WINDOW, 0, 0, grow)]
        self._waiting = IN_FLIGHT

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run(self, seconds: float) -> float:
        """Keeps IN_FLIGHT calls in flight for some seconds; returns how many were answered a second."""
        answered, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            answered += self._turn()
        return answered / passed

    def finish(self) -> None:
        """Waits for what is in flight, so that the other server has the core to itself."""
        left = IN_FLIGHT - self._waiting
        while left:
            left -= self._receive()
        self._waiting = IN_FLIGHT

    def _turn(self) -> int:
        while self._waiting and self._call():
            self._waiting -= 1
        if self._out:
            self._socket.sendall(b"".join(self._out))
            self._out.clear()
        answered = self._receive()
        self._waiting += answered
        return answered

    def _call(self) -> bool:
        """Writes the next request, where the server takes so much now."""
        if self._window < _FIRST_WINDOW // 4:
            return False
        body = next(self._bodies)
        self._window -= len(body)
        self._out += (
            _frame(_HEADERS, _END_HEADERS, self._stream, self._headers),
            _frame(_DATA, _END_STREAM, self._stream, body),
        )
        self._stream += 2
        return True

    def _receive(self) -> int:
        """Reads what has come; returns how many calls were answered by it."""
        received = self._socket.recv(1 << 18)
        if not received:
            raise FloodFailed("the server closed the connection; see its log")
        answered = 0
        for kind, flags, payload in self._frames(self._left_over + received):
            if kind == _HEADERS and flags & _END_STREAM:
                if _STATUS_OK not in payload:
                    raise FloodFailed(f"a call was not answered with OK; its trailers are {payload!r}")
                answered += 1
            elif kind not in (_DATA, _HEADERS):
                self._serve(kind, flags, payload)
        return answered

    def _frames(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        at = 0
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3])
            if end > len(data):
                break
            on_connection = data[at + 5 : at + 9] == b"\0\0\0\0"
            if data[at + 3] != _WINDOW or on_connection:
                yield data[at + 3], data[at + 4], data[at + 9 : end]
            at = end
        self._left_over = data[at:]

    def _serve(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _WINDOW:
            self._window += int.from_bytes(payload)
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._out.append(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind in (_RESET, _GOAWAY):
            raise FloodFailed(f"the server ended a call or the connection: {payload!r}")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def _prefixed(request: bytes) -> bytes:
    return struct.pack(">BI", 0, len(request)) + request


def _headers(target: Target) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": target.method,
        ":authority": target.address,
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": "10S",
    }
    # Literals without indexing, each length in one byte.
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


def measure(targets: Sequence[Target]) -> list[list[float]]:
    """Measures calls a second of all in turn: A B A B …"""
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(target)) for target in targets]
        for each in connections:
            each.run(_WARM_UP_S)
            each.finish()
        return [[_block(each) for each in connections] for _ in range(PAIRS)]


def _block(connection: Connection) -> float:
    rate = connection.run(BLOCK_S)
    connection.finish()
    return rate


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood", description=__doc__)
    parser.add_argument("--addresses", nargs="+", required=True, metavar="ADDRESS", help="servers to call in turn")
    parser.add_argument("--method", required=True, help="path of the method, the same for all")
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests, hex")
    options = parser.parse_args(arguments)
    requests = [bytes.fromhex(each) for each in json.loads(options.requests.read_text())]
    try:
        print(json.dumps(measure([Target(address, options.method, requests) for address in options.addresses])))
    except (MarqueeError, OSError) as error:
        print(f"flood: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
