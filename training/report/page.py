"""Writes the report as one page that asks nothing of any server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from training.report import atlas, background, charts, figures, palette
from training.report.charts import Chart
from training.report.markup import Html, element, paragraph
from training.report.pieces import percent
from training.report.study import Study, as_json
from training.report.verdict import MISSED, REACHED, Goal, baselines, goals, headline

PAGE, SUMMARY = "report.html", "summary.json"
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
    drawn = [
        *figures.result_charts(study),
        *figures.difference_charts(study),
        *figures.curve_charts(study),
        *figures.slice_charts(study),
    ]
    if study.map is not None:
        drawn.append(atlas.draw(study.map))
    return {chart.name: chart for chart in drawn}


def render(study: Study, drawn: dict[str, Chart]) -> str:
    """Writes the whole page."""
    judged = goals(study)
    title = f"Marquee on {study.origin.dataset.name}"
    sections = [
        figures.results(study, drawn),
        figures.differences(study, drawn),
        figures.choice(study),
        figures.curves(study, drawn),
        figures.slices(study, drawn),
        figures.beyond(study),
        background.movie_map(study, drawn),
        background.neighbours(study),
        background.samples(study),
        background.origin(study),
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
            f"For {percent(last.value)} of {last.n:,} people the film that they turned to next is among the first ten "
            f"of the {tower}{_others(study, 'last', 'recall@10')}."
        )
    users = study.figure(study.choice.tower, "users", "all", "recall@20")
    if users is not None:
        told.append(
            f"Of people whom training never saw, its first twenty hold {percent(users.value)} of what could be "
            f"found{_others(study, 'users', 'recall@20')}."
        )
    return " ".join(told)


def _others(study: Study, protocol: str, name: str) -> str:
    """Lists the best baseline, EASE and popularity, each once."""
    found = [one for system in baselines(study) if (one := study.figure(system, protocol, "all", name))]
    best = max(found, key=lambda one: one.value, default=None)
    shown = [one for one in found if one is best or one.system in ("ease", "popularity")]
    told = [f"{palette.system(one.system).label} {percent(one.value)}" for one in shown]
    return f" ({', '.join(told)})" if told else ""
