"""What has moved since an earlier run of the same file, beyond noise."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.machine import Facts
from benchmarks.report import Row

# How far a figure that is no ratio of pairs may be from its last value: so much do times swing on shared machines.
_SWING = 0.3
_STEADY_SWING = 0.1
_STEADY_UNITS = frozenset(("kB", "MB", "GB"))
_RATIOS = frozenset(("×", "%"))

_RULE = (
    "A ratio in pairs has moved where the ranges of its pairs do not meet; anything else where it differs by more than "
    f"{100 * _SWING:g} %, memory by more than {100 * _STEADY_SWING:g} %, and the ranges of its readings, if it has "
    "any, do not meet."
)


class Figure(NamedTuple):
    """Is a figure of a run, with what it is the median of."""

    value: float
    unit: str
    readings: Sequence[float]

    def __str__(self) -> str:
        spread = f" ({min(self.readings):.2f} to {max(self.readings):.2f})" if self.readings else ""
        return f"{self.value:.2f} {self.unit}{spread}"


class Move(NamedTuple):
    """Says that a figure moved, and whether that is good."""

    measured: str
    before: Figure
    now: Figure
    better: bool


class Comparison(NamedTuple):
    """Says of all rows what became of them; those that are gone are of parts that were measured again."""

    compared: int
    moves: Sequence[Move]
    new: Sequence[str]
    gone: Sequence[str]


def section(earlier: str, facts: Facts, data: str, rows: Sequence[Row]) -> list[str]:
    """Words what has moved since an earlier run, given its JSON, "" being none; Markdown."""
    return ["## What has moved", "", *_told(earlier, facts, data, rows)]


def _told(earlier: str, facts: Facts, data: str, rows: Sequence[Row]) -> list[str]:
    if not earlier:
        return ["There is no committed run of this file to compare with."]
    run: Mapping[str, Any] = json.loads(earlier)
    then, now = _setting(run["cpu"], run["cores"], run["data"]), _setting(facts.cpu, facts.cores, data)
    when = f"The last committed run ({run['date'][:10]}, commit {run['commit'][:12] or 'none'})"
    if then != now:
        return [f"{when} was on {then}, this one on {now}: not compared."]
    compared = compare(run["rows"], rows)
    return [f"{when} has {compared.compared} of these rows. {_RULE}", "", *_table(compared.moves), *_names(compared)]


def _setting(cpu: str, cores: int, data: str) -> str:
    """Names machine and data; the sizes, which stand after the data's name, are not known to every part."""
    return f"{cpu}, {cores} cores, with {data.partition(':')[0]}"


def compare(earlier: Iterable[Mapping[str, Any]], rows: Sequence[Row]) -> Comparison:
    """Compares rows with those of an earlier run's JSON, by part, name and unit."""
    before = {(row["part"], row["measured"], row["unit"]): _figure(row) for row in earlier}
    now = {(row.part, row.measured, row.unit): row for row in rows}
    both = [(before[key], row) for key, row in now.items() if key in before]
    parts = {row.part for row in rows}
    return Comparison(
        len(both),
        [move for figure, row in both if (move := _move(figure, row))],
        [row.measured for key, row in now.items() if key not in before],
        [measured for part, measured, unit in before if part in parts and (part, measured, unit) not in now],
    )


def _figure(row: Mapping[str, Any]) -> Figure:
    # Files of before had no readings.
    return Figure(row["value"], row["unit"], row.get("readings", ()))


def _move(before: Figure, row: Row) -> Move | None:
    now = Figure(row.value, row.unit, row.readings)
    if not _differ(before, now):
        return None
    return Move(row.measured, before, now, (now.value > before.value) == row.at_least)


def _differ(before: Figure, now: Figure) -> bool:
    has_ranges = bool(before.readings and now.readings)
    if has_ranges and min(now.readings) <= max(before.readings) and min(before.readings) <= max(now.readings):
        return False
    if has_ranges and now.unit in _RATIOS:
        return True
    swing = _STEADY_SWING if now.unit in _STEADY_UNITS else _SWING
    return abs(now.value - before.value) > swing * abs(before.value)


def _table(moves: Sequence[Move]) -> list[str]:
    if not moves:
        return ["None has moved."]
    lines = [
        f"| {move.measured} | {move.before} | {move.now} | {'better' if move.better else 'WORSE'} |" for move in moves
    ]
    return ["| measured | before | now | |", "|---|--:|--:|---|", *lines]


def _names(compared: Comparison) -> list[str]:
    told = (("New", compared.new), ("No longer measured", compared.gone))
    return [line for what, names in told if names for line in ("", f"{what}: {'; '.join(names)}.")]
