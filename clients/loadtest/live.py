"""What a terminal shows while it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from clients.loadtest.crew import Run, Watch
from clients.loadtest.tally import milliseconds, total


@contextmanager
def progress(console: Console) -> Iterator[Watch]:
    """Shows a bar with the last tick's figures; nothing where the console is no terminal."""
    wanted, told = TextColumn("{task.description}"), TextColumn("{task.fields[told]}")
    columns = (wanted, BarColumn(24), TimeRemainingColumn(), told)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0, told="")
        seen = -1.0

        def watch(run: Run) -> None:
            nonlocal seen
            second = min((told[-1].second if told else 0.0) for told in run.snapshots)
            if second != seen and not bar.disable:
                seen = second
                seconds = sum(stage.seconds for stage in run.stages)
                bar.update(task, description=_load(run, second), completed=second, total=seconds, told=_figures(run))

        yield watch


def _load(run: Run, second: float) -> str:
    if run.callers:
        return f"{run.callers} callers"
    left = second
    for stage in run.stages:
        if left < stage.seconds:
            return f"{stage.rate_at(left):,.0f}/s wanted"
        left -= stage.seconds
    return "last answers"


def _figures(run: Run) -> str:
    last = [told[-1] for told in run.snapshots if told]
    tally = total(part.tally for one in last for part in one.parts)
    seconds = max((one.wall_s for one in last), default=1.0)
    failed = tally.calls - tally.ok
    latency = f"p50 {milliseconds(tally.latency, 50):.1f} p99 {milliseconds(tally.latency, 99):.1f} ms"
    return f"{tally.ok / seconds:,.0f}/s answered  {latency}" + (f"  [red]{failed:,} failed[/red]" if failed else "")
