"""A server and all processes that it started: their memory, and how to stop or to hold them all."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import resident_bytes


def tree(pid: int) -> list[int]:
    """Lists a process and all that descend from it."""
    children = defaultdict(list)
    for child, parent in _parents():
        children[parent].append(child)
    found = [pid]
    for each in found:
        found += children[each]
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        # It may have ended meanwhile.
        with contextlib.suppress(OSError):
            yield int(entry.parent.name), int(entry.read_text().rpartition(")")[2].split()[1])


def memory_of(pids: list[int]) -> int:
    """Adds up what processes have resident; pages that they share count in each."""
    return sum(resident_bytes(pid) or 0 for pid in pids)


@contextlib.contextmanager
def held(pid: int) -> Iterator[None]:
    """Stops a server and all its processes for a block, so that nothing of them takes from the core."""
    pids = tree(pid)
    send(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        send(pids, signal.SIGCONT)


def send(pids: list[int], number: signal.Signals) -> None:
    """Sends a signal to those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
