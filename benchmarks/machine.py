"""What the figures were measured on: machine, versions, commit, date; and which core does what."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import ANY_CORE, ROOT, Cores

_LIBRARIES = ("grpcio", "protobuf", "uvloop", "numpy", "torch", "onnxruntime", "faiss-cpu")
# Above it, something else was running when the benchmarks began.
QUIET_LOAD = 0.5


class Facts(NamedTuple):
    """Says where and when figures were measured; `load` is the load average before, `commit` may be ""."""

    date: str
    cpu: str
    cores: int
    memory_gb: float
    system: str
    load: float
    python: str
    libraries: dict[str, str]
    commit: str
    uncommitted: bool


def facts() -> Facts:
    """Looks at this machine and this checkout."""
    return Facts(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        cpu=_cpu(),
        cores=len(_cores()) or os.cpu_count() or 1,
        memory_gb=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        load=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        libraries={name: _version(name) for name in _LIBRARIES},
        commit=_git("rev-parse", "HEAD"),
        uncommitted=bool(_git("status", "--porcelain")),
    )


class Shares(NamedTuple):
    """Splits the cores between servers and their one caller."""

    servers: Cores
    caller: Cores

    def __str__(self) -> str:
        if not self.caller:
            return "servers and caller on any core: there are not two to pin them to"
        return f"servers on core {_listed(self.servers)}, the caller on core {_listed(self.caller)}"


def shares() -> Shares:
    """Gives the caller the last core and the servers the others; pins nothing where there are not two."""
    cores = _cores()
    if len(cores) < 2:
        return Shares(ANY_CORE, ANY_CORE)
    return Shares(frozenset(cores[:-1]), frozenset(cores[-1:]))


def first_cores(count: int) -> Cores:
    """Takes so many cores, or all where there are fewer."""
    return frozenset(_cores()[:count])


def resident_bytes(pid: int) -> int | None:
    """Reads how much memory a process has resident; None where the system does not say."""
    return _memory_of(pid, "VmRSS:")


def peak_bytes(pid: int) -> int | None:
    """Reads the most memory that a process has had resident; None where the system does not say."""
    return _memory_of(pid, "VmHWM:")


def _memory_of(pid: int, name: str) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def cpu_us(pid: int) -> float:
    """Reads how much CPU a process has taken, with all of its threads, in microseconds; of Linux alone."""
    # What glibc's clock_getcpuclockid makes of a process, which Python does not offer. /proc counts hundredths.
    return time.clock_gettime_ns(~pid << 3 | 2) / 1000


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _listed(cores: Cores) -> str:
    return ", ".join(map(str, sorted(cores)))


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def committed(file: Path) -> str:
    """Reads a file as it was committed last; "" where it was not, or where there is no git."""
    return _git("show", f"HEAD:./{file.name}", folder=file.parent)


def _git(*arguments: str, folder: Path = ROOT) -> str:
    """Asks git about a checkout; "" where there is no git, or no checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
