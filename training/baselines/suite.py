"""Tunes the baselines on validation, refits them with it, and ranks the test's queries. Q queries, K list length."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from marquee.errors import ConfigError
from marquee.features import Int64s
from training.baselines import ease, factors, neighbours, transitions
from training.baselines.interactions import Scorer, Sparse, pairs_of, watched
from training.baselines.popularity import Popularity
from training.batches import EventLog
from training.metrics import ndcg_at, top_k
from training.split import Queries, Split

LIST_LENGTH = 100
# NDCG at this length is what is tuned for: one target is wanted early, a fifth of somebody's movies anywhere.
TUNED_AT = {"last": 10, "users": 100, "time": 100}
_TUNING_QUERIES = 2000
# So many scores are held at once, of at most so many queries.
_CELLS, _QUERIES = 5_000_000, 512

Settings = dict[str, float]
Grid = Mapping[str, tuple[float, ...]]


class Lists(NamedTuple):
    """Holds one system's ranked items [Q, K], -1 where it had no more."""

    system: str
    items_QK: Int64s


class Fitted(NamedTuple):
    """Holds a baseline with the settings that validation chose, and the NDCG that they had there."""

    system: str
    settings: Settings
    validation: float
    scorer: Scorer


class _Data(NamedTuple):
    log: EventLog
    movies: int
    watched_UN: Sparse
    threads: int


# Yields a scorer for each combination of the grid, so that what combinations share is computed once.
Candidates = Callable[[_Data, Grid], Iterator[tuple[Settings, Scorer]]]


def _popularity(data: _Data, _: Grid) -> Iterator[tuple[Settings, Scorer]]:
    yield {}, Popularity(data.watched_UN)


def _ease(data: _Data, grid: Grid) -> Iterator[tuple[Settings, Scorer]]:
    for penalty in grid["penalty"]:
        yield {"penalty": penalty}, ease.Ease(data.watched_UN, penalty)


def _recency_ease(data: _Data, grid: Grid) -> Iterator[tuple[Settings, Scorer]]:
    for penalty in grid["penalty"]:
        fitted = ease.Ease(data.watched_UN, penalty)
        for half_life in grid["half_life"]:
            yield {"penalty": penalty, "half_life": half_life}, ease.RecencyEase(fitted, data.movies, half_life)


def _transitions_ease(data: _Data, grid: Grid) -> Iterator[tuple[Settings, Scorer]]:
    follows_NN = transitions.follows(data.log, data.movies)
    names = ("half_life", "step_half_life", "weight")
    for penalty in grid["penalty"]:
        fitted = ease.Ease(data.watched_UN, penalty)
        for values in itertools.product(*(grid[name] for name in names)):
            chosen = dict(zip(names, values, strict=True))
            yield {"penalty": penalty} | chosen, transitions.TransitionsEase(fitted, follows_NN, **chosen)


def _neighbours(data: _Data, grid: Grid) -> Iterator[tuple[Settings, Scorer]]:
    for shrinkage in grid["shrinkage"]:
        nearest = neighbours.Nearest(data.watched_UN, shrinkage, int(max(grid["neighbours"])))
        for count in grid["neighbours"]:
            yield {"shrinkage": shrinkage, "neighbours": count}, neighbours.Neighbours(nearest, int(count))


def _factors(data: _Data, grid: Grid) -> Iterator[tuple[Settings, Scorer]]:
    names = ("factors", "regularization", "alpha")
    for size, regularization, alpha in itertools.product(*(grid[name] for name in names)):
        config = factors.FactorConfig(int(size), regularization, alpha, threads=data.threads)
        chosen = dict(zip(names, (size, regularization, alpha), strict=True))
        yield chosen, factors.Factors(data.watched_UN, config)


class _Baseline(NamedTuple):
    candidates: Candidates
    grid: Grid
    # Settings that the grid does not have are those that this baseline, tuned before, came to.
    after: str = ""


_PENALTIES = (30.0, 100.0, 300.0, 1000.0)
_POPULARITY = _Baseline(_popularity, {})
_QUICK: dict[str, _Baseline] = {
    "popularity": _POPULARITY,
    "ease": _Baseline(_ease, {"penalty": _PENALTIES}),
    "recency_ease": _Baseline(_recency_ease, {"half_life": (2.0, 5.0, 20.0)}, after="ease"),
}
_ALL: dict[str, _Baseline] = {
    "popularity": _POPULARITY,
    "item_knn": _Baseline(_neighbours, {"shrinkage": (0.0, 20.0), "neighbours": (20.0, 50.0, 100.0)}),
    "ials": _Baseline(_factors, {"factors": (64.0, 128.0, 256.0), "regularization": (10.0, 30.0), "alpha": (2.0, 5.0)}),
    "ease": _Baseline(_ease, {"penalty": (10.0, *_PENALTIES, 3000.0)}),
    "recency_ease": _Baseline(
        _recency_ease, {"penalty": _PENALTIES, "half_life": (2.0, 5.0, 10.0, 20.0, 50.0, math.inf)}
    ),
    "transitions+ease": _Baseline(
        _transitions_ease,
        {"step_half_life": (1.0, 2.0, 4.0), "weight": (0.0, 0.1, 0.3, 1.0, 3.0)},
        after="recency_ease",
    ),
}
SUITES = {"least": {"popularity": _POPULARITY}, "quick": _QUICK, "all": _ALL}


