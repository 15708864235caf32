"""The sections of the page that show films, lists of people, and where everything came from."""

from __future__ import annotations

from typing import Any

from training.report import charts, palette
from training.report.charts import Chart
from training.report.markup import Html, details, element, joined, paragraph, section, table
from training.report.pieces import swatched, system_name
from training.report.study import Film, Study
from training.report.verdict import TOWERS


def movie_map(study: Study, drawn: dict[str, Chart]) -> Html:
    """Shows the map of the movie space."""
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


def neighbours(study: Study) -> Html:
    """Shows the nearest neighbours of well-known films."""
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


def samples(study: Study) -> Html:
    """Shows some people's lists side by side."""
    people = []
    for place, sample in enumerate(study.samples):
        name = f"Person {chr(ord('A') + place)}"
        lists = [
            element(
                "div",
                element("h4", system_name(system, study)),
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


def origin(study: Study) -> Html:
    """Says where everything came from."""
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
        [swatched(system), protocol, _setting(chosen)]
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
