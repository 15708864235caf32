"""The linear teacher against its definition, stretch by stretch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from marquee.features import WATCHED
from tests.logs import log_of
from training import teacher
from training.batches import EventLog
from training.teacher import Teacher

MOVIES = 9


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "_STRETCH", 3)
    monkeypatch.setattr(teacher, "_PENALTY", 2.0)


def log_of_people(people: list[list[int]]) -> EventLog:
    return log_of(*((user, movie, WATCHED) for user, movies in enumerate(people) for movie in movies))


def by_definition(people: list[list[int]], known: list[int]) -> np.ndarray:
    """Adds up every history and every stretch of three, cut off at the ends, and inverts by another way."""
    gram = 2.0 * np.eye(MOVIES)
    for movies in people:
        seen = np.zeros(MOVIES)
        seen[movies] = 1.0
        gram += np.outer(seen, seen)
        for end in range(1, len(movies) + 3):
            stretch = np.bincount(movies[max(end - 3, 0) : end], minlength=MOVIES)
            gram += 2.0 / 3.0 * np.outer(stretch, stretch)
    inverse = np.linalg.inv(gram[np.ix_(known, known)])
    weights = np.zeros((MOVIES, MOVIES))
    weights[np.ix_(known, known)] = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def scores_of(log: EventLog, seen_N: np.ndarray) -> np.ndarray:
    scores_N: np.ndarray = Teacher(log, MOVIES).weigh(sparse.csr_array(seen_N[None].astype(np.float32)))[0]
    return scores_N


def test_every_stretch_is_somebody_who_watched_it() -> None:
    rng = np.random.default_rng(1)
    # With repetition: somebody may watch a movie again.
    people = [rng.integers(0, MOVIES - 1, rng.integers(1, 12)).tolist() for _ in range(12)]
    watchers = np.array(
        [len({user for user, movies in enumerate(people) if movie in movies}) for movie in range(MOVIES)]
    )
    known = np.flatnonzero(watchers >= 3).tolist()
    assert 3 < len(known) < MOVIES
    seen_N = (rng.random(MOVIES) < 0.4).astype(np.float64)
    unseen = seen_N == 0
    expected_N = seen_N @ by_definition(people, known)
    np.testing.assert_allclose(scores_of(log_of_people(people), seen_N)[unseen], expected_N[unseen], atol=1e-5)


def test_cut_to_as_many_directions_as_movies_it_is_whole() -> None:
    rng = np.random.default_rng(4)
    people = [rng.permutation(MOVIES - 2)[: rng.integers(2, 6)].tolist() for _ in range(20)]
    cut = Teacher(log_of_people(people), MOVIES).low_rank(rank=100, seed=0)
    assert cut.movies_M.tolist() == list(range(MOVIES - 2))
    expected_NN = by_definition(people, cut.movies_M.tolist())
    found_MM = cut.rows_MR @ cut.mix_RR @ cut.rows_MR.T
    np.testing.assert_allclose(found_MM, expected_NN[np.ix_(cut.movies_M, cut.movies_M)], atol=1e-5)


def test_cut_short_it_keeps_what_it_says_to_people() -> None:
    rng = np.random.default_rng(5)
    # Two tastes of four movies each, and now and then a movie of the other one.
    tastes = rng.integers(0, 2, 60)
    people = [(4 * ((taste + (rng.random(4) < 0.1)) % 2) + rng.permutation(4)).tolist() for taste in tastes]
    log = log_of_people(people)
    teacher, cut = Teacher(log, MOVIES), Teacher(log, MOVIES).low_rank(rank=5, seed=0)
    assert cut.rows_MR.shape == (8, 5)
    seen_UN = sparse.csr_array(
        np.stack([np.bincount(movies[:2], minlength=MOVIES) for movies in people]), dtype=np.float32
    )
    whole_UM = teacher.weigh(seen_UN)[:, cut.movies_M]
    short_UM = seen_UN[:, cut.movies_M] @ cut.rows_MR @ cut.mix_RR @ cut.rows_MR.T
    unseen_UM = seen_UN[:, cut.movies_M].toarray() == 0
    assert np.corrcoef(whole_UM[unseen_UM], short_UM[unseen_UM])[0, 1] > 0.9


def test_it_knows_no_movie_of_fewer_than_three_people() -> None:
    assert Teacher(log_of_people([[0, 1], [0, 2]]), MOVIES).knows == 0


def test_what_was_watched_next_to_it_is_nearer_than_what_was_watched_far_from_it() -> None:
    scores_N = scores_of(log_of_people([[0, 1, 4, 5, 6, 7, 2]] * 3), np.arange(MOVIES) == 0)
    assert scores_N[1] > scores_N[2] > 0.0


def test_only_the_most_watched_are_known_where_the_matrix_would_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "LARGEST_SIDE", 2)
    scores_N = scores_of(log_of_people([[0, 1, 2]] * 3 + [[0, 1]]), np.arange(MOVIES) == 0)
    assert np.flatnonzero(scores_N).tolist() == [0, 1]


def test_it_has_nothing_to_say_where_no_movie_has_enough_people() -> None:
    assert not scores_of(log_of_people([[0, 1], [0, 2]]), np.arange(MOVIES) == 0).any()
