"""The charts, drawn once with matplotlib and written twice: as SVG in the page's colours, and as PNG.

Every chart is narrow enough to be read on a phone; the page lays them side by side where there is room.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator

from marquee.bundle.v1 import bundle_pb2
from training.report import palette
from training.report.markup import Html, element
from training.report.study import Curve, Difference, Slice
from training.report.verdict import TOWERS, number, signed

P = ParamSpec("P")
R = TypeVar("R")
WIDTH_IN, PNG_DPI = 4.5, 160
HALO = "halo"
_INK = {name: colour.light for name, colour in palette.INK.items()}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelcolor": _INK["quiet"],
    "axes.edgecolor": _INK["rule"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _INK["rule"],
    "grid.linewidth": 0.6,
    "text.color": _INK["text"],
    "xtick.color": _INK["quiet"],
    "ytick.color": _INK["quiet"],
    "legend.frameon": False,
    "figure.facecolor": "none",
}


class Chart(NamedTuple):
    """Is a drawn chart: the name of its file, what it shows in words, and the figure.

    `tips` are what the points of a group say when they are pointed at, by the group's id.
    """

    name: str
    alt: str
    figure: Figure
    tips: dict[str, list[str]] = {}  # noqa: RUF012 - never written to


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Makes a function draw in the house's style, whatever matplotlib is set to outside."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return inside


def canvas(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """Makes an empty figure with one pair of axes."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.add_subplot()


@styled
def write_png(chart: Chart, folder: Path) -> Path:
    """Writes the chart in the day's colours, with a halo around labels that lie on points."""
    path = folder / f"{chart.name}.png"
    halo: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground=_INK["paper"])]
    on_points = chart.figure.findobj(lambda artist: artist.get_gid() == HALO)
    for text in on_points:
        text.set_path_effects(halo)
    chart.figure.savefig(path, dpi=PNG_DPI, facecolor=_INK["paper"], metadata={"Software": None})
    for text in on_points:
        text.set_path_effects([])  # in an SVG they would turn letters into outlines
    return path


@styled
def svg(chart: Chart, *, class_: str = "") -> Html:
    """Writes the chart as an inline picture whose colours are the page's variables."""
    stream = io.StringIO()
    mpl.rcParams["svg.hashsalt"] = chart.name
    chart.figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = _with_tips(_inline(stream.getvalue(), chart.name), chart)
    width_px = f"{chart.figure.get_figwidth() * 110:.0f}px"
    head = f'<svg role="img" aria-label="{_attribute(chart.alt)}" style="max-width:{width_px}" '
    return element("figure", Html(text.replace("<svg ", head, 1)), class_=f"chart {class_}".strip())


def _with_tips(text: str, chart: Chart) -> str:
    """Gives each point of a group its title; a group's points are its `use` elements, in the order of the data."""
    for group, tips in chart.tips.items():
        head, mark, rest = text.partition(f'id="{chart.name}-{group}"')
        before, *points = rest.split("<use ", len(tips))
        titled = [
            point.replace("/>", f"><title>{_attribute(tip)}</title></use>", 1)
            for tip, point in zip(tips, points, strict=True)
        ]
        text = head + mark + "<use ".join([before, *titled])
    return text


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _inline(text: str, name: str) -> str:
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"([^>]*?) width="[^"]*"', r"\1\2", text, count=1)
    # An id must be there once in a page; matplotlib numbers its own anew in every figure.
    text = re.sub(rf'(?<=\bid=")(?!{HALO}")', f"{name}-", text)
    text = re.sub(r'(?<=url\(#)|(?<=href="#)', f"{name}-", text)
    text = text.replace(f'id="{HALO}"', f'class="{HALO}"').replace("'DejaVu Sans'", "inherit")
    for variable, colour in palette.variables().items():
        text = text.replace(colour.light, f"var(--{variable})")
    return text


@styled
def whiskers(name: str, title: str, figures: Sequence[bundle_pb2.Metric], chosen: str) -> Chart:
    """Draws a figure of all systems with their intervals, best first."""
    ordered = sorted(figures, key=lambda one: one.value)
    figure, axes = canvas(WIDTH_IN, 0.9 + 0.3 * len(ordered))
    for place, one in enumerate(ordered):
        drawn = palette.system(one.system)
        low, high = (one.low, one.high) if one.HasField("low") else (one.value, one.value)
        axes.plot([low, high], [place, place], color=drawn.colour.light, linewidth=2.2, solid_capstyle="round")
        size = 8 if one.system in TOWERS else 6
        axes.plot(one.value, place, drawn.marker, color=drawn.colour.light, markersize=size)
        axes.annotate(
            number(one.value), (1.02, place), xycoords=("axes fraction", "data"), va="center", annotation_clip=False
        )
    _name_rows(axes, [one.system for one in ordered], chosen)
    axes.set_title(title)
    axes.grid(axis="y", visible=False)
    told = "; ".join(f"{palette.system(one.system).label} {number(one.value)}" for one in reversed(ordered))
    return Chart(name, f"{title}, best first: {told}.", figure)


def _name_rows(axes: Axes, systems: list[str], chosen: str) -> None:
    axes.set_yticks(range(len(systems)), [_wrapped(palette.system(name).label) for name in systems])
    axes.set_ylim(-0.6, len(systems) - 0.4)
    axes.tick_params(axis="y", length=0)
    for label, name in zip(axes.get_yticklabels(), systems, strict=True):
        label.set_color(_INK["text"])
        label.set_fontweight("bold" if name == chosen else "normal")


def _wrapped(label: str) -> str:
    """Breaks a long label near its middle."""
    if len(label) <= 22:
        return label
    spaces = [place for place, letter in enumerate(label) if letter == " "]
    middle = min(spaces, key=lambda place: abs(place - len(label) / 2), default=0)
    return f"{label[:middle]}\n{label[middle + 1 :]}" if middle else label


@styled
def forest(name: str, title: str, differences: Sequence[Difference]) -> Chart:
    """Draws paired differences around zero: a row a baseline, a dot a tower."""
    others = list(dict.fromkeys(one.against for one in differences))[::-1]
    towers = list(dict.fromkeys(one.system for one in differences))
    figure, axes = canvas(WIDTH_IN, 1.2 + 0.42 * len(others))
    axes.axvline(0, color=_INK["quiet"], linewidth=1)
    for one in differences:
        drawn = palette.system(one.system)
        at = others.index(one.against) + 0.13 * (len(towers) - 1 - 2 * towers.index(one.system))
        axes.plot([one.low, one.high], [at, at], color=drawn.colour.light, linewidth=2.2, solid_capstyle="round")
        axes.plot(one.value, at, drawn.marker, color=drawn.colour.light, markersize=6, label=drawn.label)
    _name_rows(axes, others, "")
    axes.set_title(title)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: signed(value) if value else "0")
    _legend(axes)
    told = "; ".join(
        f"{palette.system(one.system).label} against {palette.system(one.against).label} {signed(one.value)}"
        for one in differences
    )
    return Chart(name, f"{title}, paired: {told}.", figure)


