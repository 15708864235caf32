"""However much a server answers on one connection, it may go on: what came is given back to its window."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import http2, openloop
from benchmarks.flood import Connection
from benchmarks.flooding import prime
from benchmarks.http2 import Target
from benchmarks.layers import ENCODE
from benchmarks.peers.wires import End, Rpc
from benchmarks.processes import Processes

# A window of the size that servers begin with is a few answers, and not the 2 GiB that take a minute to fill.
ANSWER, WINDOW = b"answer" * 2000, 100_000
CALLS = 50


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    monkeypatch.setattr(http2, "LARGEST_WINDOW", WINDOW)
    with Processes(tmp_path) as processes, processes.serve("benchmarks.floor") as floor:
        prime(floor, ANSWER)
        yield Target(floor.address, ENCODE, [b"request"])


def test_a_flood_goes_on(target: Target) -> None:
    with Connection(target, in_flight=4) as connection:
        until = time.monotonic() + 10
        while connection.answered < CALLS and time.monotonic() < until:
            connection.run(0.05)
    assert connection.answered >= CALLS


def test_calls_at_a_fixed_rate_go_on(target: Target) -> None:
    asked = openloop.CONNECTIONS * CALLS
    ended = openloop.measure(target, rate=asked, seconds=1.0, deadline_s=3.0)
    assert ended == {"OK": asked, "sent": asked}


def test_a_peers_caller_goes_on(target: Target) -> None:
    with closing(Rpc(target, most=1)) as rpc:
        for number in range(CALLS):
            rpc.call(number, b"request")
            ends = list[End]()
            while not ends:
                rpc.flush()
                ends += rpc.receive()
            assert ends == [End(number, "OK", ANSWER)]
