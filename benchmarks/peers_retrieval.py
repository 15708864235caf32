"""Our index beside bare FAISS, hnswlib and usearch: `python -m benchmarks.peers_retrieval [--sizes N ...]`.

Every search is one query on one thread of one core. Writes `peers-retrieval.json` and draws `peers-retrieval.png`.

Letters in array names: N movies, Q queries, D dimension, K movies found.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks import chosen
from benchmarks.chosen import BARE, HALF, OURS
from benchmarks.machine import first_cores
from benchmarks.million import DIMENSION, read_chosen
from benchmarks.peers.environments import python_of
from benchmarks.processes import Processes
from benchmarks.report import Row
from benchmarks.standalone import add_environments, run_standalone
from benchmarks.sweeping import QUERIES, VECTORS, K, Rows, found_file
from benchmarks.work import say
from marquee.engine.index import ROUNDING
from marquee.features import Floats
from training.report.charts import Chart, styled, write_png

SIZES = (10_000, 100_000, 1_000_000)
# As `benchmarks.graphs` names them; it runs where the two libraries are, and cannot be imported here.
GRAPHS = ("hnswlib", "usearch f32", "usearch f16")
# A search that finds less is not compared: its lists are visibly not the nearest movies.
LEAST = 0.95
_LEVELS = (0.99, 1.0)
_SLOWER, _DEARER = 1.0, 1.1
_COLOURS = {OURS: "#1e63d0", BARE: "#56b4e9", HALF: "#009e73", "hnswlib": "#e69f00"}
_OTHERS = {"usearch f32": "#d55e00", "usearch f16": "#cc79a7"}


class Point(NamedTuple):
    """Is what a system does at one setting: recall@K, and milliseconds a search."""

    value: int
    recall: float
    ms: float


class System(NamedTuple):
    """Holds a system's curve over one size, and what its index costs."""

    name: str
    points: Sequence[Point]
    facts: Mapping[str, Any]


class Size(NamedTuple):
    """Holds all that was measured over so many movies; `rounds` are seconds of the systems in `paired`, in turn."""

    movies: int
    chosen: Mapping[str, Any]
    tuned: Point
    systems: Sequence[System]
    paired: Sequence[str]
    rounds: Sequence[Sequence[float]]


def milliseconds_at(points: Sequence[Point], recall: float) -> float | None:
    """Reads off a curve how long a search takes that finds so much, between two settings; None where none does."""
    able = [point for point in points if point.recall >= recall]
    if not able:
        return None
    above = min(able, key=lambda point: point.ms)
    below = [point for point in points if point.recall < recall and point.ms < above.ms]
    if not below:
        return above.ms
    under = max(below, key=lambda point: point.recall)
    share = (recall - under.recall) / (above.recall - under.recall)
    return float(under.ms * (above.ms / under.ms) ** share)


def frontier_ms(systems: Sequence[System], recall: float) -> tuple[str, float] | None:
    """Names the fastest system that finds so much, and its milliseconds; None where none does."""
    times = ((one.name, milliseconds_at(one.points, recall)) for one in systems)
    reached = [(name, ms) for name, ms in times if ms is not None]
    return min(reached, key=lambda one: one[1]) if reached else None


def recall_of(found_QK: Rows, vectors_ND: Floats, queries_QD: Floats) -> float:
    """Counts how many of the K nearest rows were found; what scores within rounding of the least of them counts."""
    shares = []
    for query_D, rows in zip(queries_QD, found_QK, strict=True):
        scores_N = vectors_ND @ query_D
        least = np.partition(scores_N, -K)[-K] - ROUNDING
        shares.append(np.count_nonzero(scores_N[rows[rows >= 0]] >= least) / K)
    return float(np.mean(shares))


