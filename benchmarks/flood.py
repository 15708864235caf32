"""The flood: `python -m benchmarks.flood` keeps calls in flight to servers in turn, and prints JSON.

It speaks just enough HTTP/2 to be several times as fast as a server of grpc.aio: requests are bytes made beforehand,
and of an answer only the status in its trailers is read. So the server's core is the one that is full, for all alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import http2
from benchmarks.http2 import Frame, Target
from marquee.errors import MarqueeError

IN_FLIGHT = 32
PAIRS = 7
BLOCK_S = 1.5
# Of a block.
_WARM_UP = 2 / 3
# Nothing that is measured here takes this long.
_TIMEOUT_S = 20.0

# With a header table of size 0 the server can only write the trailer out.
_STATUS_OK = b"\x0bgrpc-status\x010"


class FloodFailed(MarqueeError):
    """Says what a server answered that was no answer."""

    reason = "FLOOD_FAILED"


class Connection:
    """Keeps calls in flight on one connection; a context manager. `answered` counts all that were."""

    def __init__(self, target: Target, in_flight: int = IN_FLIGHT) -> None:
        host, _, port = target.address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = http2.call_headers(target, "10S")
        bodies = [http2.prefixed(request) for request in target.requests]
        self._bodies = itertools.cycle(bodies)
        self._least_window = max(http2.FIRST_WINDOW // 4, *map(len, bodies))
        self._stream = 1
        self._left_over = b""
        self._window = http2.FIRST_WINDOW
        self._taken = http2.Taken()
        self._out = [http2.opening()]
        self._in_flight = self._waiting = in_flight
        self.answered = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run(self, seconds: float) -> float:
        """Keeps calls in flight for some seconds; returns how many were answered a second."""
        before, started = self.answered, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            self._turn()
        return (self.answered - before) / passed

    def finish(self) -> None:
        """Waits for what is in flight, so that the other server has the core to itself."""
        while self._waiting < self._in_flight:
            self._receive()

    def _turn(self) -> None:
        while self._waiting and self._call():
            self._waiting -= 1
        if self._out:
            self._socket.sendall(b"".join(self._out))
            self._out.clear()
        self._receive()

    def _call(self) -> bool:
        """Writes the next request, where the server takes so much now."""
        if self._window < self._least_window:
            return False
        body = next(self._bodies)
        self._window -= len(body)
        self._out += (
            http2.frame(http2.HEADERS, http2.END_HEADERS, self._stream, self._headers),
            http2.last_data(self._stream, body),
        )
        self._stream += 2
        return True

    def _receive(self) -> None:
        """Reads what has come, and counts the calls that were answered by it."""
        received = self._socket.recv(1 << 18)
        if not received:
            raise FloodFailed("the server closed the connection; see its log")
        frames, self._left_over = http2.split(self._left_over + received)
        for each in frames:
            if each.kind == http2.HEADERS and each.flags & http2.END_STREAM:
                if _STATUS_OK not in each.payload:
                    raise FloodFailed(f"a call was not answered with OK; its trailers are {each.payload!r}")
                self.answered += 1
                self._waiting += 1
            elif each.kind == http2.DATA:
                self._out += self._taken.give_back(each)
            elif each.kind != http2.HEADERS:
                self._serve(each)

    def _serve(self, frame: Frame) -> None:
        if frame.kind == http2.WINDOW and frame.stream == 0:
            self._window += int.from_bytes(frame.payload)
        elif frame.kind in (http2.SETTINGS, http2.PING) and not frame.flags & http2.ACK:
            self._out.append(http2.frame(frame.kind, http2.ACK, 0, frame.payload if frame.kind == http2.PING else b""))
        elif frame.kind in (http2.RESET, http2.GOAWAY):
            raise FloodFailed(f"the server ended a call or the connection: {frame.payload!r}")


def measure(targets: Sequence[Target], pairs: int = PAIRS, block_s: float = BLOCK_S) -> list[list[float]]:
    """Measures calls a second of all in turn: A B A B …"""
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(target)) for target in targets]
        for each in connections:
            _block(each, _WARM_UP * block_s)
        return [[_block(each, block_s) for each in connections] for _ in range(pairs)]


def _block(connection: Connection, seconds: float) -> float:
    rate = connection.run(seconds)
    connection.finish()
    return rate


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood", description=__doc__)
    parser.add_argument("--addresses", nargs="+", required=True, metavar="ADDRESS", help="servers to call in turn")
    parser.add_argument("--method", required=True, help="path of the method, the same for all")
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests, hex")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="blocks for each server (%(default)d)")
    parser.add_argument("--block-s", type=float, default=BLOCK_S, metavar="SECONDS", help="of a block (%(default)g)")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="header of every call")
    options = parser.parse_args(arguments)
    headers = dict(header.split("=", 1) for header in options.header)
    requests = [bytes.fromhex(each) for each in json.loads(options.requests.read_text())]
    targets = [Target(address, options.method, requests, headers) for address in options.addresses]
    try:
        print(json.dumps(measure(targets, options.pairs, options.block_s)))
    except (MarqueeError, OSError) as error:
        print(f"flood: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
