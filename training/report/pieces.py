"""What several sections of the page are made of."""

from __future__ import annotations

from collections.abc import Sequence

from marquee.bundle.v1 import bundle_pb2
from training.report import charts, palette
from training.report.charts import Chart
from training.report.markup import Html, element, joined
from training.report.study import Study
from training.report.verdict import bounds, number

PROTOCOLS = {
    "last": "each person's last event, from everything before it",
    "users": "people that training never saw: from 80 % of their events, the rest",
    "time": "everything after one moment, from everything before it",
}
TARGETS = {"all": "all targets", "liked": "liked targets"}
SHOWN = {
    "last": ("recall@10", "recall@20", "recall@50", "ndcg@10", "ndcg@100", "mrr@10"),
    "users": ("recall@20", "recall@50", "recall@100", "ndcg@10", "ndcg@100", "mrr@10"),
    "time": ("recall@10", "recall@20", "recall@50", "ndcg@10", "ndcg@100", "mrr@10"),
}


def percent(value: float) -> str:
    """Writes a share in percent."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def chart_name(*parts: str) -> str:
    """Names a chart by its parts."""
    return "-".join("".join(letter if letter.isalnum() else "-" for letter in part) for part in parts)


def side_by_side(drawn: dict[str, Chart], names: Sequence[str]) -> Html:
    """Shows the charts that were drawn beside each other."""
    found = [charts.svg(drawn[name]) for name in names if name in drawn]
    return element("div", *found, class_="charts") if found else Html("")


def ranked(study: Study, protocol: str, targets: str) -> list[str]:
    """Lists the systems that were measured, by the protocol's first figure."""
    first = {one: study.figure(one, protocol, targets, SHOWN[protocol][0]) for one in study.systems}
    found = {system: figure.value for system, figure in first.items() if figure is not None}
    return sorted(found, key=lambda system: -found[system])


def figure_cell(figure: bundle_pb2.Metric | None, best: float) -> Html:
    """Shows a figure above its interval, marked where it is the best."""
    if figure is None:
        return Html("–")
    value = element("b", number(figure.value), class_="best") if figure.value == best else Html(number(figure.value))
    interval = bounds(figure)
    return joined([value, element("small", interval)]) if interval else value


def system_name(name: str, study: Study) -> Html:
    """Shows a system with its colour, and whether it is the default."""
    default = [element("small", "default")] if name == study.choice.tower else []
    return joined([swatched(name), *default])


def swatched(name: str) -> Html:
    """Shows a system with its colour."""
    swatch = element("i", class_="swatch", style=f"background:var(--{palette.variable(name)})", aria_hidden="true")
    return joined([swatch, palette.system(name).label])
