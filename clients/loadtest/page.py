"""Writes a report as one page that asks nothing of any server."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clients.loadtest.charts import Chart, Mark, Point, Series, draw, number
from clients.loadtest.report import Report
from clients.loadtest.results import Figures, Tick, Times
from clients.loadtest.saturation import Saturation
from clients.loadtest.verdict import Outcome

_FOLDER = Path(__file__).parent
_MOODS = {
    Outcome.PASSED: "good",
    Outcome.MEASURED: "quiet",
    Outcome.FAILED: "bad",
    Outcome.CLIENT_LIMITED: "bad",
    Outcome.INTERRUPTED: "quiet",
}
_NINES = ((50.0, "50 %"), (90.0, "90 %"), (99.0, "99 %"), (99.9, "99.9 %"), (99.99, "99.99 %"), (99.999, "99.999 %"))
_COLOURS = ("a", "b", "c", "d", "e", "f")
_MANY = 10
_COMPARED = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "max"}


def render(report: Report, earlier: dict[str, Any] | None) -> str:
    """Writes the page; an earlier report stands beside the figures where one is given."""
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters.update(ms=_ms, number=number, share=_share, moment=_moment)
    return environment.get_template("page.html").render(
        report=report,
        earlier=earlier,
        mood=_MOODS[report.verdict.outcome],
        charts=_charts(report, earlier),
        changes=_changes(report, earlier) if earlier else [],
        longest=max((stage.count * stage.mean_ms for stage in report.server), default=1.0),
        style=Markup((_FOLDER / "page.css").read_text("utf-8")),
    )


def _charts(report: Report, earlier: dict[str, Any] | None) -> dict[str, Markup]:
    ticks = report.timeline
    drawn = {
        "percentiles": _percentiles(report, earlier),
        "latency": _latency(ticks),
        "rate": _rate(ticks),
        "lag": _lag(ticks),
        "cpu": _cpu(ticks),
    }
    if any(tick.errors for tick in ticks):
        drawn["errors"] = _errors(ticks)
    if report.saturation is not None and report.saturation.attempts:
        drawn["saturation"] = _saturation(report.saturation)
    return {name: draw(chart) for name, chart in drawn.items()}


def _percentiles(report: Report, earlier: dict[str, Any] | None) -> Chart:
    series = [
        Series("from when it was due", _nines(report.curve), "a"),
        Series("from when it was sent", _nines(report.service_curve), "b"),
    ]
    if earlier:
        series.append(Series("earlier run, from when it was due", _nines(earlier["curve"]), "quiet", dashed=True))
    highest = max((each for one in series for each, _ in one.points), default=1.0)
    ticks = [(_nine(each), label) for each, label in _NINES if _nine(each) <= highest]
    return Chart("Latency by percentile", "calls that were answered as fast", "ms", series, log=True, x_ticks=ticks)


def _nines(curve: Iterable[Sequence[float]]) -> list[Point]:
    return [(_nine(percentile), value) for percentile, value in curve if percentile >= _NINES[0][0]]


def _nine(percentile: float) -> float:
    return -math.log10(1 - percentile / 100)


def _latency(ticks: Sequence[Tick]) -> Chart:
    lines = {"max": ("quiet", True), "p99": ("a", False), "p90": ("b", False), "p50": ("c", False)}
    series = [
        Series(name, [(tick.at_s, getattr(tick, name)) for tick in ticks], colour, dashed)
        for name, (colour, dashed) in lines.items()
    ]
    return Chart("Latency over time", "seconds", "ms", series, log=True)


def _rate(ticks: Sequence[Tick]) -> Chart:
    # What was answered lies over what was sent: where all is well they are one line.
    series = [
        Series("sent", [(tick.at_s, tick.sent) for tick in ticks], "b"),
        Series("answered", [(tick.at_s, tick.ok) for tick in ticks], "a"),
    ]
    if any(tick.wanted is not None for tick in ticks):
        series.append(Series("wanted", [(tick.at_s, tick.wanted) for tick in ticks], "quiet", dashed=True))
    return Chart("Rate wanted and achieved", "seconds", "calls/s", series)


def _errors(ticks: Sequence[Tick]) -> Chart:
    codes = sorted({code for tick in ticks for code in tick.errors})
    series = [
        Series(code, [(tick.at_s, tick.errors.get(code, 0.0)) for tick in ticks], _COLOURS[place % len(_COLOURS)])
        for place, code in enumerate(codes)
    ]
    return Chart("Errors by code", "seconds", "calls/s", series)


def _lag(ticks: Sequence[Tick]) -> Chart:
    series = [Series("p99", [(tick.at_s, tick.lag_p99) for tick in ticks], "a")]
    return Chart("Send lag: how much later calls went out than they were due (p99)", "seconds", "ms", series)


def _cpu(ticks: Sequence[Tick]) -> Chart:
    count = max((len(tick.cpu) for tick in ticks), default=0)
    series = [
        Series(
            f"process {process + 1}",
            [(tick.at_s, 100 * tick.cpu[process] if process < len(tick.cpu) else None) for tick in ticks],
            _COLOURS[process % len(_COLOURS)],
        )
        for process in range(count)
    ]
    return Chart("CPU of the load tester's processes", "seconds", "% of a core", series, marks=[Mark(100, "one core")])


def _saturation(found: Saturation) -> Chart:
    tried = [one for one in found.attempts if one.value is not None]
    held = [(one.wanted, one.value) for one in tried if one.held]
    missed = [(one.wanted, one.value) for one in tried if not one.held]
    marks = [Mark(found.objective_ms, found.objective)]
    if found.best is not None:
        marks.append(Mark(found.best, f"knee: {found.best:,.0f}/s", upright=True))
    series = [
        Series("tried", [(one.wanted, one.value) for one in tried], "quiet", dashed=True),
        Series("held", held, "good", dots=True),
        Series("missed", missed, "bad", dots=True),
    ]
    return Chart("Latency by rate", "calls a second wanted", "ms", series, log=True, marks=marks)


def _changes(report: Report, earlier: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    now, then = report.total, earlier["total"]
    rows = [("answered a second", then["rate"], now.rate, "")]
    rows.append(("failed", 100 * then["error_share"], 100 * now.error_share, " %"))
    if now.latency and then["latency"]:
        rows += [(label, then["latency"][name], getattr(now.latency, name), " ms") for name, label in _COMPARED.items()]
    if report.saturation and earlier["saturation"] and report.saturation.best and earlier["saturation"]["best"]:
        rows.append(("highest rate that held", earlier["saturation"]["best"], report.saturation.best, "/s"))
    return [(name, f"{number(old)}{unit}", f"{number(new)}{unit}", _change(old, new)) for name, old, new, unit in rows]


def _change(old: float, new: float) -> str:
    if not old:
        return "–"
    # Ten times as much reads better than 900 % more.
    return f"{(new - old) / old:+.1%}" if new < _MANY * old else f"× {number(new / old)}"


def _moment(text: str) -> str:
    return dt.datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")


def _ms(times: Times | None, name: str) -> str:
    return "–" if times is None else number(getattr(times, name))


def _share(figures: Figures) -> str:
    return f"{figures.error_share:.2%}"
