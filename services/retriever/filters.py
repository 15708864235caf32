"""Filters: one mask a genre, language and year is made once a bundle, so that a query's mask costs microseconds.

N movies, in the rows of the index.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from marquee.engine.index import Index, Mask
from marquee.errors import InvalidRequest
from marquee.features import Int64s
from marquee.movies import MovieRecord
from marquee.v1 import types_pb2

MAX_NAMES = 100
MAX_IDS = 100_000

_NAMES = ("genres_any", "genres_all", "genres_none", "languages")
_IDS = ("include_ids", "exclude_ids")


def check_filter(wanted: types_pb2.MovieFilter, path: str) -> None:
    """Raises InvalidRequest where a filter is out of its limits; `path` is where in the request it stands."""
    for names, most in ((_NAMES, MAX_NAMES), (_IDS, MAX_IDS)):
        for name in names:
            count = len(getattr(wanted, name))
            if count > most:
                field = f"{path}.{name}"
                raise InvalidRequest(f"{field} has {count} entries; send at most {most}", field=field)
    if wanted.HasField("year_min") and wanted.HasField("year_max") and wanted.year_min > wanted.year_max:
        field = f"{path}.year_min"
        raise InvalidRequest(
            f"{field} is {wanted.year_min}, after year_max, {wanted.year_max}; no movie can be of both", field=field
        )


class Filters:
    """Turns filters into masks over the rows of an index."""

    def __init__(self, index: Index, movies: Iterable[MovieRecord]) -> None:
        self._index = index
        count = index.count
        self._years = np.zeros(count, np.int32)
        self._has_year = np.zeros(count, bool)
        self._nothing = np.zeros(count, bool)
        self._genres: dict[str, Mask] = {}
        self._languages: dict[str, Mask] = {}
        rows = dict(zip(index.movie_ids.tolist(), range(count), strict=True))
        for movie in movies:
            if movie.movie_id in rows:
                self._add(movie, rows[movie.movie_id])

    def _add(self, movie: MovieRecord, row: int) -> None:
        for genre in movie.genres:
            self._mark(self._genres, genre, row)
        if movie.language:
            self._mark(self._languages, movie.language, row)
        if movie.year is not None:
            self._years[row], self._has_year[row] = movie.year, True

    def _mark(self, masks: dict[str, Mask], name: str, row: int) -> None:
        masks.setdefault(name.casefold(), np.zeros(self._index.count, bool))[row] = True

    def passing(self, wanted: types_pb2.MovieFilter) -> Mask:
        """Marks the movies that meet every condition but `exclude_ids`; the caller may write into the mask."""
        mask = self._included(wanted.include_ids)
        if wanted.genres_any:
            mask &= self._any(self._genres, wanted.genres_any)
        for genre in wanted.genres_all:
            mask &= self._genres.get(genre.casefold(), self._nothing)
        if wanted.genres_none:
            mask &= ~self._any(self._genres, wanted.genres_none)
        if wanted.languages:
            mask &= self._any(self._languages, wanted.languages)
        self._keep_years(mask, wanted)
        return mask

    def excluding(self, mask: Mask | None, movie_ids: Int64s) -> Mask | None:
        """Takes movies out of a mask, None being the one that lets everything through."""
        if len(movie_ids) == 0:
            return mask
        if mask is None:
            mask = np.ones(self._index.count, bool)
        mask[self._index.rows(movie_ids)] = False
        return mask

    def _included(self, movie_ids: Sequence[int]) -> Mask:
        if not movie_ids:
            return np.ones(self._index.count, bool)
        mask = self._nothing.copy()
        mask[self._index.rows(np.array(movie_ids, np.int64))] = True
        return mask

    def _any(self, masks: dict[str, Mask], names: Sequence[str]) -> Mask:
        union = self._nothing.copy()
        for name in names:
            union |= masks.get(name.casefold(), self._nothing)
        return union

    def _keep_years(self, mask: Mask, wanted: types_pb2.MovieFilter) -> None:
        first, last = wanted.HasField("year_min"), wanted.HasField("year_max")
        if first or last:
            mask &= self._has_year
        if first:
            mask &= self._years >= wanted.year_min
        if last:
            mask &= self._years <= wanted.year_max
