"""Baselines and figures against textbook formulas and hand arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from marquee.features import RATED
from tests.logs import log_of
from training.baselines import Ease, Popularity
from training.evaluate import LIST_LENGTH, Lists, figures
from training.split import last_queries


def textbook_ease(watched: np.ndarray, penalty: float) -> np.ndarray:
    inverse = np.linalg.inv(watched.T.astype(np.float64) @ watched + penalty * np.eye(watched.shape[1]))
    weights: np.ndarray = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize(("people", "movies"), [(40, 15), (15, 40), (20, 20)])
def test_ease_is_the_textbooks_whichever_matrix_is_smaller(people: int, movies: int) -> None:
    rng = np.random.default_rng(people)
    watched = (rng.random((people, movies)) < 0.3).astype(np.float32)
    seen = (rng.random((6, movies)) < 0.3).astype(np.float32)
    scores = Ease(watched, 7.0).scores(seen)
    expected = seen @ textbook_ease(watched, 7.0)
    np.testing.assert_allclose(scores[seen == 0], expected[seen == 0], atol=1e-4)


def test_popularity_is_the_counts_for_everybody() -> None:
    scores = Popularity(np.array([3, 0, 7])).scores(np.zeros((2, 3), np.float32))
    assert scores.tolist() == [[3, 0, 7], [3, 0, 7]]


def test_figures_by_hand() -> None:
    # Three people with the targets 5, 6, 7; the stars of the targets are 5, 1, 4 after a first rating of 3.
    log = log_of(*((user, item, RATED) for user in range(3) for item in (user, user + 5)))
    log = log._replace(values=np.array([3, 5, 3, 1, 3, 4], np.float32))
    items = np.full((3, LIST_LENGTH), -1)
    items[0, :3] = [9, 5, 1]  # found at place 2
    items[1, :3] = [9, 1, 2]  # not found
    items[2, 11] = 7  # found at place 12
    found = {(m.targets, m.name): m.value for m in figures(Lists("x", items), last_queries(log), 20)}
    assert found["all", "recall@10"] == pytest.approx(1 / 3)
    assert found["all", "recall@50"] == pytest.approx(2 / 3)
    assert found["all", "ndcg@10"] == pytest.approx(1 / math.log2(3) / 3)
    assert found["liked", "recall@10"] == pytest.approx(1 / 2), "person 1 did not like their target"
    assert found["all", "coverage@10"] == pytest.approx(len({9, 5, 1, 2}) / 20)
    assert found["all", "distinct_lists@10"] == pytest.approx(3 / 3)
