"""Measures how figures grow: `python -m benchmarks.growth [--only PART ...] [--out FILE]`.

Prints a Markdown table, and writes the figures that `benchmarks.capacity` reckons with, and a picture of each part;
after each part, so that those before one that fails, or never ends, are there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from benchmarks import balancing, growing_histories, growing_movies, growing_users
from benchmarks.growth_figures import FIGURES
from benchmarks.growth_pictures import draw
from benchmarks.growth_rows import rows_of
from benchmarks.machine import facts, shares
from benchmarks.processes import BenchmarkFailed, Processes
from benchmarks.report import check_writable, markdown
from benchmarks.standalone import run_benchmark
from benchmarks.work import Work, say
from marquee.errors import MarqueeError
from marquee.whole_files import write_json

_DATA = "generated: see benchmarks/README.md"
PARTS = ("histories", "replicas", "users", "movies")
# Of a part; the others are worth measuring all the same.
_FAILURES = (MarqueeError, RedisError, OSError)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 1 where something could not be measured."""
    options = _parser().parse_args(arguments)
    return run_benchmark("growth", lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (all)")
    parser.add_argument(
        "--out", type=Path, default=FIGURES, help="JSON to write; the pictures stand beside (%(default)s)"
    )
    sizes = {"movies": growing_movies.LARGEST, "people": growing_users.LARGEST}
    for what, largest in sizes.items():
        says = f"the most {what} to measure, from 10000 on (%(default)s)"
        parser.add_argument(f"--most-{what}", type=_most, default=largest, metavar="N", help=says)
    return parser


def _most(text: str) -> int:
    if not text.isdecimal() or int(text) < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 10000 on: two sizes make a line")
    return int(text)


def _run(options: argparse.Namespace) -> None:
    """Measures part by part, also where one fails: that is told in the end."""
    check_writable(options.out)
    where, cores = facts(), shares()
    report: dict[str, Any] = {**where._asdict(), "data": _DATA, "pinned": str(cores)}
    failed = []
    with tempfile.TemporaryDirectory(prefix="marquee-growth-") as name, Processes(Path(name)) as processes:
        folder = Path(name)
        work = Work(folder, folder, processes)
        for part, measure in _parts(options).items():
            try:
                report[part] = measure(work, cores)
            except _FAILURES as error:
                print(f"growth: {part} failed ({type(error).__name__}): {error}", file=sys.stderr)
                failed.append(part)
            else:
                write_json(options.out, report)
    print(markdown(where, _DATA, rows_of(report)))
    for picture in draw(options.out.parent, report):
        say(f"drew {picture}")
    if failed:
        raise BenchmarkFailed(f"{', '.join(failed)}: not measured, for the reason above; the file has the others")


def _parts(options: argparse.Namespace) -> dict[str, Callable[..., dict[str, Any]]]:
    parts: tuple[Callable[..., dict[str, Any]], ...] = (
        growing_histories.measure,
        balancing.measure,
        partial(growing_users.measure, largest=options.most_people),
        partial(growing_movies.measure, largest=options.most_movies),
    )
    return {name: measure for name, measure in zip(PARTS, parts, strict=True) if name in options.only}


if __name__ == "__main__":
    sys.exit(main())
