"""The open loop: `python -m benchmarks.openloop` sends calls at a fixed rate, answered or not, and prints JSON.

People do not wait for a server to be quick before they come: so calls begin here when they are due. It speaks the
flood's HTTP/2, because one core of grpc's client cannot send three times what one core of its server answers. As a
client of gRPC does, it resets a call that was not answered within its deadline, and keeps back what is more than a
connection may have at a time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import select
import socket
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import http2
from benchmarks.http2 import Frame, Target
from marquee.errors import MarqueeError

CONNECTIONS = 8


class Connection:
    """Has calls under way on one connection; `ended` counts how they ended."""

    def __init__(self, target: Target, deadline_s: float, ended: Counter[str]) -> None:
        host, _, port = target.address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._headers = http2.call_headers(target, f"{round(deadline_s * 1000)}m")
        self._bodies = itertools.cycle([http2.prefixed(request) for request in target.requests])
        self._deadline_s = deadline_s
        self._ended = ended
        self._stream = 1
        self._allowed = 100
        self._window = http2.FIRST_WINDOW
        self._kept_back: deque[float] = deque()
        # stream → when it was due; in the order of their deadlines.
        self._under_way: OrderedDict[int, float] = OrderedDict()
        self._taken = http2.Taken()
        self._out = bytearray(http2.opening())
        self._left_over = b""

    def call(self, due: float) -> None:
        """Begins a call that was due then, or keeps it back."""
        self._kept_back.append(due)
        self._begin()

    def turn(self, now: float) -> None:
        """Reads what has come, gives up what is late, and writes what there is to write."""
        self._receive(now)
        self._expire(now)
        self._begin()
        self._send()

    def _begin(self) -> None:
        while self._kept_back and len(self._under_way) < self._allowed and self._window > http2.FIRST_WINDOW // 4:
            self._under_way[self._stream] = self._kept_back.popleft()
            body = next(self._bodies)
            self._window -= len(body)
            self._out += http2.frame(http2.HEADERS, http2.END_HEADERS, self._stream, self._headers)
            self._out += http2.frame(http2.DATA, http2.END_STREAM, self._stream, body)
            self._stream += 2

    def _expire(self, now: float) -> None:
        oldest = now - self._deadline_s
        while self._kept_back and self._kept_back[0] <= oldest:
            self._kept_back.popleft()
            self._ended["late"] += 1
        while self._under_way and next(iter(self._under_way.values())) <= oldest:
            stream, _ = self._under_way.popitem(last=False)
            self._out += http2.frame(http2.RESET, 0, stream, http2.CANCEL.to_bytes(4))
            self._ended["late"] += 1

    def _send(self) -> None:
        while self._out:
            try:
                del self._out[: self.socket.send(self._out)]
            except BlockingIOError:
                return

    def _receive(self, now: float) -> None:
        try:
            received = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        if not received:
            raise ConnectionResetError("the server closed a connection; see its log")
        frames, self._left_over = http2.split(self._left_over + received)
        for each in frames:
            self._serve(each, now)

    def _serve(self, frame: Frame, now: float) -> None:
        if frame.kind == http2.HEADERS and frame.flags & http2.END_STREAM:
            self._end(frame.stream, http2.read_status(frame.payload), now)
        elif frame.kind == http2.DATA:
            self._out += b"".join(self._taken.give_back(frame))
        elif frame.kind == http2.RESET:
            self._end(frame.stream, "reset", now)
        elif frame.kind == http2.WINDOW and frame.stream == 0:
            self._window += int.from_bytes(frame.payload)
        elif frame.kind in (http2.SETTINGS, http2.PING) and not frame.flags & http2.ACK:
            if frame.kind == http2.SETTINGS:
                self._allowed = http2.read_settings(frame.payload).get(http2.MAX_STREAMS, self._allowed)
            self._out += http2.frame(frame.kind, http2.ACK, 0, frame.payload if frame.kind == http2.PING else b"")

    def _end(self, stream: int, how: str, now: float) -> None:
        # One that was given up, or that was reset after its trailers, has ended already.
        due = self._under_way.pop(stream, None)
        if due is not None:
            self._ended["late" if now - due > self._deadline_s else how] += 1


def measure(target: Target, rate: float, seconds: float, deadline_s: float) -> dict[str, int]:
    """Sends `rate` calls a second for some seconds; counts how those ended that were due in them."""
    ended: Counter[str] = Counter()
    with ExitStack() as stack:
        connections = [Connection(target, deadline_s, ended) for _ in range(CONNECTIONS)]
        poller = select.poll()
        for each in connections:
            stack.enter_context(each.socket)
            poller.register(each.socket, select.POLLIN)
        _run(connections, poller, rate, seconds, deadline_s)
    ended["sent"] = sum(ended.values())
    return dict(ended)


def _run(
    connections: Sequence[Connection], poller: select.poll, rate: float, seconds: float, patience_s: float
) -> None:
    began = time.perf_counter()
    turns, sent, total = itertools.cycle(connections), 0, int(rate * seconds)
    while (passed := time.perf_counter() - began) < seconds + patience_s:
        for number in range(sent, min(total, int(passed * rate))):
            next(turns).call(began + number / rate)
            sent = number + 1
        now = time.perf_counter()
        for each in connections:
            each.turn(now)
        poller.poll(1)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.openloop", description=__doc__)
    parser.add_argument("--address", required=True, help="server to call")
    parser.add_argument("--method", required=True, help="path of the method")
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests, hex")
    parser.add_argument("--rate", type=float, required=True, help="calls a second")
    parser.add_argument("--seconds", type=float, required=True, help="how long to call")
    parser.add_argument("--deadline-s", type=float, default=0.25, help="seconds that a call waits (%(default)s)")
    options = parser.parse_args(arguments)
    requests = [bytes.fromhex(each) for each in json.loads(options.requests.read_text())]
    target = Target(options.address, options.method, requests)
    try:
        print(json.dumps(measure(target, options.rate, options.seconds, options.deadline_s)))
    except (MarqueeError, OSError) as error:
        print(f"openloop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
