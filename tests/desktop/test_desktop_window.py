"""A person at the window, with real keys and real clicks, against real services."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tkinter import ttk

import pytest
from PIL import Image, ImageStat

from clients.desktop.films import Section
from clients.presenter import Opinion, Verdict
from marquee.client import Event, EventKind, Recommender, UserUnknown
from tests.desktop.rigs import Person, Services, at_the_window
from tests.desktop.titles import ODD

_NUMBERS = count()


@pytest.fixture
def user() -> str:
    """Is somebody new."""
    return f"person {next(_NUMBERS)}"


@pytest.fixture
def person(display: str, services: Services, user: str) -> Iterator[Person]:
    with at_the_window(display, *services.addresses, user) as sitting:
        sitting.settles()
        yield sitting


@pytest.fixture
def history(services: Services, user: str) -> Iterator[Recommender]:
    with Recommender(*services.addresses, deadline_s=20) as sdk:
        yield sdk


def opinions_of(sdk: Recommender, user: str) -> list[tuple[int, EventKind, float | None]]:
    try:
        events: list[Event] = list(sdk.history(user))
    except UserUnknown:
        return []
    return [(event.movie_id, event.kind, event.stars) for event in events if event.kind is not EventKind.RETRACTED]


def shown_id(person: Person) -> int:
    card = person.window.details.card
    assert card is not None
    return card.movie.movie_id


def test_somebody_new_sees_what_most_people_watch_and_is_told_so(person: Person) -> None:
    assert len(person.titles()) >= 20
    assert person.window.films.sections()[0] == "What most people watch"
    assert "Like a few films" in person.notice()


def test_a_film_is_found_while_its_title_is_typed(person: Person) -> None:
    # The title field has the keyboard from the start.
    person.types("harbor and")
    person.waits(lambda: "Films called “harbor and”" in person.window.films.sections(), "nothing found")
    assert all("Harbor" in title for title in person.titles())
    person.types(" the meadow 14")
    person.waits(lambda: person.titles() == ["The Harbor and the Meadow 14"], "not narrowed")
    person.presses("Down", "Return")
    person.settles()
    assert "Director 5" in person.window.details.text.get("1.0", "end")
    person.presses("Escape")
    person.settles()
    assert person.window.header.typed.get() == ""
    assert len(person.titles()) >= 20


def test_a_title_that_nothing_is_called_says_so(person: Person) -> None:
    person.types("zzzzqq")
    person.waits(lambda: "No film is called “zzzzqq”" in person.notice(), "nothing was said")
    assert person.titles() == []
    person.presses("Escape")
    person.settles()
    assert "zzzzqq" not in person.notice()


def test_liking_a_film_by_key_changes_the_list(person: Person, history: Recommender, user: str) -> None:
    before = person.titles()
    person.presses("Down", "l")
    person.waits(lambda: "Noted: you like" in person.notice(), "not noted")
    person.settles()
    liked = shown_id(person)
    assert opinions_of(history, user) == [(liked, EventKind.LIKED, None)]
    assert person.window.films.sections()[0] == "For you"
    assert any(headline.startswith("Because you liked") for headline in person.window.films.sections())
    assert person.titles() != before
    assert liked not in [card.movie.movie_id for card in person.window.films.cards]
    assert "new in your list" in person.notice() or "Noted" in person.notice()


def test_disliking_rating_and_taking_back_by_mouse(person: Person, history: Recommender, user: str) -> None:
    movie_id = person.window.films.cards[2].movie.movie_id
    person.clicks_film(person.window.films, movie_id)
    person.settles()
    details = person.window.details
    person.clicks(details.dislike)
    person.waits(lambda: "you do not like" in person.notice(), "not noted")
    person.settles()
    assert opinions_of(history, user) == [(movie_id, EventKind.DISLIKED, None)]
    # The left half of the fourth star.
    person.clicks(details.stars, x=4 + 3 * 26 + 6)
    person.waits(lambda: "3.5 stars" in person.notice(), "not rated")
    person.settles()
    assert (movie_id, EventKind.RATED, 3.5) in opinions_of(history, user)
    person.clicks(details.take_back)
    person.waits(lambda: "Taken back" in person.notice(), "not taken back")
    person.settles()
    assert opinions_of(history, user) == []


def test_rating_and_taking_back_by_keys(person: Person, history: Recommender, user: str) -> None:
    person.presses("Down", "4")
    person.waits(lambda: "you gave" in person.notice(), "not rated")
    person.settles()
    movie_id = shown_id(person)
    assert opinions_of(history, user) == [(movie_id, EventKind.RATED, 4.0)]
    person.presses("plus")
    person.waits(lambda: "4.5 stars" in person.notice(), "no half more")
    person.settles()
    # On the stars themselves: two halves less, and Enter.
    person.window.details.stars.focus_set()
    person.presses("Left", "Left", "Return")
    person.waits(lambda: "3.5 stars" in person.notice(), "not by arrow keys")
    person.settles()
    assert opinions_of(history, user) == [(movie_id, EventKind.RATED, 3.5)]
    person.presses("u")
    person.waits(lambda: "Taken back" in person.notice(), "not taken back")
    person.settles()
    assert opinions_of(history, user) == []


def test_what_was_said_is_listed_and_can_be_taken_back_there(person: Person, history: Recommender, user: str) -> None:
    person.presses("Down", "l")
    person.settles()
    liked = shown_id(person)
    person.presses("ctrl+2")
    person.settles()
    assert [card.movie.movie_id for card in person.window.films.cards] == [liked]
    assert str(person.window.films.cards[0].opinion) == "You like it"
    person.presses("Down", "u")
    person.settles()
    assert opinions_of(history, user) == []
    person.presses("ctrl+1")
    person.settles()
    assert person.window.films.sections()[0] == "What most people watch"


def test_filters_by_keyboard(person: Person) -> None:
    person.presses("F4")
    genre = person.window.filters.genres.focus()
    person.presses("space")
    person.settles()
    assert all(genre in card.movie.genres for card in person.window.films.cards)
    person.presses("Tab")
    person.types("1960")
    person.presses("Tab")
    person.types("1975")
    person.presses("Return")
    person.settles()
    years = [card.movie.year for card in person.window.films.cards]
    assert years
    assert all(year is not None and 1960 <= year <= 1975 for year in years)
    # Down in the box of languages chooses the first of them.
    for key in ("Tab", "Down", "Down", "Return"):
        person.presses(key)
        person.settles()
    person.settles()
    language = person.window.filters.choice().languages
    assert len(language) == 1
    assert all(card.movie.language == language[0] for card in person.window.films.cards)
    person.presses("shift+F4")
    person.settles()
    assert not person.window.filters.choice()
    assert len(person.titles()) >= 20


def test_a_genre_by_mouse_and_years_that_are_none(person: Person) -> None:
    tree = person.window.filters.genres
    first = tree.get_children()[0]
    person.clicks_row(tree, first)
    person.settles()
    assert all(first in card.movie.genres for card in person.window.films.cards)
    person.clicks(person.window.filters.year_min)
    person.types("soon")
    person.presses("Return")
    assert "“soon” is no year" in person.notice()
    person.clicks(person.window.filters.clear)
    person.settles()
    assert "no year" not in person.notice()


def test_similar_films_open_like_any_other(person: Person) -> None:
    person.presses("Down", "Return")
    person.settles()
    first = shown_id(person)
    details = person.window.details
    assert details.similar.sections()[0].startswith("Similar to ")
    other = details.similar.cards[0].movie.movie_id
    details.similar.focus_first()
    person.presses("Return")
    person.settles()
    assert shown_id(person) == other != first


def test_tab_reaches_everything_and_f6_goes_from_part_to_part(person: Person) -> None:
    person.presses("Down")
    person.settles()
    person.window.header.search.focus_set()
    reached: list[tk.Misc | None] = []
    for _ in range(40):
        person.presses("Tab")
        reached.append(person.root.focus_get())
    window = person.window
    wanted: list[tk.Misc] = [
        window.films.tree,
        window.header.search,
        window.filters.genres,
        window.filters.year_min,
        window.filters.year_max,
        window.filters.language,
        window.filters.clear,
        *window.details.parts,
    ]
    wanted += window.header.buttons.winfo_children()
    # What can be neither pressed nor read just now is passed over.
    missed = [str(widget) for widget in wanted if widget not in reached and widget is not window.details.take_back]
    assert missed == []
    window.header.search.focus_set()
    parts = []
    for _ in range(4):
        person.presses("F6")
        parts.append(person.root.focus_get())
    assert parts == [window.filters.genres, window.films.tree, window.details.like, window.header.search]
    person.presses("shift+F6")
    assert person.root.focus_get() == window.details.like


def test_the_keys_are_listed(person: Person) -> None:
    person.presses("F1")
    person.waits(lambda: len(pages(person)) == 1, "no page")
    texts = " ".join(str(label.cget("text")) for label in descendants(pages(person)[0]) if isinstance(label, ttk.Label))
    for key in ("Ctrl+F", "F6", "Escape", "Ctrl+T", "U"):
        assert key in texts
    pages(person)[0].focus_force()
    person.presses("Escape")
    person.waits(lambda: not pages(person), "the page stays")


def pages(person: Person) -> list[tk.Misc]:
    return [child for child in person.root.winfo_children() if isinstance(child, tk.Toplevel)]


def descendants(widget: tk.Misc) -> Iterator[tk.Misc]:
    for child in widget.winfo_children():
        yield child
        yield from descendants(child)


def test_a_narrow_window_shows_one_part_at_a_time(person: Person) -> None:
    window = person.window

    def shown() -> tuple[bool, bool, bool]:
        person.root.update()
        return tuple(bool(part.winfo_ismapped()) for part in (window.filters, window.films, window.details))  # type: ignore[return-value]

    assert shown() == (True, True, True)
    person.looks_at(420, 700)
    person.waits(lambda: shown() == (False, True, False), "not only the list")
    window.films.focus_first()
    person.presses("Return")
    person.waits(lambda: shown() == (False, False, True), "not only the film")
    person.presses("Escape")
    person.waits(lambda: shown() == (False, True, False), "not back")
    person.presses("F4")
    person.waits(lambda: shown() == (True, False, False), "not only the filters")
    person.presses("F4")
    person.looks_at(1180, 760)
    person.waits(lambda: shown() == (True, True, True), "not all again")


def test_what_is_said_in_a_narrow_window_leaves_its_film_in_front(person: Person) -> None:
    person.looks_at(420, 700)
    person.types("harbor")
    person.waits(lambda: "Films called “harbor”" in person.window.films.sections(), "nothing found")
    person.presses("Down", "Return", "l")
    person.waits(lambda: "Noted: you like" in person.notice(), "not noted")
    person.settles()
    assert person.window.details.winfo_ismapped()
    person.presses("Escape")
    person.settles()
    assert person.window.films.winfo_ismapped()
    assert "Films called “harbor”" in person.window.films.sections()


def test_titles_that_come_late_do_not_take_another_views_place(person: Person) -> None:
    person.types("harbor")
    person.presses("ctrl+2")
    person.settles()
    assert person.window.films.sections() == ["You have not said anything yet"]
    assert person.window.header.typed.get() == ""


def test_light_and_dark_by_key(person: Person) -> None:
    light = str(person.window.details.text.cget("background"))
    person.presses("ctrl+t")
    dark = str(person.window.details.text.cget("background"))
    person.presses("ctrl+t")
    assert (light, dark) == ("#fafafa", "#1c1c1c")
    assert str(person.window.details.text.cget("background")) == light


@pytest.mark.parametrize("title", ODD)
def test_odd_titles_are_shown_and_can_be_liked(person: Person, history: Recommender, user: str, title: str) -> None:
    person.window.header.typed.set(title)
    person.waits(lambda: title in person.titles(), "not found")
    person.settles()
    card = next(card for card in person.window.films.cards if card.movie.title == title)
    person.window.films.select(card.movie.movie_id)
    person.window.films.focus_first()
    person.presses("l")
    person.waits(lambda: f"you like {title}" in person.notice(), "not noted")
    person.settles()
    assert opinions_of(history, user) == [(card.movie.movie_id, EventKind.LIKED, None)]


def test_anything_may_be_typed(person: Person) -> None:
    for text in ("😀", "{$[exec x]}", '"*" NEAR( AND', "שלום", "\\", "x" * 2000):
        person.window.header.typed.set(text)
        person.settles()
    person.presses("Escape")
    person.settles()
    assert len(person.titles()) >= 20


def test_ten_thousand_rapid_clicks_end_in_the_last_one(person: Person, history: Recommender, user: str) -> None:
    person.presses("Down")
    person.settles()
    details, movie_id = person.window.details, shown_id(person)
    for _ in range(2_500):
        details.like.invoke()
        details.dislike.invoke()
        details.take_back.invoke()
        details.like.invoke()
    details.dislike.invoke()
    person.settles()
    assert opinions_of(history, user) == [(movie_id, EventKind.DISLIKED, None)]
    assert details.card is not None
    assert details.card.opinion == Opinion(Verdict.DISLIKED)


def test_clicks_on_many_films_all_count(person: Person, history: Recommender, user: str) -> None:
    wanted = [card.movie.movie_id for card in person.window.films.cards[:8]]
    for movie_id in wanted:
        card = next(card for card in person.window.films.cards if card.movie.movie_id == movie_id)
        person.window.details.begin(card)
        person.window.details.like.invoke()
    person.settles()
    assert sorted(movie_id for movie_id, _, _ in opinions_of(history, user)) == sorted(wanted)


def test_a_list_keeps_what_is_selected(person: Person) -> None:
    cards = person.window.films.cards[:5]
    person.window.films.show([Section("One", cards)])
    person.window.films.select(cards[3].movie.movie_id)
    person.window.films.show([Section("Other", cards[::-1])])
    assert person.window.films.selected == cards[3]


@pytest.mark.parametrize("width", [420, 1180])
def test_pictures_of_both_themes(person: Person, tmp_path: Path, width: int) -> None:
    person.looks_at(width, 760)
    person.settles()
    brightness = []
    for theme in ("light", "dark"):
        picture = tmp_path / f"{theme}.png"
        person.photographs(picture)
        with Image.open(picture) as image:
            assert image.size == (width, 760)
            # Tiles, texts and frames: not one colour.
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 100
            brightness.append(ImageStat.Stat(image.convert("L")).mean[0])
        person.presses("ctrl+t")
    assert brightness[0] > 200
    assert brightness[1] < 80
