"""Metric values, written as arithmetic that a reader can redo."""

import math

import numpy as np
import pytest

from training.metrics import interval, ndcg_at, recall_at, top_k

HITS = np.array([[True, False, True, False], [False, False, False, False], [False, True, False, False]])
TARGETS = np.array([3, 1, 1])


def test_recall_divides_by_what_could_be_found() -> None:
    assert recall_at(HITS, TARGETS, 4).tolist() == [2 / 3, 0 / 1, 1 / 1]
    assert recall_at(HITS, TARGETS, 2).tolist() == [1 / 2, 0 / 1, 1 / 1]
    assert recall_at(HITS, TARGETS, 1).tolist() == [1 / 1, 0 / 1, 0 / 1]


def test_ndcg_discounts_by_log2_of_the_place() -> None:
    first = (1 / math.log2(2) + 1 / math.log2(4)) / (1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4))
    third = (1 / math.log2(3)) / (1 / math.log2(2))
    assert ndcg_at(HITS, TARGETS, 4) == pytest.approx([first, 0.0, third])


def test_ndcg_of_a_short_list_keeps_the_ideal_of_k() -> None:
    assert ndcg_at(HITS[:1, :2], TARGETS[:1], 10) == pytest.approx(
        [1.0 / (1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4))]
    )


def test_top_k_leaves_out_what_was_seen_and_breaks_ties_by_row() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.1, 0.7]], np.float32)
    seen = np.array([[True, False, False, False, False]])
    assert top_k(scores, seen, 3).tolist() == [[4, 1, 2]]


def test_top_k_says_minus_one_where_too_few_are_left() -> None:
    seen = np.array([[True, True, False]])
    assert top_k(np.array([[3.0, 2.0, 1.0]], np.float32), seen, 3).tolist() == [[2, -1, -1]]


def test_top_k_equals_a_full_sort() -> None:
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 9, (20, 50)).astype(np.float32)
    seen = rng.random((20, 50)) < 0.3
    for row, ranked in enumerate(top_k(scores, seen, 10)):
        allowed = [item for item in range(50) if not seen[row, item]]
        assert ranked.tolist() == sorted(allowed, key=lambda item: (-scores[row, item], item))[:10]


def test_the_interval_holds_the_mean_and_narrows_with_more_queries() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.random(30), rng.random(3000)
    low, high = interval(few)
    assert low < few.mean() < high
    narrow = interval(many)
    assert narrow[1] - narrow[0] < high - low
    assert interval(np.full(10, 0.25)) == (0.25, 0.25)