@styled
def learning(name: str, title: str, curves: Sequence[Curve], field: str) -> Chart:
    """Draws a field of `Pass` over the passes: one line a seed, a dot where the towers were kept."""
    figure, axes = canvas(WIDTH_IN, 3.2)
    for curve in curves:
        drawn = palette.system(curve.tower)
        values = [float(getattr(one, field)) for one in curve.passes]
        seen = curve.tower in [line.get_label() for line in axes.lines]
        label = "_" if seen else drawn.label
        axes.plot(range(1, len(values) + 1), values, color=drawn.colour.light, linewidth=1.4, alpha=0.85, label=label)
        if values:
            axes.plot(curve.best + 1, values[curve.best], "o", color=drawn.colour.light, markersize=6)
    axes.set_title(title)
    axes.set_xlabel("passes over the data")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return Chart(name, f"{title} by pass, one line a seed; " + _curves_told(curves, field), figure)


def _curves_told(curves: Sequence[Curve], field: str) -> str:
    kept = [
        f"{palette.system(one.tower).label} seed {one.seed} keeps pass {one.best + 1} at "
        f"{float(getattr(one.passes[one.best], field)):.3f}"
        for one in curves
        if one.passes
    ]
    return "; ".join(kept) + "."


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if len(unique) == 1:
        return
    axes.figure.legend(unique.values(), unique.keys(), loc="outside lower left", ncols=2, labelcolor=_INK["text"])


@styled
def slices(name: str, title: str, parts: Sequence[Slice]) -> Chart:
    """Draws a figure of each slice: one line a system, with intervals, and how many queries each slice has."""
    labels = list(dict.fromkeys(part.label for part in parts))
    systems = list(dict.fromkeys(part.figure.system for part in parts))
    counts = {part.label: part.figure.n for part in parts}
    figure, axes = canvas(WIDTH_IN, 3.5)
    for number_, system in enumerate(systems):
        drawn, shift = palette.system(system), (number_ - (len(systems) - 1) / 2) * 0.13
        mine = {part.label: part.figure for part in parts if part.figure.system == system}
        at = [place + shift for place, label in enumerate(labels) if label in mine]
        figures = [mine[label] for label in labels if label in mine]
        spread = [[max(one.value - one.low, 0) for one in figures], [max(one.high - one.value, 0) for one in figures]]
        axes.errorbar(
            at,
            [one.value for one in figures],
            yerr=spread,
            fmt=drawn.marker,
            color=drawn.colour.light,
            markersize=6,
            linewidth=1.6,
            label=drawn.label,
        )
    size = None if len(labels) <= 7 else 7.2
    axes.set_xticks(range(len(labels)), [f"{label}\nn {counts[label]:,}" for label in labels], fontsize=size)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
    axes.set_title(title)
    _legend(axes)
    told = "; ".join(
        f"{part.label} {palette.system(part.figure.system).label} {number(part.figure.value)}" for part in parts
    )
    return Chart(name, f"{title}: {told}.", figure)
