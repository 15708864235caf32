"""Draws the page's charts as SVG. A plotting library takes longer to import than Ctrl-C may take to end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 44
_STEPS = (1, 2, 5, 10)
_CHARACTER = 6.2

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """Is a line of a chart; a point without a value leaves a gap. `colour` is a CSS variable of the page.

    `dots` draws points in place of a line, `steps` holds each value until the next, `dashed` is for what was wanted.
    """

    label: str
    points: Sequence[Point]
    colour: str
    dashed: bool = False
    dots: bool = False
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Is a straight line across a chart with a word beside it."""

    at: float
    label: str
    upright: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Is what to draw; `x_ticks` names places on the axis, where numbers would not do."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log: bool = False
    x_ticks: Sequence[tuple[float, str]] = ()
    marks: Sequence[Mark] = ()


class _Axis:
    """Maps values to places of the picture."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool, zero: bool) -> None:
        self._start, self._end, self._log = start, end, log
        positive = [value for value in values if value > 0] if log else list(values)
        low, high = min(positive, default=0.1 if log else 0.0), max(positive, default=1.0)
        self.low, self.high = _log_range(low, high) if log else _linear_range(0.0 if zero else low, high)

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self._log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return self._start + (at - low) / (high - low) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Lists values to write at the axis."""
        return _log_ticks(self.low, self.high) if self._log else _linear_ticks(self.low, self.high)


def draw(chart: Chart) -> Markup:
    """Draws a chart with its legend; says so where there is nothing to draw."""
    xs = [x for series in chart.series for x, y in series.points if y is not None]
    ys = [y for series in chart.series for _, y in series.points if y is not None]
    if not xs:
        return Markup('<figure><figcaption>{}</figcaption><p class="note">Nothing to draw.</p></figure>').format(
            chart.title
        )
    upright = [mark.at for mark in chart.marks if mark.upright]
    level = [mark.at for mark in chart.marks if not mark.upright]
    x = _Axis([*xs, *upright], _LEFT, _WIDTH - _RIGHT, log=False, zero=not chart.x_ticks)
    y = _Axis([*ys, *level], _HEIGHT - _BOTTOM, _TOP, log=chart.log, zero=True)
    body = Markup("").join([*_grid(chart, x, y), *_marks(chart, x, y), *(_series(one, x, y) for one in chart.series)])
    return Markup(
        '<figure><figcaption>{}</figcaption><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>{}</figure>'
    ).format(chart.title, _WIDTH, _HEIGHT, _described(chart), body, _legend(chart))


def number(value: float) -> str:
    """Writes a number as an axis or a table shows it."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _grid(chart: Chart, x: _Axis, y: _Axis) -> Iterator[Markup]:
    for value in y.ticks():
        yield _line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), "grid")
        yield _text(_LEFT - 7, y(value) + 4, number(value), "end")
    for at, label in chart.x_ticks or [(value, number(value)) for value in x.ticks()]:
        yield _line(x(at), _HEIGHT - _BOTTOM, x(at), _HEIGHT - _BOTTOM + 4, "axis")
        yield _text(x(at), _HEIGHT - _BOTTOM + 18, label, "middle")
    yield _line(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, "axis")
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, chart.x_label, "middle")
    yield Markup('<text transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
        (_TOP + _HEIGHT - _BOTTOM) // 2, chart.y_label
    )


def _marks(chart: Chart, x: _Axis, y: _Axis) -> Iterator[Markup]:
    for mark in chart.marks:
        if mark.upright:
            at = x(mark.at)
            # On whichever side there is room.
            anchor, gap = ("start", 5) if at + _CHARACTER * len(mark.label) < _WIDTH - _RIGHT else ("end", -5)
            yield _line(at, _TOP, at, _HEIGHT - _BOTTOM, "mark")
            yield _text(at + gap, _TOP + 11, mark.label, anchor, "marked")
        else:
            yield _line(_LEFT, y(mark.at), _WIDTH - _RIGHT, y(mark.at), "mark")
            yield _text(_LEFT + 6, y(mark.at) - 5, mark.label, "start", "marked")


def _series(series: Series, x: _Axis, y: _Axis) -> Markup:
    if series.dots:
        dots = Markup("").join(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4.5"><title>{}: {}</title></circle>').format(
                x(at), y(value), number(at), number(value)
            )
            for at, value in series.points
            if value is not None
        )
        return Markup('<g style="fill:var(--{})">{}</g>').format(series.colour, dots)
    style = f"stroke:var(--{series.colour}){';stroke-dasharray:6 4' if series.dashed else ''}"
    return Markup('<path class="line" d="{}" style="{}"/>').format(_path(series, x, y), style)


def _path(series: Series, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    words: list[str] = []
    pen_down = False
    for at, value in series.points:
        if value is None:
            pen_down = False
            continue
        across, up = x(at), y(value)
        if pen_down and series.steps:
            words.append(f"H{across:.1f}V{up:.1f}")
        else:
            words.append(f"{'L' if pen_down else 'M'}{across:.1f} {up:.1f}")
            if not pen_down:
                # A point between two gaps is still seen.
                words.append("h0.01")
        pen_down = True
    return "".join(words)


def _legend(chart: Chart) -> Markup:
    if len(chart.series) < 2:
        return Markup("")
    items = Markup("").join(
        Markup('<li><span class="key{}" style="--key:var(--{})"></span>{}</li>').format(
            " dashed" if series.dashed else " dot" if series.dots else "", series.colour, series.label
        )
        for series in chart.series
    )
    return Markup('<ul class="legend">{}</ul>').format(items)


def _described(chart: Chart) -> str:
    return f"{chart.title}: {', '.join(series.label for series in chart.series)}; {chart.x_label}, {chart.y_label}"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, escape(text)
    )


def _linear_range(low: float, high: float) -> tuple[float, float]:
    if high <= low:
        return low, low + (abs(low) or 1.0)
    return low, high + (high - low) * 0.04


def _log_range(low: float, high: float) -> tuple[float, float]:
    return low / 1.25, max(high * 1.25, low * 2)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    scale = 10 ** math.floor(math.log10(rough))
    step = next(scale * one for one in _STEPS if scale * one >= rough * 0.999)
    return [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if len(decades) > 4 else (1, 2, 5)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
