"""Whether the services hold on to anything: both of them at half of their load for some minutes, and what they take.

The load is the load tester's mix, at half of what eight callers get out of the services who wait for each answer.
Memory is read every few seconds. Its growth is that of a line through what was read after the first quarter: until then
caches fill. Open files and threads are counted while nobody calls, after that quarter's load and after all of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.machine import peak_bytes, resident_bytes, shares
from benchmarks.processes import BenchmarkFailed, Server
from benchmarks.report import Row
from benchmarks.startup import SERVICES
from benchmarks.work import Work, say

MINUTES = 10.0
_CALLERS = 8
_FULL_LOAD_S = 10.0
_EVERY_S = 2.0
_FILLING = 0.25
# What is left of a call's connection once its client has gone takes a moment to go.
_SETTLE_S = 3.0
_MIB = 1 << 20
_GROWN_GOAL_MIB = 8.0


class Sample(NamedTuple):
    """Is what a process had resident, in MiB, and when, in seconds since the load began."""

    at_s: float
    mib: float


class Held(NamedTuple):
    """Is how many files, sockets among them, a process has open, and how many threads it has."""

    files: int
    threads: int


class Loaded(NamedTuple):
    """Is what the load tester counted: calls, those that failed, and good answers a second; and memory by service."""

    calls: int
    failed: int
    rate: float
    samples: Mapping[str, Sequence[Sample]]


def measure(work: Work, minutes: float) -> list[Row]:
    """Runs the services at half load for so many minutes."""
    cores = shares()
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                work.processes.serve(f"services.{name}", *work.arguments(name), cores=cores.servers)
            )
            for name in SERVICES
        }
        full = _load(work, servers, "--closed", str(_CALLERS), "--duration", f"{_FULL_LOAD_S:g}s")
        rate = full.rate / 2
        say(f"half of {full.rate:,.0f} calls/s for {minutes:g} minutes")
        filling_s, rest_s = (60 * minutes * part for part in (_FILLING, 1 - _FILLING))
        _load(work, servers, "--rate", f"{rate:.0f}", "--duration", f"{filling_s:g}s")
        before = _settled(servers)
        loaded = _load(work, servers, "--rate", f"{rate:.0f}", "--duration", f"{rest_s:g}s")
        after = _settled(servers)
        peaks = {name: _known(peak_bytes(server.child.process.pid)) / _MIB for name, server in servers.items()}
    return [
        *(_memory(name, loaded, peaks[name]) for name in SERVICES),
        *(_handles(name, before[name], after[name]) for name in SERVICES),
    ]


def _load(work: Work, servers: Mapping[str, Server], *arguments: str) -> Loaded:
    """Runs the load tester, and reads the services' memory meanwhile."""
    out = work.folder / "soak"
    told: list[str | Path] = [
        f"--encoder={servers['user_encoder'].address}",
        f"--retriever={servers['retriever'].address}",
    ]
    told += ["--scenario", "mix", "--data", work.data, "--out", out, *arguments]
    child = work.processes.start("clients.loadtest", *told, cores=shares().caller)
    samples: dict[str, list[Sample]] = {name: [] for name in servers}
    began = time.monotonic()
    while child.process.poll() is None:
        for name, server in servers.items():
            mib = _known(resident_bytes(server.child.process.pid)) / _MIB
            samples[name].append(Sample(time.monotonic() - began, mib))
        time.sleep(_EVERY_S)
    # 4 says that the client was the limit, which is no matter here.
    if child.process.returncode not in (0, 4):
        raise child.failure()
    total = json.loads((out / "report.json").read_text("utf-8"))["total"]
    return Loaded(total["calls"], sum(total["errors"].values()), total["rate"], samples)


def _known(size: int | None) -> int:
    if size is None:
        raise BenchmarkFailed("a service has gone, or this system does not say what memory it has: measure on Linux")
    return size


def _settled(servers: Mapping[str, Server]) -> dict[str, Held]:
    """Counts what the services have open when nobody calls any more."""
    time.sleep(_SETTLE_S)
    return {name: _held(server.child.process.pid) for name, server in servers.items()}


def _held(pid: int) -> Held:
    of = Path("/proc", str(pid))
    return Held(len(os.listdir(of / "fd")), len(os.listdir(of / "task")))


def _memory(name: str, loaded: Loaded, peak_mib: float) -> Row:
    at_s, mib = np.array(loaded.samples[name]).T
    slope, _ = np.polyfit(at_s, mib, 1)
    seconds = at_s[-1] - at_s[0]
    beside = (
        f"{slope * 3600:.1f} MiB an hour; {mib[0]:.0f} MiB, then {mib[-1]:.0f}, {peak_mib:.0f} at most; "
        f"{loaded.calls:,} calls at {loaded.rate:,.0f}/s, {loaded.failed} failed"
    )
    what = f"soak, {name}: growth of its memory in {seconds / 60:.1f} minutes"
    return Row("soak", what, float(slope * seconds), "MiB", _GROWN_GOAL_MIB, beside)


def _handles(name: str, before: Held, after: Held) -> Row:
    beside = f"{before.files}, then {after.files}; threads: {before.threads}, then {after.threads}"
    return Row("soak", f"soak, {name}: more open files and sockets", after.files - before.files, "files", 1, beside)
