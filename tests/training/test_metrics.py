"""Metric values, written as arithmetic that a reader can redo."""

import math

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from training.metrics import (
    coverage,
    distinctness,
    diversity,
    interval,
    intervals,
    mrr_at,
    ndcg_at,
    novelty,
    paired_difference,
    popularity_of,
    recall_at,
    top_k,
)

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


def test_mrr_is_one_over_the_first_place() -> None:
    assert mrr_at(HITS, 4).tolist() == [1 / 1, 0, 1 / 2]
    assert mrr_at(HITS, 1).tolist() == [1 / 1, 0, 0]


@pytest.mark.parametrize("k", [10, 20, 50, 100])
def test_ranking_metrics_are_those_of_an_independent_library(k: int) -> None:
    rng = np.random.default_rng(k)
    rankings = [rng.permutation(300)[:100] for _ in range(25)]
    targets = [rng.choice(300, int(rng.integers(1, 60)), replace=False) for _ in rankings]
    counts = np.array([len(wanted) for wanted in targets])
    hits = np.array([np.isin(ranking, wanted) for ranking, wanted in zip(rankings, targets, strict=True)])

    run = {
        f"q{query:02}": {str(item): float(-place) for place, item in enumerate(ranking)}
        for query, ranking in enumerate(rankings)
    }
    relevant = {f"q{query:02}": {str(item): 1 for item in wanted} for query, wanted in enumerate(targets)}
    theirs = {
        (str(found.measure), found.query_id): found.value
        for found in ir_measures.iter_calc([R @ k, nDCG @ k, RR @ k], relevant, run)
    }

    def of(measure: str) -> np.ndarray:
        return np.array([theirs[f"{measure}@{k}", f"q{query:02}"] for query in range(25)])

    # Theirs divides by all targets, ours by as many as k places can hold.
    np.testing.assert_allclose(recall_at(hits, counts, k), of("R") * counts / np.minimum(counts, k), atol=1e-9)
    np.testing.assert_allclose(ndcg_at(hits, counts, k), of("nDCG"), atol=1e-9)
    np.testing.assert_allclose(mrr_at(hits, k), of("RR"), atol=1e-9)


LISTS = np.array([[0, 1], [1, 0], [0, 2], [2, -1]])


def test_coverage_is_the_share_of_movies_that_are_shown_at_all() -> None:
    assert coverage(LISTS, 6) == 3 / 6


def test_equal_lists_count_once_in_whatever_order() -> None:
    assert distinctness(LISTS).tolist() == [1 / 2, 1 / 2, 1, 1]
    assert distinctness(LISTS).mean() == 3 / 4
    assert distinctness(np.zeros((50, 10), np.int64)).mean() == pytest.approx(1 / 50), "collapse"


def test_novelty_is_in_bits_and_a_movie_of_nobody_is_one_of_a_single_person() -> None:
    people = np.array([8, 4, 0])
    # Of 8 people all have movie 0 (0 bits), half movie 1 (1 bit), and 1 in 8 counts for movie 2 (3 bits).
    assert novelty(LISTS, people, 8).tolist() == [(0 + 1) / 2, (1 + 0) / 2, (0 + 3) / 2, 3 / 1]


def test_popularity_is_the_mean_of_logarithms() -> None:
    assert popularity_of(LISTS, np.array([7, 3, 0])).tolist() == [(3 + 2) / 2, (2 + 3) / 2, (3 + 0) / 2, 0]


def test_diversity_is_one_less_the_mean_jaccard_similarity() -> None:
    # Drama; Drama and War; Comedy; nothing.
    genres = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    lists = np.array([[0, 1, 2], [0, 1, -1], [3, 0, -1], [2, -1, -1]])
    found = diversity(lists, genres)
    assert found[:3].tolist() == pytest.approx([1 - (1 / 2 + 0 + 0) / 3, 1 - 1 / 2, 1 - 0])
    assert math.isnan(found[3]), "one movie makes no pair"


def test_many_intervals_at_once_are_the_single_ones() -> None:
    rng = np.random.default_rng(4)
    values = rng.random((40, 3))
    low, high = intervals(values.astype(np.float32))
    for series in range(3):
        assert (low[series], high[series]) == pytest.approx(interval(values[:, series]), abs=1e-6)


def test_a_series_of_fewer_queries_is_bounded_over_those() -> None:
    values = np.full((200, 2), np.nan, np.float32)
    values[:100, 0], values[:100, 1] = np.arange(100) % 2, 0.25
    low, high = intervals(values)
    # 100 throws of a coin: 0.5 +- 1.96 * 0.05.
    assert (low[0], high[0]) == pytest.approx((0.4, 0.6), abs=0.015)
    assert (low[1], high[1]) == (0.25, 0.25)


def test_a_paired_difference_is_narrow_where_both_vary_together() -> None:
    rng = np.random.default_rng(0)
    ease = rng.random(400)
    model = ease + 0.02 + 0.01 * rng.standard_normal(400)
    better = paired_difference(model, ease)
    assert better.value == pytest.approx((model - ease).mean())
    assert 0.018 < better.low < better.value < better.high < 0.022
    assert interval(model)[0] < ease.mean(), "unpaired, nothing could be told"
    worse = paired_difference(ease, model)
    assert (worse.low, worse.high) == pytest.approx((-better.high, -better.low), abs=2e-4)


def test_only_queries_that_both_answered_are_compared() -> None:
    found = paired_difference(np.array([1.0, np.nan, 3.0]), np.array([0.0, 1.0, np.nan]))
    assert found == (1.0, 1.0, 1.0, 1)
    assert paired_difference(np.array([np.nan]), np.array([1.0])).n == 0
