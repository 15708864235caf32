"""What filters ask of a movie, laid out by row once a bundle, so that a query's mask costs microseconds.

N movies, in the rows of the index.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from marquee.bundle.columns import NO_YEAR, Columns
from marquee.engine.groups import Groups
from marquee.errors import InvalidRequest
from marquee.features import HistoryIndex, Int64s, fold
from marquee.v1 import types_pb2

Mask = npt.NDArray[np.bool_]

MAX_NAMES = 100
MAX_IDS = 100_000

_NAMES = ("genres_any", "genres_all", "genres_none", "languages", "people_any")
_IDS = ("include_ids", "exclude_ids")
_RANGES = ("year", "rating_count")


def check_filter(wanted: types_pb2.MovieFilter, path: str) -> None:
    """Raises InvalidRequest where a filter is out of its limits; `path` is where in the request it stands."""
    for names, most in ((_NAMES, MAX_NAMES), (_IDS, MAX_IDS)):
        for name in names:
            count = len(getattr(wanted, name))
            if count > most:
                field = f"{path}.{name}"
                raise InvalidRequest(f"{field} has {count} entries; send at most {most}", field=field)
    for name in _RANGES:
        _check_range(wanted, name, path)
    if not math.isfinite(wanted.rating_min):
        field = f"{path}.rating_min"
        raise InvalidRequest(f"{field} is {wanted.rating_min}; send stars, 0.5 to 5, or leave it unset", field=field)


def _check_range(wanted: types_pb2.MovieFilter, name: str, path: str) -> None:
    low, high = f"{name}_min", f"{name}_max"
    if not wanted.HasField(low) or not wanted.HasField(high):
        return
    least, most = getattr(wanted, low), getattr(wanted, high)
    if least > most:
        field = f"{path}.{low}"
        raise InvalidRequest(f"{field} is {least}, above {high}, {most}; no movie can be of both", field=field)


class Facts:
    """Holds what filters ask of movies, by row; a language is its code, 0 where none is known."""

    def __init__(self, movie_ids: Int64s, columns: Columns) -> None:
        rows = HistoryIndex(movie_ids).rows(columns.ids)
        count = len(movie_ids)
        self.known = np.zeros(count, bool)
        self.known[rows[rows >= 0]] = True
        self.years = _by_row(columns.years, rows, count)
        self._ratings = _by_row(columns.ratings, rows, count)
        self.rating_counts = _by_row(columns.rating_counts, rows, count)
        self.languages = _by_row(columns.languages, rows, count)
        self.language_codes = {name: code for code, name in enumerate(columns.language_names, start=1)}
        self.genre_spellings = {genre.casefold(): genre for genre in reversed(columns.spellings)}
        self.genres, self.directors, self._people = (
            Groups(listed, rows, count) for listed in (columns.genres, columns.directors, columns.people)
        )
        self._nothing = np.zeros(count, bool)
        # A dozen or two; of a common one the rows would take as much room and longer.
        self.genre_masks = {name: self._mask(self.genres, [name]) for name in self.genres.names()}

    def _mask(self, groups: Groups, names: Iterable[str]) -> Mask:
        mask = self._nothing.copy()
        for name in names:
            mask[groups.rows(name)] = True
        return mask

    def keep(self, mask: Mask, wanted: types_pb2.MovieFilter) -> None:
        """Takes out of a mask what does not meet the conditions on genres, languages, people, years and ratings."""
        self._keep_genres(mask, wanted)
        if wanted.languages:
            mask &= self._of_languages(wanted.languages)
        if wanted.people_any:
            mask &= self._mask(self._people, map(fold, wanted.people_any))
        self._keep_years(mask, wanted)
        self._keep_ratings(mask, wanted)

    def _keep_genres(self, mask: Mask, wanted: types_pb2.MovieFilter) -> None:
        if wanted.genres_any:
            mask &= self._of_genres(wanted.genres_any)
        for genre in wanted.genres_all:
            mask &= self.genre_masks.get(genre.casefold(), self._nothing)
        if wanted.genres_none:
            mask &= ~self._of_genres(wanted.genres_none)

    def _of_genres(self, names: Sequence[str]) -> Mask:
        union = self._nothing.copy()
        for name in names:
            union |= self.genre_masks.get(name.casefold(), self._nothing)
        return union

    def _of_languages(self, names: Sequence[str]) -> Mask:
        union = self._nothing.copy()
        for name in names:
            # No movie has the code -1.
            union |= self.languages == self.language_codes.get(name.casefold(), -1)
        return union

    def _keep_years(self, mask: Mask, wanted: types_pb2.MovieFilter) -> None:
        if wanted.HasField("year_min"):
            mask &= self.years >= max(wanted.year_min, NO_YEAR + 1)
        if wanted.HasField("year_max"):
            mask &= self.years <= wanted.year_max
            mask &= self.years != NO_YEAR

    def _keep_ratings(self, mask: Mask, wanted: types_pb2.MovieFilter) -> None:
        if wanted.HasField("rating_min"):
            # In float32 as on the wire: who asks for what an answer showed gets it. NaN is not above anything.
            mask &= self._ratings >= np.float32(wanted.rating_min)
        if wanted.HasField("rating_count_min"):
            mask &= self.rating_counts >= wanted.rating_count_min
        if wanted.HasField("rating_count_max"):
            mask &= self.rating_counts <= wanted.rating_count_max


def _by_row(column: npt.NDArray[Any], rows: Int64s, count: int) -> npt.NDArray[Any]:
    """Lays a column out by row; what has the row -1 is left out, and a row that nothing has stays 0."""
    laid_out = np.zeros(count, column.dtype)
    laid_out[rows[rows >= 0]] = column[rows >= 0]
    return laid_out
