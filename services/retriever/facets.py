"""Counts of movies by genre, decade and language, and the movies that are watched most.

N movies, in the rows of the index.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.columns import NO_YEAR
from marquee.engine.facts import Facts
from marquee.engine.index import Mask
from marquee.features import Int64s


class Count(NamedTuple):
    """Holds a value and how many movies have it."""

    value: str
    movies: int


class Counts(NamedTuple):
    """Holds how many movies there are, and how many of each genre, decade and language; what none has is left out.

    Genres and languages come largest first, then by name; decades ("1990") latest first.
    """

    movies: int
    genres: list[Count]
    decades: list[Count]
    languages: list[Count]


class Facets:
    """Counts the movies that a mask lets through; None lets all through."""

    def __init__(self, facts: Facts, movie_ids: Int64s) -> None:
        self._facts = facts
        self._movie_ids = movie_ids
        dated_N = facts.years != NO_YEAR
        # Code 0 is no decade, as it is no language.
        self._decades, codes = np.unique(facts.years[dated_N] // 10, return_inverse=True)
        self._decade_codes_N = np.zeros(len(movie_ids), np.int32)
        self._decade_codes_N[dated_N] = codes + 1
        self._most_watched = np.lexsort((movie_ids, -facts.rating_counts))
        self._all = self._count(np.ones(len(movie_ids), bool))

    def count(self, mask: Mask | None) -> Counts:
        """Counts by genre, decade and language."""
        return self._all if mask is None else self._count(mask)

    def _count(self, mask: Mask) -> Counts:
        facts = self._facts
        genres = ((facts.genre_spellings[name], mask & of) for name, of in facts.genre_masks.items())
        decades = (f"{10 * decade}" for decade in self._decades.tolist())
        return Counts(
            int(np.count_nonzero(mask)),
            _largest_first((name, int(np.count_nonzero(both))) for name, both in genres),
            _by_code(decades, self._decade_codes_N[mask])[::-1],
            _largest_first(_by_code(facts.language_codes, facts.languages[mask])),
        )

    def most_watched(self, mask: Mask | None, k: int) -> Int64s:
        """Lists ids of movies by descending number of ratings, then ascending id."""
        rows = self._most_watched if mask is None else self._most_watched[mask[self._most_watched]]
        return self._movie_ids[rows[:k]]


def _by_code(values: Iterable[str], codes: npt.NDArray[np.int32]) -> list[Count]:
    """Counts codes, of which 1 is the first value and 0 none."""
    counts = np.bincount(codes).tolist()[1:]
    return [Count(value, movies) for value, movies in zip(values, counts, strict=False) if movies]


def _largest_first(counts: Iterable[tuple[str, int]]) -> list[Count]:
    had = (Count(value, movies) for value, movies in counts if movies)
    return sorted(had, key=lambda one: (-one.movies, one.value))
