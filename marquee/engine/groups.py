"""Which movies are in a group, such as those of one director, and which groups a movie is in."""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from marquee.features import Int64s

Int32s = npt.NDArray[np.int32]


class Ragged:
    """Holds for each of `count` keys its values, in one array: a Python object a key would cost a hundred bytes."""

    def __init__(self, keys: Int32s, values: Int32s, count: int) -> None:
        order = np.argsort(keys, kind="stable")
        self._values = values[order]
        self._starts = np.searchsorted(keys[order], np.arange(count + 1))

    def of(self, key: int) -> Int32s:
        """Lists the values of a key."""
        return self._values[self._starts[key] : self._starts[key + 1]]

    def of_each(self, keys: Int64s) -> tuple[Int64s, Int32s]:
        """Lists the values of several keys in one array, and where those of each begin, the end of all at the end."""
        starts = self._starts[keys]
        lengths = self._starts[keys + 1] - starts
        ends = np.concatenate(([0], np.cumsum(lengths)))
        return ends, self._values[np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)]


class Memberships:
    """Says of several movies, by position, which groups they are in."""

    def __init__(self, starts: Int64s, groups: Int32s) -> None:
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
    """Knows groups by name, movies by row, and each by the other."""

    def __init__(self, codes: dict[str, int], members: Ragged, groups: Ragged) -> None:
        self._codes = codes
        self._members = members
        self._groups = groups

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


class GroupsMaker:
    """Collects the names that movies come with, and makes Groups of them once the movies' rows are known."""

    def __init__(self) -> None:
        # Names as they are spelt are numbered as they come, without a step of Python each: a million movies have many.
        self._spelt: defaultdict[str, int] = defaultdict(itertools.count().__next__)
        self._names = array("i")
        self._lengths = array("i")

    def add(self, names: Sequence[str]) -> None:
        """Adds the names of the next movie."""
        self._names.extend(map(self._spelt.__getitem__, names))
        self._lengths.append(len(names))

    def make(self, row_of_movie: Int64s, rows: int, fold: Callable[[str], str]) -> Groups:
        """Makes the groups, one a folded name; a movie is in none twice, and in none at all where its row is -1."""
        codes: dict[str, int] = {}
        code_of_spelt = np.array([codes.setdefault(fold(name), len(codes)) for name in self._spelt], np.int64)
        row_of_name = np.repeat(row_of_movie, np.array(self._lengths))
        known = row_of_name >= 0
        # Sorted, as np.unique would hash millions of pairs before it sorts them.
        pairs = np.sort(row_of_name[known] * len(codes) + code_of_spelt[np.array(self._names)[known]])
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        at, of = (part.astype(np.int32) for part in np.divmod(pairs, max(1, len(codes))))
        return Groups(codes, Ragged(of, at, len(codes)), Ragged(at, of, rows))
