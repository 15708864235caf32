"""The sections of the page that show figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from marquee.bundle.v1 import bundle_pb2
from training.report import charts, palette
from training.report.charts import Chart
from training.report.markup import Html, details, element, joined, paragraph, section, table
from training.report.pieces import (
    PROTOCOLS,
    SHOWN,
    TARGETS,
    chart_name,
    figure_cell,
    percent,
    ranked,
    side_by_side,
    swatched,
    system_name,
)
from training.report.study import Difference, Study
from training.report.verdict import TOWERS, baselines, number, signed

_DRAWN = {
    "last": ("recall@10", "ndcg@10"),
    "users": ("recall@20", "ndcg@100"),
    "time": ("recall@10", "ndcg@10"),
}
_SLICED, _LEAST_IN_SLICE = ("last", "users"), 10
_RANKING = ("recall", "ndcg", "mrr")
_BEYOND = {
    "coverage@10": "share of the catalogue that stands in anybody's first ten",
    "distinct_lists@10": "number of different first tens, whatever their order, a person",
    "popularity_bias@10": "popularity of what is shown less that of the history, in bits: 1 is twice the people",
    "novelty@10": "mean −log2 of the share of people who have the film, in bits",
    "intra_list_diversity@10": "1 − the mean overlap (Jaccard) of two shown films' genres",
}


def _measured(study: Study) -> list[tuple[str, str]]:
    found = {(one.protocol, one.targets) for one in study.figures}
    return [(protocol, targets) for protocol in PROTOCOLS for targets in TARGETS if (protocol, targets) in found]


def result_charts(study: Study) -> Iterable[Chart]:
    """Draws figures with their intervals."""
    for protocol, targets in _measured(study):
        for name in _DRAWN[protocol]:
            figures = [one for system in study.systems if (one := study.figure(system, protocol, targets, name))]
            if figures:
                title = f"{palette.metric(name)}, {protocol}, {TARGETS[targets]}"
                yield charts.whiskers(chart_name(protocol, targets, name), title, figures, study.choice.tower)


def results(study: Study, drawn: dict[str, Chart]) -> Html:
    """Shows each protocol against the baselines."""
    parts = []
    for protocol in PROTOCOLS:
        mine = [targets for measured, targets in _measured(study) if measured == protocol]
        if mine:
            parts.append(element("h3", f"{protocol}: {PROTOCOLS[protocol]}"))
        for targets in mine:
            names = [chart_name(protocol, targets, name) for name in _DRAWN[protocol]]
            parts += [side_by_side(drawn, names), _result_table(study, protocol, targets)]
    intro = paragraph(
        "R@k is recall: the share of a person's targets among the first k, of min(k, targets). N@k is NDCG, which asks "
        "how high they stand; MRR is one over the place of the first. Baselines are tuned on the same validation "
        "people and refitted. The towers of last are those that are shipped. In users and time they are siblings, "
        "refitted as well; in users they learn to find the hidden part of a history. A figure of a tower is the mean "
        "over its seeds."
    )
    return section("results", "Results against baselines", intro, *parts)


def _result_table(study: Study, protocol: str, targets: str) -> Html:
    names = SHOWN[protocol]
    count = next(one.n for one in study.figures if (one.protocol, one.targets) == (protocol, targets))
    caption = f"{protocol}, {TARGETS[targets]}: {count:,} people; 95 % intervals; the best of each column is marked"
    shown = _figure_table(study, protocol, targets, names, caption)
    measured = {one.name for one in study.figures if (one.protocol, one.targets) == (protocol, targets)}
    rest = sorted(
        (name for name in measured if name.partition("@")[0] in _RANKING),
        key=lambda name: (name.partition("@")[0], int(name.partition("@")[2])),
    )
    more = _figure_table(study, protocol, targets, rest, f"{protocol}, {TARGETS[targets]}: every k")
    return joined([shown, details("Every k", more), _seed_table(study, protocol, targets)])


def _seed_table(study: Study, protocol: str, targets: str) -> Html:
    """Shows each seed's own means, where there are several seeds."""
    means = {
        (one.system, one.seed, one.name): one.value
        for one in study.seeds
        if (one.protocol, one.targets) == (protocol, targets)
    }
    runs = list(dict.fromkeys((system, seed) for system, seed, _ in means))
    if len({seed for _, seed in runs}) < 2:
        return Html("")
    names = SHOWN[protocol]
    rows = [
        [swatched(system), str(seed), *(_mean(means.get((system, seed, name))) for name in names)]
        for system, seed in runs
    ]
    caption = f"{protocol}, {TARGETS[targets]}: means over people of each seed"
    return details("Each seed", table(caption, ["system", "seed", *map(palette.metric, names)], rows))


