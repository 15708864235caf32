"""What the code that answers a call says of it, to whoever listens: the service's metrics, and the call's trace.

    with stage("store"):
        ...
    BATCH_SIZE.observe(len(request.items))

Nothing comes of it outside of calls, or where nobody asked for metrics or traces.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sizes:
    """Is a number that each call has: a histogram, by method. `buckets` are upper bounds, ascending."""

    name: str
    about: str
    buckets: tuple[float, ...]

    def observe(self, value: float) -> None:
        """Says what it is of the call that runs here."""
        for listener in _listeners.get():
            listener.observed(self, value)


@dataclass(frozen=True, slots=True)
class Kinds:
    """Is something that happens in calls in one way or another: a counter, by method and by `label`."""

    name: str
    about: str
    label: str

    def count(self, kind: str, times: int = 1) -> None:
        """Says that it happened in the call that runs here."""
        for listener in _listeners.get():
            listener.counted(self, kind, times)


class Listener(Protocol):
    """Hears what is said of one call, from any thread that works for it."""

    def stage_ended(self, name: str, seconds: float) -> None:
        """Hears that a part of the call has just ended, and how long it took."""

    def observed(self, sizes: Sizes, value: float) -> None:
        """Hears of a number."""

    def counted(self, kinds: Kinds, kind: str, times: int) -> None:
        """Hears that something happened."""


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())

# What requests of both services have.
BATCH_SIZE = Sizes(
    "batch_size",
    "People, queries, movies or events that a call brought.",
    (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0),
)


def listen(listener: Listener) -> None:
    """Lets one more listener hear what is said of the call that begins here."""
    _listeners.set((*_listeners.get(), listener))


class stage:  # noqa: N801  # reads as a statement: with stage("store"): ...
    """Times a part of the call that runs here."""

    __slots__ = ("_began", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        seconds = time.perf_counter() - self._began
        for listener in _listeners.get():
            listener.stage_ended(self._name, seconds)
