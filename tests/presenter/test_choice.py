"""What a person filters by, read from the texts of a form."""

from __future__ import annotations

import pytest

from clients.presenter import Choice, choice_from
from marquee.client import InvalidRequest, Movie


def test_an_empty_form_is_no_choice() -> None:
    assert choice_from(["", " "], " ", "", []) == Choice()
    assert not choice_from()


def test_a_form_is_read() -> None:
    assert choice_from(["Comedy", "Drama", "Comedy"], "1990", " 1999 ", ["fr"]) == Choice(
        ("Comedy", "Drama"), 1990, 1999, ("fr",)
    )


@pytest.mark.parametrize(
    ("genres", "low", "high", "languages", "cure"),
    [
        ([], "199", "", [], "“199” is no year: write one from 1870 to"),
        ([], "", "3999", [], "such as 1999"),
        ([], "1999", "1990", [], "swap the years"),
        ([], "", "", ["french"], "“french” is no language code"),
        ([str(number) for number in range(41)], "", "", [], "choose at most 40 genres"),
        (["x" * 65], "", "", [], "too much to filter by"),
    ],
)
def test_what_is_no_choice_is_refused_with_the_cure(
    genres: list[str], low: str, high: str, languages: list[str], cure: str
) -> None:
    with pytest.raises(InvalidRequest, match=cure):
        choice_from(genres, low, high, languages)


def test_a_choice_lets_through_what_the_services_would() -> None:
    choice = Choice(("comedy",), 1990, 1999, ("en",))
    film = Movie(1, "Film", 1995, ("Comedy", "Drama"), "en")
    assert choice.lets_through(film)
    assert not choice.lets_through(Movie(1, "Film", None, ("Comedy",), "en"))
    assert not choice.lets_through(Movie(1, "Film", 2000, ("Comedy",), "en"))
    assert not choice.lets_through(Movie(1, "Film", 1995, ("Drama",), "en"))
    assert not choice.lets_through(Movie(1, "Film", 1995, ("Comedy",), "fr"))
    assert not Choice(year_max=1999).lets_through(Movie(1, "Film", None))
    assert Choice().lets_through(Movie(1, "Film"))
