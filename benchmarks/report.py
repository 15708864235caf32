"""Rows of figures and how they are written: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.machine import QUIET_LOAD, Facts
from benchmarks.processes import BenchmarkFailed


@dataclass(frozen=True, slots=True)
class Row:
    """Is one figure; below `goal`, in the same unit, is good, and None is no goal. `beside` is shown next to it.

    With `at_least` the goal is to be reached, and more is good, with a goal and without. `readings` are what the figure
    is the median of, one a pair or a block, and `parts` what it is made of, in its unit.
    """

    part: str
    measured: str
    value: float
    unit: str
    goal: float | None
    beside: str
    details: Mapping[str, object] = field(default_factory=dict)
    at_least: bool = False
    readings: Sequence[float] = ()
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value < self.goal


def markdown(facts: Facts, data: str, rows: Sequence[Row]) -> str:
    """Writes the report that is printed."""
    return "\n".join([*_heading(facts, data), "", *_table(rows)])


def _heading(facts: Facts, data: str) -> list[str]:
    libraries = ", ".join(f"{name} {version}" for name, version in facts.libraries.items())
    changes = ", with uncommitted changes" if facts.uncommitted else ""
    lines = [
        f"- date: {facts.date}",
        f"- machine: {facts.cpu}, {facts.cores} cores, {facts.memory_gb:g} GB, {facts.system}",
        f"- versions: Python {facts.python}, {libraries}",
        f"- commit: {facts.commit[:12] or 'none'}{changes}",
        f"- data: {data}",
        f"- load average at the start: {facts.load:.2f}",
    ]
    if facts.load > QUIET_LOAD:
        lines.append("- **not quiet: something else was running at the start; do not quote these figures**")
    return lines


def _table(rows: Sequence[Row]) -> list[str]:
    head = ["| measured | figure | goal | | beside it |", "|---|--:|--:|---|---|"]
    return [*head, *map(_line, rows)]


def _line(row: Row) -> str:
    goal = "–" if row.goal is None else f"{'at least' if row.at_least else 'under'} {row.goal:g} {row.unit}"
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    return f"| {row.measured} | {row.value:.2f} {row.unit} | {goal} | {verdict} | {row.beside} |"


def write_json(path: Path, facts: Facts, data: str, rows: Sequence[Row]) -> None:
    """Writes the report for programs, whole or not at all; raises BenchmarkFailed where it cannot be written."""
    report = {**facts._asdict(), "data": data, "rows": [asdict(row) | {"met": row.met} for row in rows]}
    write_text(path, json.dumps(report, indent=1, ensure_ascii=False))


def write_text(path: Path, text: str) -> None:
    """Writes a file, whole or not at all; raises BenchmarkFailed where it cannot be written."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_text(f"{text}\n", encoding="utf-8")
        os.replace(scratch, path)
    except OSError as error:
        raise unwritable(path, error) from error


def check_writable(path: Path) -> None:
    """Makes the report's folder; raises BenchmarkFailed now where the report could not be written in six minutes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise BenchmarkFailed(f"cannot write {path}: name a file in a folder that can be written with --out")


def unwritable(path: Path, error: OSError) -> BenchmarkFailed:
    """Says that the report cannot be written."""
    return BenchmarkFailed(f"cannot write {path} ({error.strerror}): name another file with --out")
