"""The page: what it says of figures that a reader knows, that it asks nothing of any server, that it can be read."""

from __future__ import annotations

import html.parser
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from tests.made_up_study import LAST, figure, films, study
from training.report import atlas, charts, palette
from training.report.atlas import Box
from training.report.markup import Html, element, table
from training.report.page import Written, draw, render, write_page
from training.report.study import Choice, Difference, Film, MovieMap, Study
from training.report.verdict import MISSED, REACHED, UNKNOWN, goals, headline, number, signed


class Outline(html.parser.HTMLParser):
    """Keeps a page's elements, and checks that they are closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_page(study(), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def text(written: Written) -> str:
    return written.page.read_text("utf-8")


@pytest.fixture(scope="module")
def outline(text: str) -> Outline:
    return Outline(text)


def test_every_goal_of_the_made_up_study_is_reached() -> None:
    judged = goals(study())
    assert [goal.state for goal in judged] == [REACHED] * 5 + ["reported"]
    assert judged[0].details == ("2.02 times (.170 against .084)",)
    assert judged[1].details[0] == "R@10 .170; best baseline transitions + EASE .133"
    assert judged[5].details == ("R@10 .119 (.019–.219), n = 27",)
    assert headline(judged) == "All 5 goals that these runs can judge are reached."


def replaced(system: str, name: str, value: float) -> Study:
    made = study()
    kept = [
        one
        for one in made.figures
        if (one.system, one.protocol, one.targets, one.name) != (system, "last", "all", name)
    ]
    return made._replace(figures=[*kept, figure(system, "last", name, value)])


def test_a_goal_that_is_missed_says_by_how_much() -> None:
    # 1.5 x .084 is .126.
    judged = goals(replaced("sequence", "recall@10", 0.100))
    assert judged[0].state == MISSED
    assert judged[0].details == ("1.19 times (.100 against .084); .026 are missing",)
    assert judged[1].state == MISSED
    assert "R@10 .100 is .033 below transitions + EASE .133" in judged[1].details
    assert not any("below EASE" in told for told in judged[1].details), ".100 is above plain EASE's .084"
    # Against the other tower's .150: a third less.
    assert judged[4].details == ("R@10 .100, 33.3\N{NO-BREAK SPACE}% below pooled tower .150",)
    assert headline(judged) == "2 of 5 goals are reached, 3 missed."


def test_a_baseline_that_equals_the_model_is_not_beaten() -> None:
    judged = goals(replaced("item_knn", "ndcg@10", LAST["sequence"] / 2))[1]
    assert judged.state == MISSED
    assert judged.details == ("N@10 .085 is no more than item-kNN .085",)


def test_a_paired_bound_at_zero_is_missed() -> None:
    made = study()
    at_zero = [one._replace(low=0.0) if one.against == "ials" else one for one in made.differences]
    judged = goals(made._replace(differences=at_zero))
    assert judged[2].state == REACHED
    assert judged[3].state == MISSED
    assert "R@20 +.013 (+.000 to +.020) against iALS" in judged[3].details


def test_what_was_not_measured_is_not_judged() -> None:
    nothing = study(figures=[], differences=[])
    assert {goal.state for goal in goals(nothing)} == {UNKNOWN}
    assert headline(goals(nothing)) == "No goal could be judged from these runs."


def test_goals_are_judged_for_the_tower_that_was_chosen() -> None:
    pooled = study(
        choice=Choice("pooled", "fiat", {"pooled": 1.0, "sequence": 0.0}, {"pooled": 1.0, "sequence": math.nan})
    )
    assert goals(pooled)[0].details == ("1.79 times (.150 against .084)",)


@pytest.mark.parametrize(
    ("value", "short", "with_sign"),
    [(0.1284, ".128", "+.128"), (-0.0071, "−.007", "−.007"), (1.0, "1.000", "+1.000"), (0.0, ".000", "+.000")],
)
def test_shares_are_written_with_three_digits(value: float, short: str, with_sign: str) -> None:
    assert number(value) == short
    assert signed(value) == with_sign


def test_the_page_asks_nothing_of_any_server(text: str, outline: Outline) -> None:
    assert not outline.all("script", "link", "img", "iframe", "object", "embed")
    targets = [value for _, attributes in outline.elements for key, value in attributes.items() if "href" in key]
    assert targets
    assert all(target is not None and target.startswith("#") for target in targets)
    assert not re.findall(r"@import|url\((?!#)", text)
    addresses = set(re.findall(r"https?://[^\"' <]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names, which nothing fetches"


def test_ids_are_unique_and_every_link_leads_somewhere(outline: Outline) -> None:
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {
        value[1:] for _, attributes in outline.elements for key, value in attributes.items() if "href" in key and value
    }
    assert links <= set(ids)


def test_headings_go_down_by_one_and_pictures_and_tables_say_what_they_are(outline: Outline) -> None:
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert outline.all("svg")
    assert all(svg["role"] == "img" and len(svg["aria-label"] or "") > 20 for svg in outline.all("svg"))
    assert len(outline.all("caption")) == len(outline.all("table")) > 5
    assert all(cell["scope"] in ("row", "col") for cell in outline.all("th"))


def test_the_best_of_a_column_is_marked(text: str) -> None:
    rows = re.findall(r"<tr>.*?</tr>", text)
    pooled = next(row for row in rows if "pooled tower" in row and ".384" in row)
    assert '<b class="best">.384</b>' in pooled
    sequence = next(row for row in rows if "sequence tower" in row and ".375" in row)
    assert "best" not in sequence


def bare() -> Study:
    made = study(figures=[figure("pooled", "last", "recall@10", 0.1)], differences=[], curves=[], slices=[])
    return made._replace(map=None, neighbours=[], samples=[], settings={}, timings_s={})


def test_each_seed_is_shown_where_there_are_several(text: str) -> None:
    rows = re.findall(r'sequence tower</th><td class="number">(\d)</td><td class="number">(\.\d+)</td>', text)
    assert rows[:3] == [("0", ".169"), ("1", ".170"), ("2", ".171")]
    assert "Each seed</summary>" in text
    assert "Each seed</summary>" not in render(study(seeds=study().seeds[:1], map=None), {})


def test_letters_of_titles_are_never_html(tmp_path: Path) -> None:
    hostile = Film('<script>alert("x")</script> & <b>', 1999, ('"><i>',), 500)
    made = study()
    map_ = MovieMap("sequence", "hand", [hostile, *films(5)], np.arange(12.0).reshape(6, 2))
    neighbours = [made.neighbours[0]._replace(film=hostile, nearest=[(hostile, 0.5)])]
    samples = [made.samples[0]._replace(history=[hostile], targets=[hostile], lists={"ease": [(hostile, True)]})]
    page = write_page(bare()._replace(map=map_, neighbours=neighbours, samples=samples), tmp_path).page.read_text(
        "utf-8"
    )
    assert not Outline(page).all("script")
    assert "&lt;script&gt;" in page
    assert '"><i>' not in page


def test_the_summary_has_every_figure_of_the_page(written: Written) -> None:
    summary = json.loads(written.summary.read_text("utf-8"))
    assert len(summary["figures"]) == len(study().figures)
    assert summary["figures"][0] == {
        "system": "sequence",
        "protocol": "last",
        "targets": "all",
        "name": "recall@10",
        "value": 0.17,
        "n": 600,
        "low": pytest.approx(0.145),
        "high": pytest.approx(0.195),
    }
    assert [goal["state"] for goal in summary["goals"]][:2] == ["reached", "reached"]
    assert len(summary["map"]["films"]) == len(summary["map"]["xy_N2"]) == 400


def test_the_configuration_is_told_knob_by_knob(text: str) -> None:
    assert '<th scope="row" class="text">tower.half_lives</th><td class="number">2, 8</td>' in text
    assert re.search(r'EASE</th><td class="text">users</td><td class="text">penalty 300</td>', text)


def test_pictures_lie_beside_the_page(written: Written) -> None:
    names = {path.name for path in written.pictures}
    assert {"map.png", "last-all-recall-10.png", "learning-loss-sequence.png"} <= names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written.pictures)


def test_equal_studies_make_equal_pages(text: str) -> None:
    made = study()
    assert render(made, draw(made)) == text


def test_a_study_with_hardly_anything_in_it_still_makes_a_page(tmp_path: Path) -> None:
    page = write_page(bare(), tmp_path).page.read_text("utf-8")
    Outline(page)
    assert "not measured" in page


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    """Is WCAG 2's contrast ratio: 21 for black on white."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_contrast_formula_knows_black_on_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out_from_the_ground(scheme: str) -> None:
    for ground in ("paper", "panel"):
        under = getattr(palette.INK[ground], scheme)
        for name in ("text", "quiet", "link", "good", "bad"):
            assert contrast(getattr(palette.INK[name], scheme), under) >= 4.5, (name, ground)
    paper = getattr(palette.INK["paper"], scheme)
    for name, one in palette.SYSTEMS.items():
        assert contrast(getattr(one.colour, scheme), paper) >= 3.0, name


