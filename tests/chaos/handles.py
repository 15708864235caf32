"""What a process holds: memory, open files and sockets, threads."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import peak_bytes, resident_bytes

MIB = 1 << 20
_GRPC_POOL = "event_engine"


def resident_mib(pid: int) -> float:
    """Reads how much memory a process has resident, in MiB."""
    resident = resident_bytes(pid)
    assert resident is not None, f"process {pid} has gone"
    return resident / MIB


def peak_mib(pid: int) -> float:
    """Reads the most memory that a process has had resident, in MiB."""
    peak = peak_bytes(pid)
    assert peak is not None, f"process {pid} has gone"
    return peak / MIB


class Held(NamedTuple):
    """Is how much a process holds: open files, sockets among them, and threads."""

    files: int
    threads: int


def held_by(pid: int) -> Held:
    """Counts what a process holds (Linux).

    The threads of gRPC's event engine are left out: that pool grows by one when its threads are busy and shrinks when
    they are idle, whatever its calls leave behind.
    """
    of = Path("/proc", str(pid))
    return Held(len(os.listdir(of / "fd")), _threads_of(of))


def _threads_of(process: Path) -> int:
    count = 0
    for thread in (process / "task").iterdir():
        # One may end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            count += (thread / "comm").read_text().strip() != _GRPC_POOL
    return count
