"""Measures sibling models of every protocol beside the baselines and writes the page: `python -m training.report`.

Each run is kept as it ends: interrupted, the same command goes on from there.
"""

from __future__ import annotations

import argparse
import fcntl
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from marquee.errors import ConfigError
from training.command import run_command
from training.data import Dataset, load_dataset, read_columns
from training.report import gather
from training.report.crew import Job, make_runs
from training.report.page import Written, write_page
from training.report.plan import RUNS, TOWERS, Scope, code_version, orders
from training.report.verdict import goals, headline
from training.split import PROTOCOLS

_LOCK = ".lock"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    console = Console(stderr=True)
    left = f"; finished runs are kept in {options.out / RUNS}, the same command goes on"
    return run_command("report", lambda: run(options, console), interrupted=left)


def build_parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.report", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with MovieLens-format ratings and movies")
    parser.add_argument("--columns", type=Path, metavar="FILE", help="as of python -m training")
    parser.add_argument("--out", type=Path, default=Path(".marquee/report"), help="where to write (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (%(default)s; 1 with --quick)")
    parser.add_argument("--protocols", default=",".join(PROTOCOLS), help="which to measure (%(default)s)")
    parser.add_argument("--towers", default=",".join(TOWERS), help="which to measure (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few passes and one seed: to see the page, not to judge")
    parser.add_argument("--page-only", action="store_true", help="make no run; write the page of those that are there")
    return parser


def run(options: argparse.Namespace, console: Console) -> Written:
    """Makes the runs that are missing and writes the page; returns where."""
    scope = scope_of(options)
    with _folder(options.out):
        columns = read_columns(options.columns) if options.columns else None
        data = load_dataset(options.data, columns)
        console.print(data.describe(), highlight=False, markup=False)
        if not options.page_only:
            _make(options, scope, data, console)
        return _write(options, scope, data, console)


def scope_of(options: argparse.Namespace) -> Scope:
    """Reads how much is to be measured; raises ConfigError where that cannot be."""
    seeds = 1 if options.quick else options.seeds
    scope = Scope(_names(options.protocols), _names(options.towers), seeds, options.quick)
    scope.check()
    if options.jobs < 1:
        raise ConfigError(f"jobs is {options.jobs}; it must be at least 1")
    return scope


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Makes the folder and keeps other reports out of it."""
    try:
        (out / RUNS).mkdir(parents=True, exist_ok=True)
        stream = (out / _LOCK).open("w")
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be written to ({error.strerror}); name a folder of yours with --out"
        ) from error
    with stream:
        try:
            # Not flock: a run that is just being started, after this process was killed, would hold that one on.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(
                f"{out}: another report is being made there; wait for it, or name another folder with --out"
            ) from error
        yield


def _make(options: argparse.Namespace, scope: Scope, data: Dataset, console: Console) -> None:
    code = code_version()
    jobs = [
        Job(order, code, options.data, options.columns, options.out / RUNS / order.key(data.fingerprint, code))
        for order in orders(scope)
    ]
    missing = sum(not job.place.is_dir() for job in jobs)
    console.print(f"{len(jobs)} runs, {len(jobs) - missing} of them are there", highlight=False)
    started, made = time.perf_counter(), 0

    def done(job: Job, seconds: float) -> None:
        nonlocal made
        made += 1
        left_s = (time.perf_counter() - started) / made * (missing - made)
        console.print(
            f"{made}/{missing} {job.order.name}: {seconds:.0f} s; about {left_s / 60:.0f} minutes left", highlight=False
        )

    make_runs(jobs, options.jobs, done)


def _write(options: argparse.Namespace, scope: Scope, data: Dataset, console: Console) -> Written:
    started = time.perf_counter()
    study = gather.gather(options.out / RUNS, scope, data, command_of(options))
    try:
        written = write_page(study, options.out)
    except OSError as error:
        raise ConfigError(f"{options.out}: cannot be written to ({error.strerror}); name another with --out") from error
    console.print(f"{headline(goals(study))} Page written in {time.perf_counter() - started:.1f} s:", highlight=False)
    console.print(str(written.page), highlight=False, soft_wrap=True)
    return written


def command_of(options: argparse.Namespace) -> str:
    """Writes the command that makes the same page."""
    words = ["python", "-m", "training.report", "--data", options.data, "--out", options.out]
    words += ["--columns", options.columns] if options.columns else []
    words += ["--quick"] if options.quick else ["--seeds", options.seeds]
    words += ["--protocols", options.protocols, "--towers", options.towers]
    return shlex.join(map(str, words))


if __name__ == "__main__":
    sys.exit(main())
