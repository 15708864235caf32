"""Writes the report as one page that asks nothing of any server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from marquee.bundle.v1 import bundle_pb2
from training.report import atlas, charts, palette
from training.report.charts import Chart
from training.report.markup import Html, details, element, joined, paragraph, section, table
from training.report.study import Difference, Film, Study, as_json
from training.report.verdict import MISSED, REACHED, TOWERS, Goal, baselines, bounds, goals, headline, number, signed

PAGE, SUMMARY = "report.html", "summary.json"
PROTOCOLS = {
    "last": "each person's last event, from everything before it",
    "users": "people that training never saw: from 80 % of their events, the rest",
    "time": "everything after one moment, from everything before it",
}
TARGETS = {"all": "all targets", "liked": "liked targets"}
_SHOWN = {
    "last": ("recall@10", "recall@20", "recall@50", "ndcg@10", "ndcg@100", "mrr@10"),
    "users": ("recall@20", "recall@50", "recall@100", "ndcg@10", "ndcg@100", "mrr@10"),
    "time": ("recall@10", "recall@20", "recall@50", "ndcg@10", "ndcg@100", "mrr@10"),
}
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
_STYLE = Path(__file__).with_name("style.css")


class Written(NamedTuple):
    """Says where the page, its summary and its pictures lie."""

    page: Path
    summary: Path
    pictures: list[Path]


def write_page(study: Study, folder: Path) -> Written:
    """Writes page, pictures and summary into a folder that exists."""
    drawn = draw(study)
    summary, page = folder / SUMMARY, folder / PAGE
    told = [goal._asdict() for goal in goals(study)]
    summary.write_text(json.dumps({"goals": told} | as_json(study), indent=1, ensure_ascii=False) + "\n", "utf-8")
    # Before the pictures: drawing at another resolution lays a chart out anew.
    page.write_text(render(study, drawn), "utf-8")
    return Written(page, summary, [charts.write_png(chart, folder) for chart in drawn.values()])


def draw(study: Study) -> dict[str, Chart]:
    """Draws every chart that the study has figures for, by name."""
    drawn = [*_result_charts(study), *_difference_charts(study), *_curve_charts(study), *_slice_charts(study)]
    if study.map is not None:
        drawn.append(atlas.draw(study.map))
    return {chart.name: chart for chart in drawn}


def render(study: Study, drawn: dict[str, Chart]) -> str:
    """Writes the whole page."""
    judged = goals(study)
    title = f"Marquee on {study.origin.dataset.name}"
    sections = [
        _results(study, drawn),
        _differences(study, drawn),
        _choice(study),
        _curves(study, drawn),
        _slices(study, drawn),
        _beyond(study),
        _map(study, drawn),
        _neighbours(study),
        _samples(study),
        _origin(study),
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(palette.style() + _STYLE.read_text("utf-8"))),
    )
    main = element("main", _verdict(study, judged), *sections, id="main")
    body = element(
        "body", element("a", "Skip to the verdict", href="#main", class_="skip"), _header(study, title), main
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _header(study: Study, title: str) -> Html:
    data = study.origin.dataset
    told = f"{data.events:,} events of {data.users:,} people on {data.movies:,} films, {study.origin.period}"
    seeds = ", ".join(map(str, study.origin.seeds))
    made = f"Measured {study.origin.created_at[:10]}; {'seeds' if len(study.origin.seeds) > 1 else 'seed'} {seeds}."
    links = {
        "results": "Results",
        "differences": "Differences",
        "choice": "Choice of tower",
        "learning": "Learning",
        "slices": "Slices",
        "beyond": "Beyond accuracy",
        "map": "Map",
        "neighbours": "Neighbours",
        "samples": "Samples",
        "origin": "Origin",
    }
    nav = element(
        "nav", *(element("a", text, href=f"#{anchor}") for anchor, text in links.items()), aria_label="Sections"
    )
    notes = ["The viewers are simulated: no figure here is about real people."] if data.simulated else []
    return element(
        "header",
        element("h1", title),
        paragraph(f"{told}. {made}".replace("-", "\N{NON-BREAKING HYPHEN}"), class_="lead"),
        *(paragraph(note, class_="notice") for note in [*notes, *study.origin.notes]),
        nav,
    )


def _verdict(study: Study, judged: list[Goal]) -> Html:
    tower = palette.system(study.choice.tower).label
    marks = {REACHED: ("✓", "good"), MISSED: ("✗", "bad")}
    items = []
    for goal in judged:
        mark, kind = marks.get(goal.state, ("–", "quiet"))
        state = element("span", f"{mark} {goal.state}", class_=f"state {kind}")
        items.append(
            element(
                "li",
                state,
                element("div", element("strong", goal.title), *(element("span", told) for told in goal.details)),
            )
        )
    return element(
        "section",
        element("h2", "Verdict", id="verdict-title"),
        paragraph(headline(judged), class_="headline"),
        paragraph(_in_words(study)),
        element("ul", *items, class_="goals"),
        paragraph(
            f"Goals are judged for the {tower}, the default. Every figure ranks the whole catalogue, with what a "
            "person has seen left out; the towers are scored as they are served, through the exported bundle. "
            "Intervals are 95 % bootstrap intervals over people; paired ones resample differences on the same people.",
            class_="note",
        ),
        id="verdict",
        aria_labelledby="verdict-title",
    )


def _in_words(study: Study) -> str:
    """Tells the main results as sentences."""
    tower = palette.system(study.choice.tower).label
    told = []
    last = study.figure(study.choice.tower, "last", "all", "recall@10")
    if last is not None:
        told.append(
            f"For {_percent(last.value)} of {last.n:,} people the film that they turned to next is among the first ten "
            f"of the {tower}{_others(study, 'last', 'recall@10')}."
        )
    users = study.figure(study.choice.tower, "users", "all", "recall@20")
    if users is not None:
        told.append(
            f"Of people whom training never saw, its first twenty hold {_percent(users.value)} of what could be "
            f"found{_others(study, 'users', 'recall@20')}."
        )
    return " ".join(told)


def _others(study: Study, protocol: str, name: str) -> str:
    """Lists the best baseline, EASE and popularity, each once."""
    found = [one for system in baselines(study) if (one := study.figure(system, protocol, "all", name))]
    best = max(found, key=lambda one: one.value, default=None)
    shown = [one for one in found if one is best or one.system in ("ease", "popularity")]
    told = [f"{palette.system(one.system).label} {_percent(one.value)}" for one in shown]
    return f" ({', '.join(told)})" if told else ""


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _measured(study: Study) -> list[tuple[str, str]]:
    found = {(one.protocol, one.targets) for one in study.figures}
    return [(protocol, targets) for protocol in PROTOCOLS for targets in TARGETS if (protocol, targets) in found]


def _result_charts(study: Study) -> Iterable[Chart]:
    for protocol, targets in _measured(study):
        for name in _DRAWN[protocol]:
            figures = [one for system in study.systems if (one := study.figure(system, protocol, targets, name))]
            if figures:
                title = f"{palette.metric(name)}, {protocol}, {TARGETS[targets]}"
                yield charts.whiskers(_chart_name(protocol, targets, name), title, figures, study.choice.tower)


def _chart_name(*parts: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else "-" for letter in part) for part in parts)


def _results(study: Study, drawn: dict[str, Chart]) -> Html:
    parts = []
    for protocol in PROTOCOLS:
        mine = [targets for measured, targets in _measured(study) if measured == protocol]
        if mine:
            parts.append(element("h3", f"{protocol}: {PROTOCOLS[protocol]}"))
        for targets in mine:
            names = [_chart_name(protocol, targets, name) for name in _DRAWN[protocol]]
            parts += [_side_by_side(drawn, names), _result_table(study, protocol, targets)]
    intro = paragraph(
        "R@k is recall: the share of a person's targets among the first k, of min(k, targets). N@k is NDCG, which asks "
        "how high they stand; MRR is one over the place of the first. Baselines are tuned on the same validation "
        "people and refitted. A figure of a tower is the mean over its seeds."
    )
    return section("results", "Results against baselines", intro, *parts)


def _side_by_side(drawn: dict[str, Chart], names: Sequence[str]) -> Html:
    found = [charts.svg(drawn[name]) for name in names if name in drawn]
    return element("div", *found, class_="charts") if found else Html("")


def _result_table(study: Study, protocol: str, targets: str) -> Html:
    names = _SHOWN[protocol]
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
    names = _SHOWN[protocol]
    rows = [
        [_swatched(system), str(seed), *(_mean(means.get((system, seed, name))) for name in names)]
        for system, seed in runs
    ]
    caption = f"{protocol}, {TARGETS[targets]}: means over people of each seed"
    return details("Each seed", table(caption, ["system", "seed", *map(palette.metric, names)], rows))


def _mean(value: float | None) -> str:
    return "–" if value is None else number(value)


def _figure_table(study: Study, protocol: str, targets: str, names: Sequence[str], caption: str) -> Html:
    systems = _ranked(study, protocol, targets)
    columns = [[study.figure(system, protocol, targets, name) for system in systems] for name in names]
    best = [max((one.value for one in column if one), default=0.0) for column in columns]
    rows = []
    for place, system in enumerate(systems):
        cells = [_cell(column[place], top) for column, top in zip(columns, best, strict=True)]
        rows.append([_system(system, study), *cells])
    return table(caption, ["system", *map(palette.metric, names)], rows)


def _ranked(study: Study, protocol: str, targets: str) -> list[str]:
    """Lists the systems that were measured, by the protocol's first figure."""
    first = {one: study.figure(one, protocol, targets, _SHOWN[protocol][0]) for one in study.systems}
    found = {system: figure.value for system, figure in first.items() if figure is not None}
    return sorted(found, key=lambda system: -found[system])


