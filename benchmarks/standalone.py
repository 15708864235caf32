"""Runs benchmarks that are commands of their own: a temporary folder, a table, and JSON."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.machine import facts
from benchmarks.processes import Processes, interrupt_once
from benchmarks.report import Row, check_writable, markdown, write_json, write_text
from benchmarks.work import say
from marquee.errors import MarqueeError

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
    interrupt_once()
    try:
        check_writable(out)
        _run(out, data, measure)
    except MarqueeError as error:
        print(f"benchmarks: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; everything that was started has stopped", file=sys.stderr)
        return 130
    return 0


def _run(out: Path, data: str, measure: Measure) -> None:
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
