"""Facts as sentences and colours."""

from __future__ import annotations

import datetime as dt

import pytest

from clients.presenter import Card, words
from marquee.client import Movie

FILM = Movie(
    movie_id=1,
    title="Alien",
    year=1979,
    genres=("Horror", "Sci-Fi"),
    language="en",
    release_date=dt.date(1979, 5, 25),
    runtime_minutes=117,
    directors=("Ridley Scott",),
    cast=("A", "B"),
    mean_rating=4.0,
    rating_count=1204,
)


def test_facts_are_in_words_and_what_is_not_known_is_not_there() -> None:
    assert words.facts(FILM) == (
        ("Year", "1979"),
        ("Released", "25 May 1979"),
        ("Genres", "Horror, Sci-Fi"),
        ("Language", "English"),
        ("Runtime", "1 h 57 min"),
        ("Directed by", "Ridley Scott"),
        ("With", "A, B"),
        ("Rating", "4.0 of 5 stars, 1,204 ratings"),
    )
    assert words.facts(Movie(2, "Nothing")) == ()
    assert (Card(FILM).line, Card(Movie(2, "Nothing")).line) == ("1979 · Horror, Sci-Fi", "")


@pytest.mark.parametrize(("minutes", "text"), [(45, "45 min"), (60, "1 h"), (61, "1 h 1 min"), (0, "0 min")])
def test_a_runtime_reads_as_people_say_it(minutes: int, text: str) -> None:
    assert words.runtime(minutes) == text


def test_a_colour_is_that_of_the_most_telling_genre() -> None:
    assert words.hue(("Action", "Horror")) == words.hue(("HORROR",)) != words.hue(("Action",))
    assert words.hue(("Unheard of", "Drama")) == words.hue(("Drama",))
    assert words.hue(("Unheard of",)) == words.hue(("Unheard of",))
    assert 0 <= words.hue(()) < 360


def test_a_language_has_a_name_or_stays_a_code() -> None:
    assert (words.language("fr"), words.language("tlh")) == ("French", "tlh")