def _cell(figure: bundle_pb2.Metric | None, best: float) -> Html:
    if figure is None:
        return Html("–")
    value = element("b", number(figure.value), class_="best") if figure.value == best else Html(number(figure.value))
    interval = bounds(figure)
    return joined([value, element("small", interval)]) if interval else value


def _system(name: str, study: Study) -> Html:
    default = [element("small", "default")] if name == study.choice.tower else []
    return joined([_swatched(name), *default])


def _swatched(name: str) -> Html:
    swatch = element("i", class_="swatch", style=f"background:var(--{palette.variable(name)})", aria_hidden="true")
    return joined([swatch, palette.system(name).label])


def _difference_charts(study: Study) -> Iterable[Chart]:
    for protocol, names in _DRAWN.items():
        for name in names:
            mine = [
                one for one in study.differences if (one.protocol, one.targets, one.name) == (protocol, "all", name)
            ]
            # Popularity lies so far off that the others would be dots on each other.
            against = [one for one in mine if one.against not in (*TOWERS, "popularity")]
            if against:
                title = f"{palette.metric(name)}, tower less baseline, {protocol}"
                yield charts.forest(_chart_name("difference", protocol, name), title, against)


def _differences(study: Study, drawn: dict[str, Chart]) -> Html:
    return section(
        "differences",
        "Paired differences",
        paragraph(
            "Tower less baseline, person by person, on the same people; a tower is its mean over seeds. A difference "
            "is sure at 95 % where its interval leaves out zero: the table marks such a one with ▲ or ▼."
        ),
        _side_by_side(drawn, [name for name in drawn if name.startswith("difference-")]),
        details("Differences in figures", _difference_table(study.differences)),
    )


