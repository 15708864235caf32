"""Runs benchmarks that are commands of their own: a temporary folder, a table, and JSON."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.machine import facts
from benchmarks.processes import Processes, interrupt_once
from benchmarks.report import Row, check_writable, markdown, write_json, write_text
from benchmarks.work import say
from training.command import run_command

# Measures in a temporary folder, and yields rows as they come.
Measure = Callable[[Path, Processes], Iterable[Row]]


def add_environments(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that keeps the peers' environments."""
    parser.add_argument(
        "--environments",
        type=Path,
        metavar="DIR",
        help="folder that keeps the peers' environments for the next time (default: they are removed)",
    )


def run_standalone(out: Path, data: str, measure: Measure) -> int:
    """Measures, prints the table and writes it and the JSON; returns the exit code, as `python -m benchmarks` does."""
    return run_benchmark("benchmarks", lambda: _run(out, data, measure))


def run_benchmark(name: str, work: Callable[[], object]) -> int:
    """Does the work of a command that starts processes; returns 0, 1 after an error, or 130 after Ctrl-C."""
    interrupt_once()
    return run_command(name, work, interrupted="; everything that was started has stopped")


def _run(out: Path, data: str, measure: Measure) -> None:
    check_writable(out)
    where, rows = facts(), list[Row]()
    try:
        with tempfile.TemporaryDirectory(prefix="marquee-bench-") as name, Processes(Path(name)) as processes:
            for row in measure(Path(name), processes):
                rows.append(row)
    finally:
        # What was measured before an error is still worth reading.
        table = markdown(where, data, rows)
        print(table)
    write_text(out.with_suffix(".md"), table)
    write_json(out, where, data, rows)
    say(f"wrote {out}, and Markdown beside it")
