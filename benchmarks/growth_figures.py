"""What `make bench-growth` measured, read as the curves that capacity is reckoned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.curves import Curve
from benchmarks.machine import QUIET_LOAD
from benchmarks.processes import ROOT
from benchmarks.towers import POOLED
from marquee.errors import DataError
from marquee.whole_files import read_json

FIGURES = ROOT / "benchmarks" / "results" / "growth.json"


class Taken(NamedTuple):
    """Is the seconds of a core that a call takes: of many in flight at once, which are gathered, and of one alone."""

    flooded_s: float
    alone_s: float


class Cost(NamedTuple):
    """Holds what a call takes, by a size."""

    flooded_s: Curve
    alone_s: Curve

    def at(self, size: float) -> Taken:
        """Reads both at a size."""
        return Taken(self.flooded_s.at(size), self.alone_s.at(size))


class Figures(NamedTuple):
    """Holds what calls, people and movies take; shapes are percentiles 0 to 100 over 1.

    `encode` and the like are by tower and then by events of a person, `search`, `retriever_gb`, `index_gb` by movies,
    `lists` by movies of a list; `record`, `person_bytes` and what Redis takes for a call are by events. `row_bytes` are
    what a movie adds to a table of vectors.
    """

    encode: Mapping[str, Cost]
    encode_shape: Mapping[str, list[float]]
    encoder_gb: Mapping[str, float]
    record: Cost
    search: Cost
    search_shape: list[float]
    lists: Cost
    list_length: int
    retriever_gb: Curve
    index_gb: Curve
    person_bytes: Curve
    most_people: int
    redis_read_s: Curve
    redis_write_s: Curve
    row_bytes: float
    quiet: bool


def read_figures(path: Path) -> Figures:
    """Reads a file of figures; raises DataError where it is none, or has not all of them."""
    report = read_json(path)
    if report is None:
        raise DataError(f"{path} is not there; `make bench-growth` writes it, or name another one with --figures")
    try:
        return figures_of(report)
    except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise DataError(
            f"{path} has not all figures ({type(error).__name__}: {error}); run the whole of `make bench-growth`, or "
            "name another file with --figures"
        ) from error


def figures_of(report: Mapping[str, Any]) -> Figures:
    """Picks the figures out of a report."""
    histories, movies, users = report["histories"], report["movies"], report["users"]
    towers = histories["towers"]
    return Figures(
        encode={name: _cost(tower["rows"], "events") for name, tower in towers.items()},
        encode_shape={name: _shape(tower["rows"]) for name, tower in towers.items()},
        encoder_gb={name: tower["resident_bytes"] / 1e9 for name, tower in towers.items()},
        record=_cost(histories["recorded"], "events"),
        search=_cost(movies["rows"], "movies"),
        search_shape=_shape(movies["rows"]),
        lists=_cost(movies["lists"], "k"),
        list_length=movies["k"],
        retriever_gb=_curve(movies["rows"], "movies", "resident_bytes", 1e9),
        index_gb=_curve(movies["rows"], "movies", "bytes", 1e9),
        person_bytes=_curve(users["redis_by_events"], "events", "bytes"),
        most_people=max(row["people"] for row in users["redis"] if not row.get("extrapolated")),
        redis_read_s=_curve(towers[POOLED]["rows"], "events", "redis_s"),
        redis_write_s=_curve(histories["recorded"], "events", "redis_s"),
        row_bytes=4 * movies["dimension"] + 8,
        quiet=report["load"] <= QUIET_LOAD,
    )


def _curve(rows: Sequence[Mapping[str, Any]], at: str, of: str, unit: float = 1) -> Curve:
    return Curve([row[at] for row in rows], [float(row[of]) / unit for row in rows])


def _cost(rows: Sequence[Mapping[str, Any]], at: str) -> Cost:
    flooded_s = Curve([row[at] for row in rows], [1 / row["calls_per_s"] for row in rows])
    return Cost(flooded_s, _curve(rows, at, "cpu_ms", 1e3))


def _shape(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Takes the percentiles of the middle size over their mean: how unlike calls are, whatever one takes."""
    alone_ms = rows[len(rows) // 2]["alone_ms"]
    mean_ms = sum(alone_ms) / len(alone_ms)
    return [each / mean_ms for each in alone_ms]