def _difference_table(differences: Sequence[Difference]) -> Html:
    rows = [
        [
            _swatched(one.system),
            _swatched(one.against),
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


def _choice(study: Study) -> Html:
    scores = study.choice.scores
    rows = [[_system(tower, study), f"{score:.4f}"] for tower, score in scores.items()]
    tower = palette.system(study.choice.tower).label
    return section(
        "choice",
        "The tower, and why",
        paragraph(f"The default is the {tower}. It was chosen by {study.choice.criterion}; no test figure took part."),
        table("What the choice was made by", ["tower", "mean over seeds"], rows),
    )


def _curve_charts(study: Study) -> Iterable[Chart]:
    if study.curves:
        yield charts.learning("learning-ndcg", "Validation NDCG@10, last", study.curves, "ndcg_at_10")
        yield charts.learning("learning-recall", "Validation recall@10, last", study.curves, "recall_at_10")
    for tower in TOWERS:
        mine = [curve for curve in study.curves if curve.tower == tower]
        if mine:
            yield charts.learning(f"learning-loss-{tower}", f"Training loss, {tower}", mine, "loss")


def _curves(study: Study, drawn: dict[str, Chart]) -> Html:
    rows = [
        [
            _system(curve.tower, study),
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
        _side_by_side(drawn, names),
        details("Each seed in figures", table("Passes, and validation NDCG@10 of the pass that was kept", head, rows)),
    )


def _slice_groups(study: Study) -> dict[tuple[str, str, str], list[Any]]:
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for part in study.slices:
        groups.setdefault((part.figure.protocol, part.by, part.figure.name), []).append(part)
    return groups


def _slice_charts(study: Study) -> Iterable[Chart]:
    shown = _slice_systems(study)
    for (protocol, by, name), parts in _slice_groups(study).items():
        mine = [part for part in parts if part.figure.system in shown and part.figure.n >= _LEAST_IN_SLICE]
        if protocol in _SLICED and len({part.label for part in mine}) > 1:
            title = f"{palette.metric(name)} by {by}, {protocol}"
            yield charts.slices(_chart_name("slice", protocol, by, name), title, mine)


def _slice_systems(study: Study) -> list[str]:
    """Lists what the charts of slices show: the towers, EASE, the best other baseline, popularity."""
    figures = [study.figure(system, "last", "all", "recall@10") for system in baselines(study)]
    others = [one for one in figures if one and one.system not in ("ease", "popularity")]
    best = max(others, key=lambda one: one.value, default=None)
    return [*TOWERS, "ease", *([best.system] if best else []), "popularity"]


def _slices(study: Study, drawn: dict[str, Chart]) -> Html:
    tables = []
    for (protocol, by, name), parts in _slice_groups(study).items():
        labels = list(dict.fromkeys(part.label for part in parts))
        by_system: dict[str, dict[str, bundle_pb2.Metric]] = {}
        for part in parts:
            by_system.setdefault(part.figure.system, {})[part.label] = part.figure
        best = {label: max(row[label].value for row in by_system.values() if label in row) for label in labels}
        rows = [
            [_system(system, study), *(_cell(row.get(label), best[label]) for label in labels)]
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
        _side_by_side(drawn, [name for name in drawn if name.startswith("slice-")]),
        details("Slices in figures, every system", *tables),
    )


def _beyond(study: Study) -> Html:
    tables = []
    for protocol in PROTOCOLS:
        found = {one.name for one in study.figures if one.protocol == protocol and one.targets == "all"}
        names = [name for name in found if name.partition("@")[0] not in _RANKING]
        names.sort(key=lambda name: list(_BEYOND).index(name) if name in _BEYOND else len(_BEYOND))
        if names:
            rows = [
                [_system(system, study), *(_plain(study.figure(system, protocol, "all", name)) for name in names)]
                for system in _ranked(study, protocol, "all")
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
            f"The index finds {_percent(least)} of the {study.ann[0].name.partition('@')[2]} movies that an exact "
            f"comparison with all vectors finds: the least of {len(study.ann)} bundles measured."
        )
    ]


def _plain(figure: bundle_pb2.Metric | None) -> str:
    return "–" if figure is None else f"{figure.value:.3f}".replace("-", "−")


def _map(study: Study, drawn: dict[str, Chart]) -> Html:
    if study.map is None:
        return Html("")
    tower = palette.system(study.map.tower).label
    return section(
        "map",
        "The movie space",
        paragraph(
            f"The {len(study.map.films):,} most rated films, laid on a plane by {study.map.method} ({tower}, seed "
            f"{study.origin.seeds[0]}). Films that lie near each other have near vectors; large distances and "
            "directions mean nothing. Colour is the main genre, which the axes know nothing of."
        ),
        element(
            "div",
            charts.svg(drawn["map"], class_="map"),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label="Map of the movie space",
        ),
    )


def _neighbours(study: Study) -> Html:
    cards = []
    for one in study.neighbours:
        nearest = [element("li", film.name, element("small", f"{cosine:.2f}")) for film, cosine in one.nearest]
        cards.append(element("article", element("h3", one.film.name), element("ol", *nearest)))
    return section(
        "neighbours",
        "Nearest neighbours",
        paragraph("The films nearest to the most rated ones, with the cosine of their vectors."),
        element("div", *cards, class_="cards"),
    )


def _samples(study: Study) -> Html:
    people = []
    for place, sample in enumerate(study.samples):
        name = f"Person {chr(ord('A') + place)}"
        lists = [
            element(
                "div",
                element("h4", _system(system, study)),
                element("ol", *(_shown(film, hit) for film, hit in films)),
                class_="list",
            )
            for system, films in sample.lists.items()
        ]
        history = [film.name for film in sample.history]
        older = [f"and {sample.older:,} before"] if sample.older else []
        people.append(
            element(
                "article",
                element("h3", name),
                paragraph(element("b", "Latest first: "), ", ".join([*history, *older])),
                paragraph(element("b", "Came next: "), ", ".join(film.name for film in sample.targets)),
                element("div", *lists, class_="lists"),
                class_="person",
            )
        )
    return section(
        "samples",
        "Sample lists",
        paragraph(
            "People drawn by a hash of the query, half of them among those whom the default tower or EASE served; "
            "what came next is marked where it was found."
        ),
        *people,
    )


def _shown(film: Film, hit: bool) -> Html:
    return element("li", element("mark", film.name)) if hit else element("li", film.name)


def _origin(study: Study) -> Html:
    origin, data = study.origin, study.origin.dataset
    facts = {
        "command": element("code", origin.command),
        "data": f"{data.name}: {data.events:,} events, {data.users:,} people, {data.movies:,} films, {origin.period}",
        "fingerprint": element("code", data.fingerprint),
        "code": element("code", ", ".join(code[:16] for code in origin.code)),
        "machine": origin.machine,
        "versions": ", ".join(f"{name} {version}" for name, version in origin.versions.items()),
        "made": origin.created_at,
    }
    listed = [joined([element("dt", name), element("dd", told)]) for name, told in facts.items()]
    towers = [_settings_table(name, study.settings[name]) for name in TOWERS if name in study.settings]
    seconds = [[part, f"{seconds:,.1f}"] for part, seconds in study.timings_s.items()]
    return section(
        "origin",
        "Where this comes from",
        element("dl", *listed),
        details("Configuration of each system", *towers, _chosen_table(study)),
        details(
            f"Seconds that each part took: {sum(study.timings_s.values()):,.0f} in all",
            table("Seconds of one thread, added up over folds and seeds", ["part", "seconds"], seconds),
        ),
    )


def _settings_table(name: str, settings: dict[str, Any]) -> Html:
    rows = [[key, _setting(value)] for key, value in _flat(settings).items()]
    return table(palette.system(name).label, ["setting", "value"], rows)


def _chosen_table(study: Study) -> Html:
    rows = [
        [_swatched(system), protocol, _setting(chosen)]
        for system, by_protocol in study.settings.items()
        if system not in TOWERS
        for protocol, chosen in by_protocol.items()
    ]
    return table("What validation chose for the baselines", ["system", "protocol", "settings"], rows, text_columns=3)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_setting(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