def _mean(value: float | None) -> str:
    return "–" if value is None else number(value)


def _figure_table(study: Study, protocol: str, targets: str, names: Sequence[str], caption: str) -> Html:
    systems = ranked(study, protocol, targets)
    columns = [[study.figure(system, protocol, targets, name) for system in systems] for name in names]
    best = [max((one.value for one in column if one), default=0.0) for column in columns]
    rows = []
    for place, system in enumerate(systems):
        cells = [figure_cell(column[place], top) for column, top in zip(columns, best, strict=True)]
        rows.append([system_name(system, study), *cells])
    return table(caption, ["system", *map(palette.metric, names)], rows)


def difference_charts(study: Study) -> Iterable[Chart]:
    """Draws paired differences."""
    for protocol, names in _DRAWN.items():
        for name in names:
            mine = [
                one for one in study.differences if (one.protocol, one.targets, one.name) == (protocol, "all", name)
            ]
            # Popularity lies so far off that the others would be dots on each other.
            against = [one for one in mine if one.against not in (*TOWERS, "popularity")]
            if against:
                title = f"{palette.metric(name)}, tower less baseline, {protocol}"
                yield charts.forest(chart_name("difference", protocol, name), title, against)


def differences(study: Study, drawn: dict[str, Chart]) -> Html:
    """Shows paired differences."""
    return section(
        "differences",
        "Paired differences",
        paragraph(
            "Tower less baseline, person by person, on the same people; a tower is its mean over seeds. A difference "
            "is sure at 95 % where its interval leaves out zero: the table marks such a one with ▲ or ▼."
        ),
        side_by_side(drawn, [name for name in drawn if name.startswith("difference-")]),
        details("Differences in figures", _difference_table(study.differences)),
    )


def _difference_table(differences: Sequence[Difference]) -> Html:
    rows = [
        [
            swatched(one.system),
            swatched(one.against),
            f"{one.protocol}, {one.targets}",
            palette.metric(one.name),
            joined([signed(one.value), _direction(one)]),
            f"{signed(one.low)} to {signed(one.high)}",
            f"{one.n:,}",
        ]
        for one in differences
    ]
    head = ["system", "against", "protocol", "figure", "difference", "95 %", "people"]
    return table("Paired differences with 95 % intervals", head, rows, text_columns=4)


def _direction(one: Difference) -> Html:
    if one.low > 0:
        return element("span", " ▲", class_="good")
    return element("span", " ▼", class_="bad") if one.high < 0 else element("span", " ·", class_="quiet")


def choice(study: Study) -> Html:
    """Says which tower was chosen, and why."""
    scores = study.choice.scores
    liked = study.choice.liked
    rows = [[system_name(tower, study), f"{score:.4f}", _known(liked[tower])] for tower, score in scores.items()]
    tower = palette.system(study.choice.tower).label
    return section(
        "choice",
        "The tower, and why",
        paragraph(f"The default is the {tower}. It was chosen by {study.choice.criterion}; no test figure took part."),
        table("What the choice was made by", ["tower", "all targets", "liked targets"], rows),
    )


