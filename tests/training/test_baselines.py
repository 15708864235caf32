"""Baselines against textbook formulas and rankings that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from marquee import features
from marquee.errors import ConfigError
from marquee.features import LIKED, RATED
from tests.logs import log_of
from training.baselines import (
    Ease,
    Factors,
    Neighbours,
    Popularity,
    RecencyEase,
    TransitionsEase,
    baseline_lists,
    ease,
    factors,
    fit_baselines,
    left_out,
    neighbours,
)
from training.baselines.factors import FactorConfig
from training.baselines.interactions import history, watched
from training.baselines.neighbours import Nearest
from training.baselines.suite import SUITES, ranked
from training.baselines.transitions import follows
from training.split import Queries, Split, before, last_queries

SPEC = features.feature_spec(max_history=200, dimension=8, content_buckets=8, max_content_tokens=4)
MOVIES = 12


def textbook_ease(watched: np.ndarray, penalty: float) -> np.ndarray:
    inverse = np.linalg.inv(watched.T.astype(np.float64) @ watched + penalty * np.eye(watched.shape[1]))
    weights: np.ndarray = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize(("people", "movies"), [(40, 15), (15, 40), (20, 20)])
def test_ease_is_the_textbooks_whichever_matrix_is_smaller(people: int, movies: int) -> None:
    rng = np.random.default_rng(people)
    watched_UN = (rng.random((people, movies)) < 0.3).astype(np.float32)
    weights_QN = (rng.random((6, movies)) < 0.3) * rng.random((6, movies), np.float32)
    scores = Ease(sparse.csr_array(watched_UN), 7.0).weigh(sparse.csr_array(weights_QN))
    expected = weights_QN @ textbook_ease(watched_UN, 7.0)
    np.testing.assert_allclose(scores[weights_QN == 0], expected[weights_QN == 0], atol=1e-4)


def test_ease_asks_for_a_higher_penalty_where_it_cannot_invert() -> None:
    with pytest.raises(ConfigError, match="raise the penalty"):
        Ease(sparse.csr_array(np.zeros((3, 2), np.float32)), 0.0)


def pairs() -> Queries:
    """Asks three people who watched 0 and 1, 2 and 3, 4 and 5, and at last 6."""
    log = log_of(*((user, item, RATED) for user in range(3) for item in (2 * user, 2 * user + 1, 6)))
    return last_queries(log)


def test_popularity_is_how_many_people_watched_for_everybody() -> None:
    log = log_of((0, 2, RATED), (0, 2, LIKED), (1, 2, RATED), (1, 0, RATED))
    scores = Popularity(watched(log, 4)).scores(pairs())
    assert scores.tolist() == [[1, 0, 2, 0]] * 3


def test_a_history_weighs_the_newest_one_and_older_ones_by_half() -> None:
    log = log_of((0, 3, RATED), (0, 1, RATED), (0, 3, LIKED), (0, 2, RATED), (0, 7, RATED))
    weights = history(last_queries(log), 8, half_life=1.0).toarray()
    assert weights.tolist() == [[0, 1 / 4, 1, 1 / 2, 0, 0, 0, 0]], "movie 3 counts by its latest event"
    assert history(last_queries(log), 8).toarray().tolist() == [[0, 1, 1, 1, 0, 0, 0, 0]]


def test_recency_weighted_ease_follows_the_newest_event() -> None:
    # Movies 0 and 1 go together, and 2 and 3; the person who asks watched 0 and then 2.
    log = log_of(*((user, item, RATED) for user in range(8) for item in ((0, 1) if user % 2 else (2, 3))))
    asks = last_queries(log_of((0, 0, RATED), (0, 2, RATED), (0, 5, RATED)))
    fitted = Ease(watched(log, 6), 1.0)
    old = fitted.scores(asks)[0]
    new = RecencyEase(fitted, 6, 1.0).scores(asks)[0]
    assert old[1] == pytest.approx(old[3])
    assert new[1] == pytest.approx(new[3] / 2)


def test_transitions_are_counted_within_five_steps_of_the_same_person() -> None:
    log = log_of(*((0, item, RATED) for item in range(7)), (1, 0, RATED), (1, 2, RATED))
    share = follows(log, 7).toarray()
    assert share[0].tolist() == pytest.approx([0, 1 / 7, 2 / 7, 1 / 7, 1 / 7, 1 / 7, 0]), "movie 0 has 2 + 5 events"
    assert share[6].tolist() == [0] * 7, "what another person did next does not follow"
    assert share[2, 0] == 0, "order counts"


def test_transitions_are_added_to_ease_with_their_weight() -> None:
    log = log_of(*((user, item, RATED) for user in range(4) for item in (0, 1, 2)))
    fitted, steps = Ease(watched(log, 7), 2.0), follows(log, 7)
    scorer = TransitionsEase(fitted, steps, half_life=math.inf, step_half_life=1.0, weight=3.0)
    expected = fitted.scores(pairs()) + 3.0 * history(pairs(), 7, 1.0).toarray() @ steps.toarray()
    np.testing.assert_allclose(scorer.scores(pairs()), expected, rtol=1e-5)


def test_neighbours_are_by_cosine_with_shrinkage() -> None:
    # Movie 0 has people 0 to 3, movie 1 people 0 and 1, movie 2 person 0, movie 3 person 4.
    log = log_of((0, 0, RATED), (0, 1, RATED), (0, 2, RATED), (1, 0, RATED), (1, 1, RATED), (2, 0, RATED),
                 (3, 0, RATED), (4, 3, RATED))  # fmt: skip
    nearest = Nearest(watched(log, 4), 0.5, 3)
    full = nearest.matrix(3).toarray()
    assert full[0, 1] == full[1, 0] == pytest.approx(2 / (2 * math.sqrt(2) + 0.5))
    assert full[0, 2] == pytest.approx(1 / (2 * 1 + 0.5))
    assert full[3].tolist() == [0] * 4
    assert np.diag(full).tolist() == [0] * 4
    one = nearest.matrix(1).toarray()
    assert one[1, 0] == full[1, 0], "movie 0's nearest is 1"
    assert one[2, 0] == 0
    asks = last_queries(log_of((0, 0, RATED), (0, 3, RATED)))
    assert Neighbours(nearest, 3).scores(asks)[0].tolist() == pytest.approx(full[0].tolist())


def two_tastes(people: int = 40) -> Split:
    """Holds people who watch four of the six movies of their taste, even movies or odd ones."""
    rng = np.random.default_rng(2)
    rows = []
    for person in range(people):
        for item in rng.permutation(MOVIES // 2)[:4]:
            rows.append((person, int(2 * item + person % 2), RATED))
    test = last_queries(log_of(*rows))
    fit = before(test, SPEC)
    validation = last_queries(fit)
    return Split("last", 0, before(validation, SPEC), fit, validation, test)


def test_factors_are_solved_for_anew_from_the_history_alike_on_any_number_of_threads() -> None:
    split = two_tastes()
    train = watched(split.fit, MOVIES)
    one = Factors(train, FactorConfig(4, 0.1, 2.0)).scores(split.test)
    two = Factors(train, FactorConfig(4, 0.1, 2.0, threads=2)).scores(split.test)
    np.testing.assert_array_equal(one, two)
    # Weighted least squares of a history over the movies' factors, by its textbook formula.
    model = Factors(train, FactorConfig(4, 0.1, 2.0))._model
    items = model.item_factors.astype(np.float64)
    known = history(split.test, MOVIES).toarray()[0]
    weighted = items.T @ items + items.T @ np.diag(known * (2.0 - 1.0)) @ items + 0.1 * np.eye(4)
    person = np.linalg.solve(weighted, items.T @ (known * 2.0))
    np.testing.assert_allclose(one[0], items @ person, atol=1e-4)


def test_every_baseline_but_popularity_tells_two_tastes_apart() -> None:
    split = two_tastes()
    for suite in SUITES:
        for system, items_QK in baseline_lists(MOVIES, split, suite):
            hits = sum(target in items[:3] for target, items in zip(split.test.targets, items_QK, strict=True))
            # Three movies of their taste are left to each person; popularity cannot tell them from the other three.
            assert hits == split.test.size if system != "popularity" else hits < 0.5 * split.test.size, (suite, system)


def test_what_was_seen_is_not_ranked_and_the_rest_is_ranked_whole() -> None:
    split = two_tastes()
    for _, items_QK in baseline_lists(MOVIES, split, "quick"):
        assert items_QK.shape == (split.test.size, 100)
        seen = split.test.seen(MOVIES)
        for query, items in enumerate(items_QK):
            assert sorted(items[items >= 0].tolist()) == np.flatnonzero(~seen[query]).tolist()


def test_settings_are_those_of_the_highest_validation_figure_and_never_see_the_test() -> None:
    split = two_tastes()
    other = split._replace(test=split.test.part(slice(0, 3)))
    for one, again in zip(fit_baselines(MOVIES, split, "all"), fit_baselines(MOVIES, other, "all"), strict=True):
        assert (one.settings, one.validation) == (again.settings, again.validation)
        asked = ranked(one.scorer, other.test, MOVIES)
        np.testing.assert_array_equal(asked, ranked(again.scorer, other.test, MOVIES))


def test_without_validation_the_middle_of_each_grid_is_taken() -> None:
    split = two_tastes()
    blind = split._replace(validation=split.validation.part(slice(0, 0)))
    found = {one.system: one for one in fit_baselines(MOVIES, blind, "quick")}
    assert found["ease"].settings == {"penalty": 300.0}
    assert math.isnan(found["ease"].validation)


def test_what_the_data_are_too_large_for_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    split = two_tastes()
    assert left_out(MOVIES, split, "all") == []
    monkeypatch.setattr(ease, "LARGEST_SIDE", 5)
    monkeypatch.setattr(neighbours, "LARGEST_WORK", 5)
    monkeypatch.setattr(factors, "LARGEST_EVENTS", 5)
    systems = [one.system for one in baseline_lists(MOVIES, split, "all")]
    assert systems == ["popularity"]
    sentences = left_out(MOVIES, split, "all")
    assert [sentence.split()[0] for sentence in sentences] == [*SUITES["all"]][1:]
    assert "40 people and 12 movies" in sentences[2]


def test_an_unknown_suite_is_named() -> None:
    with pytest.raises(ConfigError, match="baselines is 'best'"):
        baseline_lists(MOVIES, two_tastes(), "best")
