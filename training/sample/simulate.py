"""Simulates viewers with planted tastes.

Shapes: N films; K films of one viewer, in row order or in the order they were watched.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

FEWEST, MOST = 20, 70
INSIDE_SHARE = 0.85
SECOND_TASTE_SHARE = 0.6
# What a second taste takes of a viewer's films inside their tastes: below a half, so the main one leads.
SECOND_PART = (0.2, 0.4)
# A viewer leaves at least a third of a taste unseen: something has to be left to recommend.
SEEN_PART = 2 / 3
POPULARITY_SLOPE = 0.8

SESSION_FILMS = (2, 6)
SECONDS_IN_SESSION = (5.0, 600.0)
# 20 to 70 films make at most 43 sessions, so that even the longest gaps fit into the seven years.
SECONDS_BETWEEN_SESSIONS = (86_400.0, 60 * 86_400.0)
OPENED = int(datetime(2018, 1, 1, tzinfo=UTC).timestamp())
CLOSED = int(datetime(2024, 12, 31, tzinfo=UTC).timestamp())


class Rating(NamedTuple):
    """One simulated rating: `film` is a row, `stars` half-star steps, `timestamp` UTC seconds."""

    user_id: int
    film: int
    stars: float
    timestamp: int


class Stars(NamedTuple):
    """How a viewer rates a group of films: normal noise around a mean, rounded and clipped."""

    mean: float
    spread: float
    low: float
    high: float


INSIDE = Stars(mean=4.4, spread=0.5, low=3.5, high=5.0)
OUTSIDE = Stars(mean=2.75, spread=0.75, low=1.5, high=4.0)


def simulate(taste_N: IntArray, *, viewers: int, seed: int) -> list[Rating]:
    """Simulates viewers 1 to `viewers`, each one's ratings in row order as MovieLens has them.

    `taste_N` numbers each film's taste from 0. Raises ValueError where `viewers` is below 1.
    """
    if viewers < 1:
        raise ValueError(f"viewers is {viewers}; a sample needs at least 1")
    rng = np.random.default_rng(seed)
    popularity_N = _popularity(rng, taste_N)
    return [
        rating
        for user_id in range(1, viewers + 1)
        for rating in _rate(rng, user_id, taste_N, _choose(rng, taste_N, popularity_N))
    ]


def _popularity(rng: np.random.Generator, taste_N: IntArray) -> FloatArray:
    """A power law over a random order of each taste's films."""
    popularity_N = np.empty(len(taste_N))
    for taste in np.unique(taste_N):
        rows = np.flatnonzero(taste_N == taste)
        popularity_N[rows] = (1.0 + rng.permutation(len(rows))) ** -POPULARITY_SLOPE
    return popularity_N


def _choose(rng: np.random.Generator, taste_N: IntArray, popularity_N: FloatArray) -> tuple[IntArray, IntArray]:
    """One viewer's films, popular ones tending to come first: inside their tastes, and outside."""
    main, second = rng.choice(int(taste_N.max()) + 1, size=2, replace=False)
    second_part = rng.uniform(*SECOND_PART) if rng.random() < SECOND_TASTE_SHARE else 0.0
    room = SEEN_PART * np.count_nonzero(taste_N == main) / (1 - second_part)
    most = max(FEWEST, min(MOST, int(room / INSIDE_SHARE)))
    films = int(rng.integers(FEWEST, most, endpoint=True))
    inside = round(INSIDE_SHARE * films)
    by_second = round(second_part * inside)
    first_K = _draw(rng, popularity_N, taste_N == main, inside - by_second)
    second_K = _draw(rng, popularity_N, taste_N == second, by_second)
    other_N = (taste_N != main) & ((taste_N != second) | (by_second == 0))
    return np.concatenate([first_K, second_K]), _draw(rng, popularity_N, other_N, films - inside)


def _draw(rng: np.random.Generator, popularity_N: FloatArray, among_N: NDArray[np.bool_], count: int) -> IntArray:
    rows = np.flatnonzero(among_N)
    chance = popularity_N[rows] / popularity_N[rows].sum()
    return rng.choice(rows, size=count, replace=False, p=chance)


def _rate(
    rng: np.random.Generator, user_id: int, taste_N: IntArray, chosen: tuple[IntArray, IntArray]
) -> Iterator[Rating]:
    inside_K, outside_K = chosen
    film_K = np.concatenate([inside_K, outside_K])
    stars_K = np.concatenate([_stars(rng, INSIDE, len(inside_K)), _stars(rng, OUTSIDE, len(outside_K))])
    time_K = _watch(rng, taste_N[film_K])
    for seen in np.argsort(film_K):
        yield Rating(user_id, int(film_K[seen]), float(stars_K[seen]), int(time_K[seen]))


def _stars(rng: np.random.Generator, stars: Stars, count: int) -> FloatArray:
    noisy_K = rng.normal(stars.mean, stars.spread, size=count)
    return np.clip(np.round(2 * noisy_K) / 2, stars.low, stars.high)


def _watch(rng: np.random.Generator, taste_K: IntArray) -> IntArray:
    """When each film was watched: sessions of one taste, long gaps before and short ones within."""
    sessions = _sessions(rng, taste_K)
    gap_K = _log_uniform(rng, SECONDS_IN_SESSION, len(taste_K))
    starts = np.cumsum([0] + [len(session) for session in sessions[:-1]])
    gap_K[starts] = _log_uniform(rng, SECONDS_BETWEEN_SESSIONS, len(starts))
    gap_K[0] = 0
    elapsed_K = np.cumsum(gap_K)
    time_K = np.empty_like(elapsed_K)
    time_K[np.concatenate(sessions)] = elapsed_K + rng.integers(OPENED, CLOSED - elapsed_K[-1], endpoint=True)
    return time_K


def _sessions(rng: np.random.Generator, taste_K: IntArray) -> Sequence[IntArray]:
    """Positions in `taste_K` by session, in the order of the sessions."""
    sessions = []
    for taste in np.unique(taste_K):
        positions = np.flatnonzero(taste_K == taste)
        # One cut per film is more than enough; those past the end leave empty parts.
        cuts = np.cumsum(rng.integers(*SESSION_FILMS, size=len(positions), endpoint=True))
        sessions += [part for part in np.split(positions, cuts) if len(part)]
    return [sessions[position] for position in rng.permutation(len(sessions))]


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], count: int) -> IntArray:
    low, high = np.log(bounds)
    return np.rint(np.exp(rng.uniform(low, high, size=count))).astype(np.int64)