def measure(
    folder: Path, processes: Processes, sizes: Sequence[int], environments: Path, picture: Path
) -> Iterator[Row]:
    """Makes vectors, an environment for the peers, and measures each size."""
    python = python_of("retrieval", environments)
    say(f"making {max(sizes):,} vectors")
    made = folder / "made"
    processes.run("benchmarks.chosen", "make", made, "--movies", str(max(sizes)))
    measured: list[Size] = []
    for movies in sizes:
        measured.append(_measure_size(folder / str(movies), made, movies, processes, python))
        yield from rows_of(measured[-1])
        draw(picture, measured)
    say(f"drew {picture}")


def _measure_size(folder: Path, made: Path, movies: int, processes: Processes, python: Path) -> Size:
    say(f"{movies:,} movies: building the chosen index")
    of = ("--made", made, "--movies", str(movies))
    report = _run(processes, "benchmarks.chosen", "build", folder, *of)
    spec = read_chosen(folder)
    systems = []
    for name in chosen.systems(spec):
        found = _run(processes, "benchmarks.chosen", "search", folder, "--system", name)
        systems.append(_system(folder, name, report | found))
    paired = _run(processes, "benchmarks.chosen", "pairs", folder)
    for name in GRAPHS:
        say(f"{movies:,} movies: {name}")
        facts = _run(processes, "benchmarks.graphs", "build", name, folder, python=python)
        facts |= _run(processes, "benchmarks.graphs", "search", name, folder, python=python)
        systems.append(_system(folder, name, facts))
    tuned = next(point for point in systems[0].points if point.value == chosen.chosen_value(spec))
    return Size(movies, report, tuned, systems, paired["systems"], paired["rounds"])


def _run(processes: Processes, module: str, *arguments: str | Path, python: str | Path = sys.executable) -> Any:
    return json.loads(processes.run(module, *arguments, cores=first_cores(1), python=python).stdout)


def _system(folder: Path, name: str, facts: dict[str, Any]) -> System:
    vectors_ND, queries_QD = np.load(folder / VECTORS), np.load(folder / QUERIES)
    points = []
    for point in facts.pop("points"):
        found_QK = np.load(found_file(folder, name, point["value"]))
        points.append(Point(point["value"], recall_of(found_QK, vectors_ND, queries_QD), point["ms"]))
    return System(name, points, facts)


def rows_of(size: Size) -> list[Row]:
    """Words what was measured over one size: both goals first."""
    return [_beside_frontier(size), *_over_bare(size), *(_cost(size, system) for system in size.systems)]


def _beside_frontier(size: Size) -> Row:
    """Is our latency against the fastest graph's at our recall; without a goal where none of them finds as much."""
    graphs = [system for system in size.systems if system.name in GRAPHS]
    measured = f"{_of(size)}: latency of the chosen index, of the fastest peer's that finds as much"
    fastest, tuned = frontier_ms(graphs, size.tuned.recall), size.tuned
    ours = f"{_chosen(size)}: recall@{K} {tuned.recall:.4f} in {tuned.ms:.3f} ms"
    if fastest is None:
        most = max((point.recall, -point.ms, one.name) for one in graphs for point in one.points)
        measured = f"{_of(size)}: latency of the chosen index, of the peer's that finds the most"
        beside = f"{ours}; no peer found as much at any setting tried, the most was {most[0]:.4f} by {most[2]}"
        return _row(measured, tuned.ms / -most[1], "×", None, f"{beside} in {-most[1]:.3f} ms")
    return _row(measured, tuned.ms / fastest[1], "×", _SLOWER, f"{ours}; {fastest[0]} {fastest[1]:.3f} ms")


def _over_bare(size: Size) -> list[Row]:
    rows = []
    for at, name in enumerate(size.paired[1:], start=1):
        ratios = [one[0] / one[at] for one in size.rounds]
        milliseconds = [1e3 * statistics.median(one[part] for one in size.rounds) for part in (0, at)]
        beside = (
            f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} pairs, {milliseconds[0]:.3f} and "
            f"{milliseconds[1]:.3f} ms; {_NOTES[name]}"
        )
        measured = f"{_of(size)}: a search by the chosen index, of {name}'s"
        goal = _DEARER if name == BARE else None
        rows.append(_row(measured, statistics.median(ratios), "×", goal, beside))
    return rows


