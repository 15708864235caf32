"""Replicas behind clients that take turns, simulated: arrivals, round robin, and each replica's places and queue.

A replica is a lane of `services.common.limiter`: so many calls run, so many wait in order, the rest is refused. A
caller goes away at its deadline, and its place is free then. Event by event, on a heap; one seed, one run.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.errors import ConfigError

Seconds = npt.NDArray[np.float64]


class Setup(NamedTuple):
    """Says what serves and who asks: `running` and `waiting` are calls a replica, `clients` take turns each alone."""

    replicas: int
    running: int = 1
    waiting: int = 64
    deadline_s: float = math.inf
    clients: int = 1


class Outcome(NamedTuple):
    """Holds how long each answered call took, in the order of their answers, and how many were not answered."""

    seconds: Seconds
    refused: int
    late: int

    @property
    def calls(self) -> int:
        """How many were made."""
        return len(self.seconds) + self.refused + self.late

    def percentile_s(self, percent: float) -> float:
        """Reads a percentile of the answered calls' seconds; NaN where none was answered."""
        return float(np.percentile(self.seconds, percent)) if len(self.seconds) else math.nan


class _Event(enum.IntEnum):
    # Of what happens at the same moment: places are given back first.
    ANSWERED = 0
    LATE = 1
    ARRIVES = 2


@dataclass(slots=True)
class _Replica:
    running: int = 0
    queue: deque[int] = field(default_factory=deque)


def arrivals(rate: float, seconds: float, rng: np.random.Generator) -> Seconds:
    """Draws when calls arrive: at random, `rate` a second (a Poisson process)."""
    gaps = rng.exponential(1 / rate, round(rate * seconds))
    return np.cumsum(gaps)


def simulate(arrive_s: Seconds, serve_s: Seconds, setup: Setup, rng: np.random.Generator) -> Outcome:
    """Runs calls that arrive at ascending moments, and hold a place for so long each, through the replicas."""
    if min(setup.replicas, setup.running, setup.clients) < 1 or setup.waiting < 0 or not setup.deadline_s > 0:
        raise ConfigError(f"{setup}: name at least one replica, place and client, no negative queue, and a deadline")
    return _Run(arrive_s.tolist(), serve_s.tolist(), setup, rng).outcome()


class _Run:
    def __init__(self, arrive_s: list[float], serve_s: list[float], setup: Setup, rng: np.random.Generator) -> None:
        self._arrive_s, self._serve_s, self._setup = arrive_s, serve_s, setup
        self._clients = rng.integers(0, setup.clients, len(arrive_s)).tolist()
        # Each client begins with a replica of its own choice, as gRPC's does.
        self._turns = rng.integers(0, setup.replicas, setup.clients).tolist()
        self._replicas = [_Replica() for _ in range(setup.replicas)]
        # Of calls that run or wait.
        self._of: dict[int, _Replica] = {}
        self._seconds: list[float] = []
        self._refused = self._late = 0
        # Sorted, and so a heap.
        self._events = [(moment, _Event.ARRIVES, call) for call, moment in enumerate(arrive_s)]

    def outcome(self) -> Outcome:
        handlers = {_Event.ANSWERED: self._answered, _Event.LATE: self._gave_up, _Event.ARRIVES: self._arrive}
        while self._events:
            now, event, call = heapq.heappop(self._events)
            handlers[event](call, now)
        return Outcome(np.array(self._seconds, np.float64), self._refused, self._late)

    def _arrive(self, call: int, now: float) -> None:
        replica = self._next(self._clients[call])
        if replica.running < self._setup.running:
            self._of[call] = replica
            replica.running += 1
            self._begin(call, now)
        elif len(replica.queue) < self._setup.waiting:
            # Nobody gives up here: all wait equally long, so that who came before has left a place by then.
            self._of[call] = replica
            replica.queue.append(call)
        else:
            self._refused += 1

    def _next(self, client: int) -> _Replica:
        turn: int = self._turns[client]
        self._turns[client] = (turn + 1) % self._setup.replicas
        return self._replicas[turn]

    def _begin(self, call: int, now: float) -> None:
        done, due = now + self._serve_s[call], self._arrive_s[call] + self._setup.deadline_s
        event = _Event.ANSWERED if done <= due else _Event.LATE
        heapq.heappush(self._events, (min(done, due), event, call))

    def _answered(self, call: int, now: float) -> None:
        self._seconds.append(now - self._arrive_s[call])
        self._leave(call, now)

    def _gave_up(self, call: int, now: float) -> None:
        self._late += 1
        self._leave(call, now)

    def _leave(self, call: int, now: float) -> None:
        replica = self._of.pop(call)
        if replica.queue:
            self._begin(replica.queue.popleft(), now)
        else:
            replica.running -= 1
