"""Which movies are in a group, such as those of one director, and which groups a movie is in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from marquee.bundle.columns import Int32s, Listed
from marquee.features import Int64s

# Where what belongs to a key begins: of either width.
Starts = npt.NDArray[np.signedinteger[Any]]


class Ragged:
    """Holds for each key its values, in one array: a Python object a key would cost a hundred bytes."""

    def __init__(self, starts: Starts, values: Int32s) -> None:
        self._starts = starts
        self._values = values

    def turned(self, count: int) -> Ragged:
        """Makes the one whose keys, `count` of them, are the values of this."""
        order = np.argsort(self._values, kind="stable")
        keys = np.repeat(np.arange(len(self._starts) - 1, dtype=np.int32), np.diff(self._starts))
        return Ragged(np.searchsorted(self._values[order], np.arange(count + 1)), keys[order])

    def of(self, key: int) -> Int32s:
        """Lists the values of a key."""
        return self._values[self._starts[key] : self._starts[key + 1]]

    def of_each(self, keys: Int64s) -> tuple[Starts, Int32s]:
        """Lists the values of several keys in one array, and where those of each begin, the end of all at the end."""
        starts = self._starts[keys]
        lengths = self._starts[keys + 1] - starts
        ends = np.concatenate(([0], np.cumsum(lengths)))
        return ends, self._values[np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)]


class Memberships:
    """Says of several movies, by position, which groups they are in."""

    def __init__(self, starts: Starts, groups: Int32s) -> None:
        self._starts = starts.tolist()
        self._groups = groups
        self._positions = np.repeat(np.arange(len(starts) - 1), np.diff(starts))

    def of(self, position: int) -> list[int]:
        """Lists the groups of a movie."""
        groups: list[int] = self._groups[self._starts[position] : self._starts[position + 1]].tolist()
        return groups

    def having(self, group: int) -> Int64s:
        """Lists the positions of the movies in a group."""
        positions: Int64s = self._positions[self._groups == group]
        return positions


class Groups:
    """Knows groups by name, movies by row, and each by the other.

    The movies of `listed` have `row_of_movie`, -1 where they have none; of `rows` rows some may have no movie.
    """

    def __init__(self, listed: Listed, row_of_movie: Int64s, rows: int) -> None:
        self._codes = {name: code for code, name in enumerate(listed.names)}
        # The row -1, of a movie that is not there, writes into the last place, which belongs to no row.
        movie_of_row = np.full(rows + 1, -1, np.int64)
        movie_of_row[row_of_movie] = np.arange(len(row_of_movie))
        self._groups = Ragged(*_of_movies(listed, movie_of_row[:rows]))
        self._members = self._groups.turned(len(self._codes))

    def names(self) -> list[str]:
        """Lists the folded names of all groups."""
        return list(self._codes)

    def rows(self, folded: str) -> Int32s:
        """Lists the rows of a group's movies; none where there is no such group."""
        code = self._codes.get(folded)
        return np.zeros(0, np.int32) if code is None else self._members.of(code)

    def rows_of(self, code: int) -> Int32s:
        """Lists the rows of a group's movies by its number."""
        return self._members.of(code)

    def of_each(self, rows: Int64s) -> Memberships:
        """Says which groups the movies of rows are in."""
        return Memberships(*self._groups.of_each(rows))


def _of_movies(listed: Listed, movies: Int64s) -> tuple[Starts, Int32s]:
    """Lays the groups out by row; the movie -1 is in none."""
    # One movie more, which is in no group: -1 finds it at the end.
    starts = np.append(listed.starts, listed.starts[-1])
    if np.array_equal(movies, np.arange(len(listed.starts) - 1)):
        return listed.starts, listed.codes
    return Ragged(starts, listed.codes).of_each(np.where(movies < 0, len(starts) - 2, movies))
