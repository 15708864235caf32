"""What stands in the terminal at the end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from clients.loadtest.charts import number
from clients.loadtest.report import Report
from clients.loadtest.results import Figures

_HEAD = ("", "wanted", "answered/s", "failed", "p50", "p90", "p99", "p99.9", "max ms", "lag", "CPU")
_TIMES = ("p50", "p90", "p99", "p999", "max")


def print_summary(report: Report, console: Console) -> None:
    """Prints what counts of a report: its stages, its limits, and what it came to."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in _HEAD:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for stage in report.stages:
        name = stage.name if stage.role == "measured" else stage.role
        table.add_row(name, *_row(stage.figures, stage.wanted), f"{stage.cpu:.0%}")
    console.print(table)
    for code, told in report.failures.items():
        console.print(f"{code}: {' '.join(told.split())}", highlight=False, markup=False)
    for note in report.notes:
        console.print(note, highlight=False, markup=False)
    for one in report.judged:
        state = "OVER" if one.failed else "kept"
        console.print(f"{state}  --fail-if {one.condition}: {one.measured}", highlight=False, markup=False)
    outcome, told = report.verdict.outcome, report.verdict.sentence
    console.print(f"{outcome}: {told}", highlight=False, markup=False, style="bold", soft_wrap=True)


def _row(figures: Figures, wanted: float | None) -> list[str]:
    times = [number(getattr(figures.latency, name)) if figures.latency else "–" for name in _TIMES]
    lag = number(figures.lag.p99) if figures.lag else "–"
    wanted_text = "–" if wanted is None else number(wanted)
    return [wanted_text, number(figures.rate), f"{figures.error_share:.2%}", *times, lag]