def _known(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def curve_charts(study: Study) -> Iterable[Chart]:
    """Draws how the towers learned."""
    if study.curves:
        yield charts.learning("learning-ndcg", "Validation NDCG@10, last", study.curves, "ndcg_at_10")
        yield charts.learning("learning-recall", "Validation recall@10, last", study.curves, "recall_at_10")
    for tower in TOWERS:
        mine = [curve for curve in study.curves if curve.tower == tower]
        if mine:
            yield charts.learning(f"learning-loss-{tower}", f"Training loss, {tower}", mine, "loss")


def curves(study: Study, drawn: dict[str, Chart]) -> Html:
    """Shows how the towers learned."""
    rows = [
        [
            system_name(curve.tower, study),
            str(curve.seed),
            str(len(curve.passes)),
            str(curve.best + 1),
            f"{curve.passes[curve.best].ndcg_at_10:.4f}" if curve.passes else "–",
            f"{sum(one.seconds for one in curve.passes):,.0f}",
        ]
        for curve in study.curves
    ]
    names = [name for name in drawn if name.startswith("learning-")]
    head = ["tower", "seed", "passes", "kept", "N@10", "seconds"]
    return section(
        "learning",
        "Learning curves",
        paragraph(
            "One line a seed; the dot is the pass whose towers were kept. The towers may learn by different losses, "
            "so each loss has its own chart."
        ),
        side_by_side(drawn, names),
        details("Each seed in figures", table("Passes, and validation NDCG@10 of the pass that was kept", head, rows)),
    )


def _slice_groups(study: Study) -> dict[tuple[str, str, str], list[Any]]:
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for part in study.slices:
        groups.setdefault((part.figure.protocol, part.by, part.figure.name), []).append(part)
    return groups


def slice_charts(study: Study) -> Iterable[Chart]:
    """Draws recall by slice."""
    shown = _slice_systems(study)
    for (protocol, by, name), parts in _slice_groups(study).items():
        mine = [part for part in parts if part.figure.system in shown and part.figure.n >= _LEAST_IN_SLICE]
        if protocol in _SLICED and len({part.label for part in mine}) > 1:
            title = f"{palette.metric(name)} by {by}, {protocol}"
            yield charts.slices(chart_name("slice", protocol, by, name), title, mine)


def _slice_systems(study: Study) -> list[str]:
    """Lists what the charts of slices show: the towers, EASE, the best other baseline, popularity."""
    figures = [study.figure(system, "last", "all", "recall@10") for system in baselines(study)]
    others = [one for one in figures if one and one.system not in ("ease", "popularity")]
    best = max(others, key=lambda one: one.value, default=None)
    return [*TOWERS, "ease", *([best.system] if best else []), "popularity"]


def slices(study: Study, drawn: dict[str, Chart]) -> Html:
    """Shows recall by slice."""
    tables = []
    for (protocol, by, name), parts in _slice_groups(study).items():
        labels = list(dict.fromkeys(part.label for part in parts))
        by_system: dict[str, dict[str, bundle_pb2.Metric]] = {}
        for part in parts:
            by_system.setdefault(part.figure.system, {})[part.label] = part.figure
        best = {label: max(row[label].value for row in by_system.values() if label in row) for label in labels}
        rows = [
            [system_name(system, study), *(figure_cell(row.get(label), best[label]) for label in labels)]
            for system, row in by_system.items()
        ]
        tables.append(table(f"{palette.metric(name)} by {by}, {protocol}", ["system", *labels], rows))
    return section(
        "slices",
        "Where it is good and where it is not",
        paragraph(
            "The same figure for some of the people, or of the targets. Slices are small: read the interval before "
            "the dot. Popularity tenths are of all events: 1 is the few films that take the first tenth. Cold targets "
            "are films without an event in training. Charts leave out slices of fewer than "
            f"{_LEAST_IN_SLICE} people; the tables have them."
        ),
        side_by_side(drawn, [name for name in drawn if name.startswith("slice-")]),
        details("Slices in figures, every system", *tables),
    )


def beyond(study: Study) -> Html:
    """Shows what recall does not see."""
    tables = []
    for protocol in PROTOCOLS:
        found = {one.name for one in study.figures if one.protocol == protocol and one.targets == "all"}
        names = [name for name in found if name.partition("@")[0] not in _RANKING]
        names.sort(key=lambda name: list(_BEYOND).index(name) if name in _BEYOND else len(_BEYOND))
        if names:
            rows = [
                [system_name(system, study), *(_plain(study.figure(system, protocol, "all", name)) for name in names)]
                for system in ranked(study, protocol, "all")
            ]
            tables.append(
                table(f"{protocol}: what is shown, of each system", ["system", *map(palette.metric, names)], rows)
            )
    meanings = [
        joined([element("dt", palette.metric(name)), element("dd", meaning)]) for name, meaning in _BEYOND.items()
    ]
    return section(
        "beyond",
        "Beyond accuracy",
        paragraph("None of these is better the higher it is; they say what kind of lists a system writes."),
        *tables,
        element("dl", *meanings),
        *_index(study),
    )


def _index(study: Study) -> list[Html]:
    if not study.ann:
        return []
    least = min(one.value for one in study.ann)
    return [
        paragraph(
            f"The index finds {percent(least)} of the {study.ann[0].name.partition('@')[2]} movies that an exact "
            f"comparison with all vectors finds: the least of {len(study.ann)} bundles measured."
        )
    ]


def _plain(figure: bundle_pb2.Metric | None) -> str:
    return "–" if figure is None else f"{figure.value:.3f}".replace("-", "−")
