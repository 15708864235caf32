"""The pictures of `make bench-growth`: a PNG for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.machine import QUIET_LOAD

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_SIZE = (10, 4.2)
_DPI = 110


def draw(folder: Path, report: Mapping[str, Any]) -> list[Path]:
    """Draws the parts that were measured; returns the files."""
    parts = {"movies": _movies, "users": _users, "histories": _histories, "replicas": _replicas}
    drawn = []
    for name, fill in parts.items():
        if name in report:
            figure, axes = plt.subplots(1, 2, figsize=_SIZE, layout="constrained")
            fill(report[name], *axes)
            if report["load"] > QUIET_LOAD:
                figure.suptitle("NOT QUIET: something else was running; do not quote", color="tab:red")
            drawn.append(folder / f"growth-{name}.png")
            figure.savefig(drawn[-1], dpi=_DPI)
            plt.close(figure)
    return drawn


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], at: str, values: Sequence[float], label: str) -> None:
    axes.plot([row[at] for row in rows], values, marker="o", markersize=4, label=label)


def _finish(axes: Axes, title: str, across: str, up: str, *, logarithmic: bool = True) -> None:
    scale = "log" if logarithmic else "linear"
    axes.set(title=title, xlabel=across, ylabel=up, xscale=scale, yscale=scale)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _alone(rows: Sequence[Mapping[str, Any]], percent: int) -> list[float]:
    return [row["alone_ms"][percent] for row in rows]


def _movies(found: Mapping[str, Any], time: Axes, memory: Axes) -> None:
    rows = found["rows"]
    _line(time, rows, "movies", _alone(rows, 99), "Search rpc, p99")
    _line(time, rows, "movies", _alone(rows, 50), "Search rpc, p50")
    _line(time, rows, "movies", [row["exact_latency_ms"] for row in rows], "every vector, in process")
    _line(time, rows, "movies", [row["latency_ms"] for row in rows], "the kind that the export chose, in process")
    _finish(time, f"Search, {found['dimension']} dimensions", "movies", "milliseconds")
    _line(memory, rows, "movies", [row["resident_bytes"] / 1e6 for row in rows], "retriever, resident")
    _line(memory, rows, "movies", [row["bytes"] / 1e6 for row in rows], "file of the index")
    _finish(memory, "Memory, one bundle", "movies", "MB")


def _users(found: Mapping[str, Any], size: Axes, time: Axes) -> None:
    for store, name, colour in (("sqlite", "SQLite", "tab:blue"), ("redis", "Redis", "tab:red")):
        *rows, _ = found[store]
        *_, last, beyond = found[store]
        for axes, of, label in (
            (size, "bytes", name),
            (time, "p50_ms", f"{name}, p50"),
            (time, "p99_ms", f"{name}, p99"),
        ):
            unit = 1e6 if of == "bytes" else 1
            style: dict[str, Any] = {"color": colour, "alpha": 0.5 if of == "p99_ms" else 1.0, "markersize": 4}
            axes.plot(
                [row["people"] for row in rows], [row[of] / unit for row in rows], marker="o", label=label, **style
            )
            ends = [row["people"] for row in (last, beyond)], [row[of] / unit for row in (last, beyond)]
            axes.plot(*ends, linestyle=":", marker="x", **style)
    _finish(size, f"People of {found['events']} events; dotted: extrapolated", "people", "MB")
    _finish(time, "Reading one of them, in process", "people", "milliseconds")


def _histories(found: Mapping[str, Any], time: Axes, core: Axes) -> None:
    for tower, told in found["towers"].items():
        rows = told["rows"]
        _line(time, rows, "events", _alone(rows, 50), f"{tower}, p50")
        _line(time, rows, "events", _alone(rows, 99), f"{tower}, p99")
        _line(core, rows, "events", [1e3 / row["calls_per_s"] for row in rows], tower)
    _finish(time, "Encode by id, one call at a time", "events of a person", "milliseconds")
    _finish(core, "Encode by id, full core", "events of a person", "milliseconds of the core a call")


def _replicas(found: Mapping[str, Any], time: Axes, good: Axes) -> None:
    rows = found["rows"]
    for axes, name, colour in (
        (time, "p50_ms", "tab:blue"),
        (time, "p99_ms", "tab:red"),
        (good, "goodput", "tab:green"),
    ):
        what = name.removesuffix("_ms")
        loads = [row["load"] for row in rows]
        axes.plot(loads, [row["measured"][name] for row in rows], "o", color=colour, label=f"{what}, measured")
        simulated = [row["simulated"][name] for row in rows]
        axes.plot(loads, simulated, "x--", color=colour, label=f"{what}, simulated")
        low, high = zip(*(row["simulated_range"][name] for row in rows), strict=True)
        axes.fill_between(loads, low, high, color=colour, alpha=0.15)
    _finish(
        time, "Two encoders, calls that were answered", "calls, of what both can", "milliseconds", logarithmic=False
    )
    _finish(good, "Answered within the deadline", "calls, of what both can", "of all calls", logarithmic=False)
    good.set_ylim(0, 1.05)
