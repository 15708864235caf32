"""How long preparing events for training takes, and how much memory: generated events, a process of its own, one core.

As a program, `python -m benchmarks.preparing DIR CACHE` prepares the data of a folder once and prints the seconds as
JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import first_cores
from benchmarks.processes import Ended
from benchmarks.report import Row
from benchmarks.work import Work, say
from marquee import features
from training.data import load_prepared
from training.split import splits

_CORES = 1


class Size(NamedTuple):
    """Is what to generate: MovieLens 1M's shape, or 20M's; `goal_s` is for the first time, `goal_gb` for all."""

    name: str
    people: int
    movies: int
    events: int
    file_format: str
    goal_s: float | None
    goal_gb: float


ONE_MILLION = Size("preparing", 6040, 3700, 1_000_000, "csv", 10.0, 4.0)
TWENTY_MILLIONS = Size("preparing-20m", 138_000, 27_000, 20_000_000, "parquet", None, 4.0)


def measure(work: Work, size: Size) -> list[Row]:
    """Generates events and prepares them twice: from the files, and from what the first time kept."""
    data, cache = work.folder / size.name, work.folder / f"{size.name}-cache"
    say(f"generating {size.events:,} events")
    sizes = ("--people", str(size.people), "--movies", str(size.movies), "--events", str(size.events))
    cores = first_cores(_CORES)
    made = work.processes.run("training.generate", "--out", data, *sizes, "--format", size.file_format, cores=cores)
    say(f"preparing {size.events:,} events")
    first, again = (work.processes.run("benchmarks.preparing", data, cache, cores=cores) for _ in range(2))
    on = "on one core" if cores else "on any core: this system pins none"
    files, kept = (f"{on}; from {size.file_format}", f"{on}; from mapped columns")
    return [
        _seconds(size, "generated", made.seconds, None, f"{on}; {size.file_format}, the whole process"),
        _seconds(size, "loaded and split", _total(first), size.goal_s, f"{files}, {_parts(first)}"),
        _seconds(size, "loaded and split again", _total(again), size.goal_s, f"{kept}, {_parts(again)}"),
        _peak(size, "generating", made),
        _peak(size, "preparing", first),
        _peak(size, "preparing again", again),
    ]


def _seconds(size: Size, what: str, seconds: float, goal_s: float | None, beside: str) -> Row:
    return Row("preparing", f"{size.events:,} events {what}", seconds, "s", goal_s, beside)


def _peak(size: Size, what: str, ended: Ended) -> Row:
    measured = f"peak memory of {what} {size.events:,} events"
    return Row("preparing", measured, ended.peak_bytes / 1e9, "GB", size.goal_gb, "largest resident set")


def _total(ended: Ended) -> float:
    return float(sum(json.loads(ended.stdout).values()))


def _parts(ended: Ended) -> str:
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in json.loads(ended.stdout).items())


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preparing", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of data")
    parser.add_argument("cache", type=Path, help="folder for what is kept")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    data = load_prepared(options.folder, options.cache)
    loaded = time.perf_counter()
    spec = features.feature_spec(max_history=200, dimension=64, content_buckets=1 << 12, max_content_tokens=16)
    splits(data, spec, "last")
    print(json.dumps({"load": loaded - started, "split": time.perf_counter() - loaded}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