def test_every_colour_is_there_once() -> None:
    light = [colour.light for colour in palette.variables().values()]
    assert len(light) == len(set(light)), "a chart's colours are told apart by their digits"


def test_no_chart_keeps_a_fixed_colour(text: str) -> None:
    pictures = "".join(re.findall(r"<svg .*?</svg>", text, re.DOTALL))
    assert pictures
    assert set(re.findall(r"#[0-9a-f]{6}\b", pictures)) <= {"#000000", "#ffffff"}


def test_labels_of_the_map_lie_neither_on_each_other_nor_outside() -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(300, 80, (300, 2))
    frame = Box(0, 0, 600, 600)
    placed = atlas.place(points, [(70.0, 11.0)] * 300, frame, 60)
    boxes = list(placed.values())
    assert len(boxes) > 20
    assert not any(one.meets(other) for number, one in enumerate(boxes) for other in boxes[:number])
    assert all(box.left >= 0 and box.right <= 600 and box.bottom >= 0 and box.top <= 600 for box in boxes)


def test_a_label_stands_right_of_its_point_where_there_is_room_and_left_at_the_edge() -> None:
    frame = Box(0, 0, 100, 100)
    placed = atlas.place(np.array([[10.0, 50.0], [95.0, 20.0]]), [(30.0, 10.0)] * 2, frame, 5)
    assert placed[0] == Box(16, 45, 46, 55)
    assert placed[1] == Box(59, 15, 89, 25)