def baseline_lists(movies: int, split: Split, suite: str = "quick", threads: int = 1) -> list[Lists]:
    """Ranks the test's queries with every baseline of a suite that the data are not too large for."""
    fitted = fit_baselines(movies, split, suite, threads)
    return [Lists(one.system, ranked(one.scorer, split.test, movies)) for one in fitted]


def fit_baselines(movies: int, split: Split, suite: str = "quick", threads: int = 1) -> Iterator[Fitted]:
    """Tunes each baseline of a suite on validation and yields it refitted on `fit`, one after another.

    Without validation queries the middle of each grid is taken.
    """
    tuned = _tune(movies, split, suite, threads)
    whole = _data(split.fit, movies, threads)
    for system, (settings, ndcg) in tuned.items():
        _, scorer = next(SUITES[suite][system].candidates(whole, _only(settings)))
        yield Fitted(system, settings, ndcg, scorer)


def _tune(movies: int, split: Split, suite: str, threads: int) -> dict[str, tuple[Settings, float]]:
    _check_suite(suite)
    train, validation = _data(split.train, movies, threads), split.validation.sample(_TUNING_QUERIES)
    tuned: dict[str, tuple[Settings, float]] = {}
    for system, baseline in SUITES[suite].items():
        if not _too_large(system, split.fit, movies):
            earlier = _only(tuned[baseline.after][0]) if baseline.after else {}
            grid = {**earlier, **baseline.grid}
            tuned[system] = _tuned(baseline.candidates, grid, train, validation, TUNED_AT[split.protocol])
    return tuned


def _data(log: EventLog, movies: int, threads: int) -> _Data:
    return _Data(log, movies, watched(log, movies), threads)


def _only(settings: Settings) -> Grid:
    return {name: (value,) for name, value in settings.items()}


def _check_suite(suite: str) -> None:
    if suite not in SUITES:
        raise ConfigError(f"baselines is {suite!r}; it must be one of {', '.join(SUITES)}")


def left_out(movies: int, split: Split, suite: str = "quick") -> list[str]:
    """Says in a sentence each which baselines the data are too large for."""
    _check_suite(suite)
    return [text for system in SUITES[suite] if (text := _too_large(system, split.fit, movies))]


def _too_large(system: str, log: EventLog, movies: int) -> str:
    people = int(np.count_nonzero(np.diff(log.starts)))
    if system == "ials" and log.size > factors.LARGEST_EVENTS:
        return f"{system} was left out: {log.size:,} events, of at most {factors.LARGEST_EVENTS:,}"
    if "ease" in system and min(people, movies) > ease.LARGEST_SIDE:
        return (
            f"{system} was left out: {people:,} people and {movies:,} movies, of which one must not pass "
            f"{ease.LARGEST_SIDE:,}"
        )
    if system == "item_knn" and pairs_of(log) > neighbours.LARGEST_WORK:
        return (
            f"{system} was left out: {pairs_of(log):.1e} pairs of events of one person, of at most "
            f"{neighbours.LARGEST_WORK:.0e}"
        )
    return ""


def _tuned(candidates: Candidates, grid: Grid, train: _Data, validation: Queries, k: int) -> tuple[Settings, float]:
    """Chooses the settings of the highest NDCG@k, the first of equals."""
    if validation.size == 0 or train.log.size == 0:
        return {name: values[len(values) // 2] for name, values in grid.items()}, math.nan
    best: tuple[Settings, float] = {}, -math.inf
    for settings, scorer in candidates(train, grid):
        ndcg = _ndcg(scorer, validation, train.movies, k)
        if ndcg > best[1]:
            best = settings, ndcg
    return best


def _ndcg(scorer: Scorer, queries: Queries, movies: int, k: int) -> float:
    hits_QK = queries.hits(ranked(scorer, queries, movies, k))
    return float(ndcg_at(hits_QK, queries.counts, k).mean())


def ranked(scorer: Scorer, queries: Queries, movies: int, length: int = LIST_LENGTH) -> Int64s:
    """Ranks the catalogue for each query, without what its history holds; items [Q, K], -1 where none are left."""
    items_QK = np.full((queries.size, length), -1, np.int64)
    some = max(1, min(_QUERIES, _CELLS // max(movies, 1)))
    for start in range(0, queries.size, some):
        part = queries.part(slice(start, start + some))
        found = top_k(scorer.scores(part), part.seen(movies), length)
        items_QK[start : start + part.size, : found.shape[1]] = found
    return items_QK
