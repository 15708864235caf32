"""Pictures of a run: its ratios with their ranges, and where the time of a call goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Row
from training.report.charts import Chart, canvas, styled, write_png
from training.report.palette import INK

_BLUE, _GREY = "#1e63d0", INK["quiet"].light
# Told apart by people who are colour-blind, too (Okabe and Ito).
_COLOURS = ("#9aa5b3", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00")
_ROW_IN = 0.34


@styled
def draw_ratios(path: Path, rows: Sequence[Row]) -> bool:
    """Draws the ratios in pairs, median and range, with their goals; says whether there were any."""
    drawn = [row for row in rows if row.readings and row.unit == "×"]
    if not drawn:
        return False
    figure, axes = canvas(9.5, 1.2 + _ROW_IN * len(drawn))
    for at, row in enumerate(drawn):
        axes.plot([min(row.readings), max(row.readings)], [at, at], color=_BLUE, linewidth=5, alpha=0.35)
        axes.plot(row.value, at, "o", color=_BLUE if row.met is not False else INK["bad"].light)
        if row.goal is not None:
            axes.plot(row.goal, at, "|", color=_GREY, markersize=14)
    axes.axvline(1.0, color=_GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(drawn)), [row.measured for row in drawn], fontsize=8)
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.set_xlabel("×; dots are medians, bars ranges of pairs, strokes goals; red is missed")
    write_png(Chart(path.stem, "Ratios of this run", figure), path.parent)
    return True


@styled
def draw_profile(path: Path, rows: Sequence[Row]) -> bool:
    """Draws where the time of calls goes, a bar of parts for each row that has them; says whether there were any.

    What noise made negative is drawn as nothing.
    """
    drawn = [row for row in rows if row.parts]
    if not drawn:
        return False
    stacks = {row.measured: row.parts for row in drawn}
    parts = list(dict.fromkeys(part for row in drawn for part in row.parts))
    figure, axes = canvas(9.5, 1.6 + 0.5 * len(stacks))
    left = dict.fromkeys(stacks, 0.0)
    for part, colour in zip(parts, _COLOURS, strict=False):
        widths = [max(0.0, stack.get(part, 0.0)) for stack in stacks.values()]
        axes.barh(list(stacks), widths, left=list(left.values()), color=colour, height=0.62, label=part)
        left = {name: start + width for (name, start), width in zip(left.items(), widths, strict=True)}
    for at, row in enumerate(drawn):
        end = (left[row.measured], at)
        axes.annotate(f"{row.value:,.0f}", end, xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.08 * max(left.values()))
    axes.invert_yaxis()
    axes.set(title="Where the time goes", xlabel="µs of CPU")
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=3)
    write_png(Chart(path.stem, "Where the time goes", figure), path.parent)
    return True