def test_a_film_whose_places_are_all_taken_has_no_label() -> None:
    points = np.array([[50.0, 50.0], [51.0, 50.0]])
    assert list(atlas.place(points, [(90.0, 90.0)] * 2, Box(0, 0, 300, 300), 5)) == [0]


@pytest.mark.parametrize("count", [12, 90])
def test_the_map_keeps_planted_clusters_together(count: int) -> None:
    rng = np.random.default_rng(4)
    centres = np.eye(3, 16)
    of = np.arange(count) % 3
    vectors = centres[of] + 0.05 * rng.normal(size=(count, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    plane, _ = atlas.project(vectors.astype(np.float32))
    apart = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (of[apart.argmin(axis=1)] == of).all()


def test_a_map_of_one_film_or_of_equal_ones_is_a_map() -> None:
    assert atlas.project(np.ones((1, 4), np.float32))[0].shape == (1, 2)
    assert np.isfinite(atlas.project(np.full((80, 4), 0.5, np.float32))[0]).all()


def test_a_films_main_genre_is_its_most_telling_one() -> None:
    assert atlas.main_genre(Film("A", None, ("Adventure", "Animation", "IMAX"), 1)) == "Animation"
    assert atlas.main_genre(Film("A", None, ("Drama", "Romance"), 1)) == "Drama"
    assert atlas.main_genre(Film("A", None, (), 1)) == "other"


def test_text_is_escaped_and_html_is_not() -> None:
    assert element("p", "a<b", Html("<i>c</i>"), class_='"x"') == '<p class="&quot;x&quot;">a&lt;b<i>c</i></p>'


def test_a_table_has_a_caption_scopes_and_number_cells() -> None:
    made = table("Figures", ["system", "R@10"], [["EASE", ".085"]])
    assert '<th scope="row" class="text">EASE</th><td class="number">.085</td>' in made
    assert "<caption><span>Figures</span></caption>" in made


def test_differences_are_drawn_a_row_a_baseline_and_told_in_words() -> None:
    made = charts.forest("d", "R@10", [Difference("pooled", "ease", "last", "all", "recall@10", 0.02, 0.01, 0.03, 9)])
    assert made.alt == "R@10, paired: pooled tower against EASE +.020."
