"""From training to rpc: people of planted tastes get films of their taste, and the list follows what they do."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from marquee.bundle.format import ITEM_VECTORS, MOVIE_IDS
from marquee.client import FeatureSource, Recommender
from tests.conftest import Planted
from tests.planted import FILMS_OF_A_TASTE, PEOPLE_OF_A_TASTE, TASTES, person, taste_of
from training.data import load_dataset

PEOPLE = [person(taste, number) for taste in TASTES for number in range(0, PEOPLE_OF_A_TASTE, 20)]


def films(marquee: Recommender, user: str) -> list[int]:
    return [item.movie.movie_id for item in marquee.recommend(user, k=10)]


def of_taste(movie_ids: list[int], taste: str) -> int:
    return sum(taste_of(movie_id) == taste for movie_id in movie_ids)


@pytest.mark.parametrize("user", PEOPLE)
def test_at_least_8_of_10_are_of_the_persons_own_taste(marquee: Recommender, user: str) -> None:
    assert of_taste(films(marquee, user), user.split("-")[0]) >= 8


def test_people_of_different_tastes_share_at_most_3_of_10(marquee: Recommender) -> None:
    lists = {user: set(films(marquee, user)) for user in PEOPLE}
    for one in PEOPLE:
        for other in PEOPLE:
            if one.split("-")[0] != other.split("-")[0]:
                assert len(lists[one] & lists[other]) <= 3


def test_popularity_fails_where_the_model_passes(planted: Planted) -> None:
    data = load_dataset(planted.data)
    popular = [int(data.movie_ids[item]) for item, _ in Counter(data.items.tolist()).most_common()]
    for user in PEOPLE:
        seen = set(data.movie_ids[data.items[data.users == data.user_ids.index(user)]].tolist())
        shown = [movie_id for movie_id in popular if movie_id not in seen][:10]
        assert of_taste(shown, user.split("-")[0]) <= 5


def test_nothing_seen_is_shown_again(marquee: Recommender) -> None:
    for user in PEOPLE[:3]:
        seen = {event.movie_id for event in marquee.history(user)}
        assert not seen & set(films(marquee, user))
        shown = {item.movie.movie_id for item in marquee.recommend(user, k=212, exclude_seen=False)}
        assert seen <= shown


def mean_cosine(planted: Planted, shown: list[int], about: int) -> float:
    ids = np.asarray(planted.bundle.array(MOVIE_IDS))
    vectors = np.asarray(planted.bundle.array(ITEM_VECTORS))
    others = [movie_id for movie_id in shown if movie_id != about]
    return float((vectors[np.searchsorted(ids, others)] @ vectors[np.searchsorted(ids, about)]).mean())


@pytest.mark.parametrize("place", range(len(TASTES)))
def test_a_like_brings_the_list_nearer_and_a_dislike_drives_it_away(
    marquee: Recommender, planted: Planted, place: int
) -> None:
    taste, other = TASTES[place], TASTES[(place + 1) % len(TASTES)]
    user, stranger = person(taste, 1), FILMS_OF_A_TASTE * ((place + 1) % len(TASTES)) + 7
    assert taste_of(stranger) == other
    before = films(marquee, user)
    marquee.like(user, stranger)
    after = films(marquee, user)
    assert stranger not in after
    assert len(set(before) - set(after) - {stranger}) >= 3
    assert mean_cosine(planted, after, stranger) > mean_cosine(planted, before, stranger)

    unloved = after[0]
    marquee.dislike(user, unloved)
    last = films(marquee, user)
    assert unloved not in last
    assert mean_cosine(planted, last, unloved) < mean_cosine(planted, after, unloved)


def test_somebody_who_was_never_in_the_data_gets_films_of_the_taste_they_name(marquee: Recommender) -> None:
    for place, taste in enumerate(TASTES):
        likes = [FILMS_OF_A_TASTE * place + number for number in (2, 9, 17, 28)]
        found = marquee.recommend(likes=likes, k=10)
        assert found.source is FeatureSource.REQUEST
        assert found.events_used == 4
        assert of_taste([item.movie.movie_id for item in found], taste) >= 8


def test_a_new_person_without_events_gets_the_cold_start(marquee: Recommender) -> None:
    found = marquee.recommend("nobody-knows-me", k=10)
    assert found.source is FeatureSource.COLD_START
    assert len(found) == 10


def test_films_that_no_model_knows_are_counted_and_not_fatal(marquee: Recommender) -> None:
    found = marquee.recommend(likes=[2, 9, 10**12], k=5)
    assert (found.events_used, found.events_unknown, len(found)) == (2, 1, 5)
