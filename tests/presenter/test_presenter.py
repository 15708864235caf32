"""What a person sees and does, against both services."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from clients.presenter import Card, Choice, Mood, Opinion, Presenter, Told, Verdict, changes
from tests.bundles import movie_record
from tests.presenter.conftest import Stand

LIKED, OTHER = movie_record(3), movie_record(8)


def ids(cards: Iterable[Card]) -> list[int]:
    return [card.movie.movie_id for card in cards]


async def test_somebody_new_is_shown_what_most_people_watch(presenter: Presenter) -> None:
    home = await presenter.home("new")
    assert len(home.cards) == 10
    assert [card.rank for card in home.cards] == list(range(1, 11))
    assert (home.personal, home.whole, home.shelves, home.opinions) == (False, True, (), 0)
    assert [(notice.mood, notice.text) for notice in home.notices] == [
        (Mood.HINT, "This is what most people watch. Like a few films, and it becomes your list.")
    ]


async def test_a_like_moves_the_list_and_says_so(presenter: Presenter) -> None:
    before = await presenter.home("ada")
    told = await presenter.like("ada", LIKED.movie_id, before.request_id)
    assert told == Told(True, told.notice)
    assert told.notice.text == f"Noted: you like {LIKED.title}."
    home = await presenter.home("ada")
    assert home.personal
    assert not home.notices
    assert LIKED.movie_id not in ids(home.cards)
    moved = changes(ids(before.cards), home.cards)
    assert moved.new == set(ids(home.cards)) - set(ids(before.cards)) != set()
    assert str(moved) == f"{len(moved.new)} films are new in your list."


async def test_films_say_which_liked_film_brought_them(presenter: Presenter) -> None:
    await presenter.like("ada", LIKED.movie_id)
    await presenter.rate("ada", OTHER.movie_id, 4.5)
    home = await presenter.home("ada")
    reasons = {card.reason for card in home.cards} - {""}
    assert reasons <= {f"Because you liked {LIKED.title}", f"Because you gave {OTHER.title} 4.5 stars"}
    assert reasons
    assert [shelf.headline for shelf in home.shelves] == [
        f"Because you gave {OTHER.title} 4.5 stars",
        f"Because you liked {LIKED.title}",
    ]
    shown = ids(card for shelf in home.shelves for card in shelf.cards)
    assert shown
    assert not {LIKED.movie_id, OTHER.movie_id, *ids(home.cards)} & set(shown)


async def test_a_dislike_brings_nothing(presenter: Presenter) -> None:
    await presenter.dislike("ada", LIKED.movie_id)
    home = await presenter.home("ada")
    assert not home.shelves
    assert not any(card.reason for card in home.cards)


async def test_the_last_opinion_of_a_film_is_the_only_one(presenter: Presenter) -> None:
    for step in (
        presenter.like("ada", LIKED.movie_id),
        presenter.dislike("ada", LIKED.movie_id),
        presenter.rate("ada", LIKED.movie_id, 3.5),
    ):
        assert (await step).done
    history = await presenter.history("ada")
    assert [(line.card.movie.movie_id, line.card.opinion) for line in history.lines] == [
        (LIKED.movie_id, Opinion(Verdict.RATED, 3.5))
    ]
    assert str(history.lines[0].card.opinion) == "You gave it 3.5 stars"


async def test_a_like_and_its_retraction_leave_the_first_list(presenter: Presenter) -> None:
    before = await presenter.home("ada")
    await presenter.like("ada", LIKED.movie_id)
    told = await presenter.take_back("ada", LIKED.movie_id)
    assert told.notice.text == f"Taken back: you say nothing about {LIKED.title} any more."
    after = await presenter.home("ada")
    assert ids(after.cards) == ids(before.cards)
    assert (await presenter.history("ada")).lines == ()


async def test_rapid_clicks_leave_what_was_clicked_last(presenter: Presenter) -> None:
    clicks = [presenter.like, presenter.dislike, presenter.take_back] * 30
    told = await asyncio.gather(
        *(click("ada", LIKED.movie_id) for click in clicks), presenter.like("ada", OTHER.movie_id)
    )
    assert all(one.done for one in told)
    await presenter.dislike("ada", LIKED.movie_id)
    history = await presenter.history("ada")
    assert {line.card.movie.movie_id: line.card.opinion for line in history.lines} == {
        LIKED.movie_id: Opinion(Verdict.DISLIKED),
        OTHER.movie_id: Opinion(Verdict.LIKED),
    }


@pytest.mark.parametrize("stars", [0.0, 0.7, 5.5, -1.0, float("nan")])
async def test_a_rating_is_of_half_stars(presenter: Presenter, stars: float) -> None:
    told = await presenter.rate("ada", LIKED.movie_id, stars)
    assert (told.done, told.notice.text) == (False, "Rate a film with 0.5 to 5 stars, in halves.")


async def test_a_film_that_is_none_is_not_noted(presenter: Presenter) -> None:
    told = await presenter.like("ada", 2)
    assert (told.done, told.notice.mood, told.notice.text) == (False, Mood.REFUSED, "There is no such film.")
    assert (await presenter.history("ada")).total == 0


async def test_filters_hold_for_list_and_shelves(presenter: Presenter) -> None:
    await presenter.like("ada", LIKED.movie_id)
    home = await presenter.home("ada", Choice(genres=("comedy",), year_min=1960, year_max=1999))
    shown = [*home.cards, *(card for shelf in home.shelves for card in shelf.cards)]
    assert shown
    assert all("Comedy" in card.movie.genres and 1960 <= (card.movie.year or 0) <= 1999 for card in shown)


async def test_a_list_that_filters_empty_says_why(presenter: Presenter) -> None:
    home = await presenter.home("ada", Choice(year_min=2100))
    assert home.cards == ()
    assert "No film passes your filters. Take one away." in [notice.text for notice in home.notices]


async def test_the_offer_counts_the_catalogue(presenter: Presenter) -> None:
    offer = await presenter.offer()
    records = [movie_record(number) for number in range(50)]
    assert {one.value: one.films for one in offer.genres} == {
        genre: sum(genre in record.genres for record in records)
        for genre in {genre for record in records for genre in record.genres}
    }
    assert {one.label for one in offer.languages} == {"English", "French", "Japanese"}
    assert offer.decades[0].label.endswith("0s")


async def test_a_title_is_found_while_it_is_typed(presenter: Presenter) -> None:
    await presenter.like("ada", LIKED.movie_id)
    found = await presenter.typed(f"  {LIKED.title[:-2].upper()}\x00 ", "ada", limit=50)
    opinions = {card.movie.movie_id: card.opinion for card in found.cards}
    assert opinions[LIKED.movie_id] == Opinion(Verdict.LIKED)
    assert not found.notices


@pytest.mark.parametrize("text", ["", "   ", "\x00\x1f", "\ud800"])
async def test_nothing_typed_finds_nothing(presenter: Presenter, text: str) -> None:
    found = await presenter.typed(text)
    assert (found.text, found.cards, found.notices) == ("", (), ())


@pytest.mark.parametrize("text", ["🎬🎬", "عنوان", '"; DROP TABLE', "<script>alert(1)</script>", "x" * 5_000])
async def test_odd_titles_are_looked_for_like_others(presenter: Presenter, text: str) -> None:
    found = await presenter.typed(text)
    assert found.cards == ()
    assert found.notices[0].mood is Mood.HINT
    assert len(found.text) <= 200


async def test_a_film_says_what_speaks_for_it(presenter: Presenter) -> None:
    await presenter.like("ada", LIKED.movie_id)
    await presenter.dislike("ada", OTHER.movie_id)
    target = (await presenter.home("ada")).cards[0].movie
    film = await presenter.film("ada", target.movie_id)
    assert film.card is not None
    assert film.card.movie == target
    assert {(reason.movie.movie_id, reason.text) for reason in film.reasons} <= {
        (LIKED.movie_id, "you like it"),
        (OTHER.movie_id, "you do not like it"),
    }
    weights = [abs(reason.weight) for reason in film.reasons]
    assert weights
    assert weights == sorted(weights, reverse=True)
    assert film.similar.headline == f"Similar to {target.title}"
    assert target.movie_id not in ids(film.similar.cards)


async def test_there_is_no_screen_of_a_film_that_is_none(presenter: Presenter) -> None:
    film = await presenter.film("ada", 2)
    assert film.card is None
    assert [notice.text for notice in film.notices] == ["There is no such film."]


async def test_who_is_forgotten_is_new(presenter: Presenter) -> None:
    await presenter.like("ada", LIKED.movie_id)
    told = await presenter.forget("ada")
    assert (told.done, told.notice.text) == (True, "Everything that you said is deleted.")
    assert (await presenter.history("ada")).lines == ()
    assert not (await presenter.home("ada")).personal


async def test_without_the_encoder_there_is_what_most_people_watch(stand: Stand) -> None:
    await stand.presenter.like("ada", LIKED.movie_id)
    await stand.encoder.aclose()
    home = await stand.presenter.home("ada", Choice(genres=("Comedy",)))
    assert (home.personal, home.whole) == (False, False)
    assert home.cards
    assert all("Comedy" in card.movie.genres for card in home.cards)
    assert home.notices[0].mood is Mood.AWAY
    told = await stand.presenter.like("ada", LIKED.movie_id)
    assert (told.done, told.notice.mood) == (False, Mood.AWAY)
    assert (await stand.presenter.film("ada", LIKED.movie_id)).card is not None


async def test_with_nobody_there_is_what_was_remembered(stand: Stand) -> None:
    top = ids((await stand.presenter.home("new")).cards)
    await stand.encoder.aclose()
    await stand.retriever.aclose()
    home = await stand.presenter.home("ada", Choice(genres=("comedy",), year_min=1950))
    assert home.cards
    assert all("Comedy" in card.movie.genres for card in home.cards)
    assert [notice.mood for notice in home.notices] == [Mood.AWAY]
    assert "is it running?" in home.notices[0].detail
    assert len((await stand.presenter.home("ada")).cards) == len(top)
    assert (await stand.presenter.film("ada", LIKED.movie_id)).notices[0].mood is Mood.AWAY
    assert (await stand.presenter.typed("harbor")).notices[0].mood is Mood.AWAY
    assert not (await stand.presenter.forget("ada")).done
