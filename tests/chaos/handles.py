"""What a process holds: memory, open files and sockets, threads."""

from __future__ import annotations

from benchmarks.machine import resident_bytes

MIB = 1 << 20


def resident_mib(pid: int) -> float:
    """Reads how much memory a process has resident, in MiB."""
    resident = resident_bytes(pid)
    assert resident is not None, f"process {pid} has gone"
    return resident / MIB
