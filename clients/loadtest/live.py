"""What a terminal shows while it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from clients.loadtest.crew import Watch
from clients.loadtest.results import Book, Tick


@contextmanager
def progress(console: Console) -> Iterator[Watch]:
    """Shows a bar with the last tick's figures; nothing where the console is no terminal."""
    wanted, told = TextColumn("{task.description}"), TextColumn("{task.fields[told]}")
    columns = (wanted, BarColumn(24), TimeRemainingColumn(), told)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0, told="")
        seen = -1.0

        def watch(book: Book) -> None:
            nonlocal seen
            if book.second != seen:
                seen = book.second
                seconds = sum(stage.seconds for stage in book.stages)
                told = _figures(book.latest) if book.latest else ""
                bar.update(task, description=_load(book), completed=seen, total=seconds, told=told)

        yield watch


def _load(book: Book) -> str:
    if book.callers:
        return f"{book.callers} callers"
    left = book.second
    for stage in book.stages:
        if left < stage.seconds:
            return f"{stage.rate_at(left):,.0f}/s wanted"
        left -= stage.seconds
    return "last answers"


def _figures(tick: Tick) -> str:
    failed = sum(tick.errors.values())
    times = "" if tick.p50 is None else f"  p50 {tick.p50:.1f} p99 {tick.p99:.1f} ms"
    return f"{tick.ok:,.0f}/s answered{times}" + (f"  [red]{failed:,.0f}/s failed[/red]" if failed else "")
