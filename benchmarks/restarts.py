"""Restarts: `python -m benchmarks.restarts --registry DIR` stops and starts two retrievers in turn under an SDK client.

Prints one JSON object: how many of its calls failed, their deadlines' end among it, how many were made again, how long
the slowest took, and how late the client itself began one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.processes import BenchmarkFailed
from benchmarks.standalone import run_benchmark
from marquee.bundle.format import MOVIE_IDS
from marquee.bundle.registry import Registry
from tests.restart_rigs import restart

ROUNDS = 20
_DEADLINE_S = 0.25


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restarts", description=__doc__)
    parser.add_argument("--registry", type=Path, required=True, help="registry with an active bundle")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many times a replica stops (%(default)s)")
    parser.add_argument("--deadline-s", type=float, default=_DEADLINE_S, help="deadline of a call (%(default)s)")
    options = parser.parse_args(arguments)
    return run_benchmark("restarts", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    registry = Registry(options.registry)
    active = registry.read().active
    if not active:
        raise BenchmarkFailed(
            f"{options.registry}: no bundle is active; run `python -m marquee.bundle activate --registry "
            f"{options.registry}` first"
        )
    movie = int(np.load(registry.open(active).path / MOVIE_IDS)[0])
    with tempfile.TemporaryDirectory(prefix="marquee-restarts-") as folder:
        counts = asyncio.run(restart(Path(folder), options.registry, movie, options.rounds, options.deadline_s))
    print(json.dumps({"rounds": options.rounds, "deadline_s": options.deadline_s, **counts._asdict()}))


if __name__ == "__main__":
    sys.exit(main())