_NOTES = {
    BARE: "the same file at the same setting; ours asks for more candidates, rescores them exactly and settles ties",
    HALF: "the copy that ours scans, whose answers are not exact",
}


def _cost(size: Size, system: System) -> Row:
    """Is what a search costs that finds LEAST, with the rest beside it."""
    facts, most = system.facts, max(point.recall for point in system.points)
    least = min(LEAST, most)
    times = ((recall, milliseconds_at(system.points, recall)) for recall in (least, *_LEVELS))
    at = {recall: ms for recall, ms in times if ms is not None}
    parts = [f"{recall:g} in {1e3 * at[recall]:.0f} µs" for recall in _LEVELS if recall in at]
    parts += [f"most {most:.4f}", f"file {facts['bytes'] / 1e6:.1f} MB", f"memory {facts['resident'] / 1e6:.1f} MB"]
    parts += [f"built in {facts['build_s']:.1f} s", f"opened in {facts['open_s']:.2f} s"]
    parts += [facts["version"]] if "version" in facts else []
    measured = f"{_of(size)}, {system.name}: a search that finds {least:.4g}"
    details = {**facts, "curve": [point._asdict() for point in system.points]}
    return _row(measured, 1e3 * at[least], "µs", None, "; ".join(parts), details)


def _row(
    measured: str, value: float, unit: str, goal: float | None, beside: str, details: Mapping[str, Any] | None = None
) -> Row:
    return Row("peers-retrieval", measured, value, unit, goal, beside, details or {})


def _of(size: Size) -> str:
    return f"{size.movies:,} × {DIMENSION}"


def _chosen(size: Size) -> str:
    parameters = ", ".join(f"{name} {value}" for name, value in size.chosen["parameters"].items())
    return f"{size.chosen['kind']}{f' ({parameters})' if parameters else ''}"


@styled
def draw(path: Path, sizes: Sequence[Size]) -> None:
    """Draws recall against latency, a panel a size and a line a system; a ring is the chosen index as it is tuned."""
    figure = Figure(figsize=(5.0 * len(sizes), 4.6), layout="constrained", facecolor="white")
    for panel, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        for system in size.systems:
            points = sorted(system.points, key=lambda point: point.ms)
            colour = (_COLOURS | _OTHERS)[system.name]
            panel.plot([p.ms for p in points], [p.recall for p in points], ".-", color=colour, label=system.name)
        panel.plot(size.tuned.ms, size.tuned.recall, "o", color=_COLOURS[OURS], markersize=12, fillstyle="none")
        panel.set(xscale="log", xlabel="milliseconds a search", ylabel=f"recall@{K}", title=_of(size))
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.axhline(LEAST, color="grey", linestyle=":", linewidth=0.8)
    lines = {line.get_label(): line for panel in figure.axes for line in panel.get_legend_handles_labels()[0]}
    figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=6)
    write_png(Chart(path.stem, "Recall against latency", figure), path.parent)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 0 also where a goal is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers_retrieval", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="movies (%(default)s)")
    out = Path("benchmarks/results/peers-retrieval.json")
    parser.add_argument("--out", type=Path, default=out, help="JSON to write, a picture beside it (%(default)s)")
    add_environments(parser)
    options = parser.parse_args(arguments)
    kept, picture = options.environments, options.out.with_suffix(".png")
    return run_standalone(
        options.out,
        "vectors of an item tower trained on 100,000 generated events; queries are held-out people",
        lambda folder, processes: measure(folder, processes, options.sizes, kept or folder / "environments", picture),
    )


if __name__ == "__main__":
    sys.exit(main())
