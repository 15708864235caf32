"""The load: calls in flight, or at a fixed rate, over any wire; afterwards every answer is held against the right one.

Latency counts from when a call was due, so that a server that falls behind cannot hide it by being asked less.
"""

from __future__ import annotations

import select
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from benchmarks.http2 import Target
from benchmarks.peers.wires import OK, End, Http, LoadFailed, Rpc, Wire
from marquee.features import Floats

IN_FLIGHT = 32
TOLERANCE = 1e-5
WRONG_VECTOR = "wrong vector"
_IDLE_S = 20.0


class Asking(NamedTuple):
    """Is what to ask, and how: where, over HTTP/2 or not, and of each request the vector that is right [D]."""

    target: Target
    grpc: bool
    read: Callable[[bytes], Floats]
    vectors: Sequence[Floats]


@dataclass(frozen=True, slots=True)
class Figures:
    """Says how a load went: right answers and how long each took, failures by what was wrong, and the load's own CPU.

    `client_cpu` is a part of one core.
    """

    ms: npt.NDArray[np.float64]
    failed: dict[str, int]
    seconds: float
    client_cpu: float

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return len(self.ms) / self.seconds


class _Flood:
    """Makes a call due whenever fewer than IN_FLIGHT are under way, for some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def due(self, passed: float, begun: int, ended: int) -> list[float]:
        """Says when calls were due that have not begun, in seconds from the start."""
        return [passed] * (IN_FLIGHT - (begun - ended)) if passed < self._seconds else []

    def next_due(self, begun: int) -> None:
        """Says that the next call is due when another has ended."""


class _Pace:
    """Makes so many calls a second due, for some seconds; none is left out where this process was late."""

    def __init__(self, rate: float, seconds: float) -> None:
        self._rate = rate
        self._total = round(rate * seconds)

    def due(self, passed: float, begun: int, ended: int) -> list[float]:
        """Says when calls were due that have not begun, in seconds from the start."""
        return [number / self._rate for number in range(begun, min(self._total, int(passed * self._rate) + 1))]

    def next_due(self, begun: int) -> float | None:
        """Says when the next call is due; None where there is none."""
        return begun / self._rate if begun < self._total else None


class Load:
    """Asks over connections of its own; a context manager."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._stack = ExitStack()
        self._due: list[float] = []
        self._ended: list[tuple[End, float]] = []

    def __enter__(self) -> Load:
        with ExitStack() as stack:
            self._wires = [stack.enter_context(closing(wire)) for wire in connect(self._asking)]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def flood(self, seconds: float) -> Figures:
        """Keeps IN_FLIGHT calls in flight for some seconds."""
        return self._figures(_Flood(seconds))

    def pace(self, rate: float, seconds: float) -> Figures:
        """Begins `rate` calls a second for some seconds, answered or not."""
        return self._figures(_Pace(rate, seconds))

    def _figures(self, schedule: _Flood | _Pace) -> Figures:
        self._due, self._ended = [], []
        cpu, began = time.process_time(), time.perf_counter()
        self._run(schedule, began)
        passed = time.perf_counter() - began
        return self._checked(passed, (time.process_time() - cpu) / passed)

    def _run(self, schedule: _Flood | _Pace, began: float) -> None:
        """Begins calls when they are due, and waits for all that have begun."""
        waiting: deque[int] = deque()
        while True:
            due = schedule.due(time.perf_counter() - began, len(self._due), len(self._ended))
            waiting.extend(range(len(self._due), len(self._due) + len(due)))
            self._due += [began + each for each in due]
            self._begin(waiting)
            next_due = schedule.next_due(len(self._due))
            if next_due is None and len(self._ended) == len(self._due):
                return
            self._receive(None if next_due is None else began + next_due)

    def _begin(self, waiting: deque[int]) -> None:
        for wire in self._wires:
            while waiting and wire.free():
                number = waiting.popleft()
                requests = self._asking.target.requests
                wire.call(number, requests[number % len(requests)])
            wire.flush()

    def _receive(self, next_due: float | None) -> None:
        """Waits for answers, but no longer than until the next call is due."""
        wait_s = _IDLE_S if next_due is None else max(0.0, next_due - time.perf_counter())
        ready, _, _ = select.select(self._wires, (), (), wait_s)
        if not ready and next_due is None:
            raise LoadFailed(f"no answer came for {_IDLE_S:.0f} s; see what the server wrote")
        for wire in ready:
            for end in wire.receive():
                self._ended.append((end, time.perf_counter()))

    def _checked(self, seconds: float, client_cpu: float) -> Figures:
        wrong: Counter[str] = Counter()
        taken = []
        for end, at in self._ended:
            status = end.status if end.status != OK else self._check(end)
            if status == OK:
                taken.append(1000 * (at - self._due[end.number]))
            else:
                wrong[status] += 1
        return Figures(np.array(taken), dict(wrong), seconds, client_cpu)

    def _check(self, end: End) -> str:
        right = self._asking.vectors[end.number % len(self._asking.vectors)]
        return OK if is_right(self._asking.read, end.body, right) else WRONG_VECTOR


def is_right(read: Callable[[bytes], Floats], body: bytes, right: Floats) -> bool:
    """Says whether an answer has the right vector."""
    try:
        vector = read(body)
    except (DecodeError, KeyError, TypeError, ValueError):
        return False
    return vector.shape == right.shape and bool(np.abs(vector - right).max() <= TOLERANCE)


def connect(asking: Asking, most: int = IN_FLIGHT) -> list[Wire]:
    """Opens as many connections as so many calls at a time take."""
    return [Rpc(asking.target, most)] if asking.grpc else [Http(asking.target) for _ in range(most)]
