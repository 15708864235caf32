"""What filters and counts ask of all movies at once, in columns: a table of the catalogue that is read in one piece.

A million movies with their people are read so in a second; one by one they take a quarter of a minute. M movies,
ascending by id.
"""

from __future__ import annotations

import itertools
import math
import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.features import Floats, Int64s, fold
from marquee.movies import MovieRecord

Int32s = npt.NDArray[np.int32]

NO_YEAR = np.iinfo(np.int32).min

# Its name has the version of what is in it: a reader that does not know it reads the movies.
TABLE = "columns_1"
SCHEMA = f"CREATE TABLE {TABLE} (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;"


class Listed(NamedTuple):
    """Holds groups of movies by their folded names: movie i is in `codes[starts[i]:starts[i + 1]]`, ascending."""

    names: list[str]
    starts: Int32s
    codes: Int32s


class Columns(NamedTuple):
    """Holds a value a movie: NO_YEAR, NaN and language 0 where it is not known; language 1 is the first of its names.

    `spellings` are the genres as they are shown, where several fold to one the first that a movie has.
    """

    ids: Int64s
    years: Int32s
    ratings: Floats
    rating_counts: Int64s
    languages: Int32s
    language_names: list[str]
    spellings: list[str]
    genres: Listed
    directors: Listed
    people: Listed


def make_columns(movies: Iterable[MovieRecord]) -> Columns:
    """Reads movies, ascending by id, one after the other."""
    maker = _Maker()
    for movie in movies:
        maker.add(movie)
    return maker.columns()


class _Maker:
    def __init__(self) -> None:
        self._ids, self._rating_counts = array("q"), array("q")
        self._years, self._languages = array("i"), array("i")
        self._ratings = array("f")
        self._language_codes: dict[str, int] = {}
        self._spellings: dict[str, None] = {}
        self._genres, self._directors, self._people = ListedMaker(), ListedMaker(), ListedMaker()

    def add(self, movie: MovieRecord) -> None:
        self._ids.append(movie.movie_id)
        self._years.append(NO_YEAR if movie.year is None else movie.year)
        self._ratings.append(math.nan if movie.mean_rating is None else movie.mean_rating)
        self._rating_counts.append(movie.rating_count)
        self._languages.append(self._language(movie.language.casefold()))
        self._genres.add(movie.genres)
        self._spellings.update(dict.fromkeys(movie.genres))
        self._directors.add(movie.directors)
        self._people.add((*movie.directors, *movie.cast))

    def _language(self, name: str) -> int:
        return self._language_codes.setdefault(name, len(self._language_codes) + 1) if name else 0

    def columns(self) -> Columns:
        return Columns(
            np.array(self._ids, np.int64),
            np.array(self._years, np.int32),
            np.array(self._ratings, np.float32),
            np.array(self._rating_counts, np.int64),
            np.array(self._languages, np.int32),
            list(self._language_codes),
            list(self._spellings),
            self._genres.listed(str.casefold),
            self._directors.listed(fold),
            self._people.listed(fold),
        )


class ListedMaker:
    """Collects the names that movies come with, one movie after the other."""

    def __init__(self) -> None:
        # Names as they are spelt are numbered as they come, without a step of Python each: a million movies have many.
        self._spelt: defaultdict[str, int] = defaultdict(itertools.count().__next__)
        self._names = array("i")
        self._lengths = array("i")

    def add(self, names: Sequence[str]) -> None:
        """Adds the names of the next movie."""
        self._names.extend(map(self._spelt.__getitem__, names))
        self._lengths.append(len(names))

    def listed(self, fold: Callable[[str], str]) -> Listed:
        """Makes the groups, one a folded name; a movie is in none twice."""
        codes: dict[str, int] = {}
        code_of_spelt = np.array([codes.setdefault(fold(name), len(codes)) for name in self._spelt], np.int64)
        movie_of_name = np.repeat(np.arange(len(self._lengths)), np.array(self._lengths, np.int64))
        # Sorted, as np.unique would hash millions of pairs before it sorts them.
        pairs = np.sort(movie_of_name * len(codes) + code_of_spelt[np.array(self._names, np.int64)])
        movies, of = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], max(1, len(codes)))
        starts = np.searchsorted(movies, np.arange(len(self._lengths) + 1))
        return Listed(list(codes), starts.astype(np.int32), of.astype(np.int32))


_ARRAYS: Mapping[str, str] = {
    "ids": "<i8",
    "years": "<i4",
    "ratings": "<f4",
    "rating_counts": "<i8",
    "languages": "<i4",
}
_NAMES = ("language_names", "spellings")
_LISTED = ("genres", "directors", "people")


def write_columns(connection: sqlite3.Connection, movies: Iterable[MovieRecord]) -> None:
    """Fills the table of SCHEMA; `movies` ascend by id."""
    fields = make_columns(movies)._asdict()
    values = {name: fields[name].astype(kind).tobytes() for name, kind in _ARRAYS.items()}
    values |= {name: _joined(fields[name]) for name in _NAMES}
    for name in _LISTED:
        listed: Listed = fields[name]
        values[f"{name}.names"] = _joined(listed.names)
        values[f"{name}.starts"] = listed.starts.astype("<i4").tobytes()
        values[f"{name}.codes"] = listed.codes.astype("<i4").tobytes()
    connection.executemany(f"INSERT INTO {TABLE} VALUES (?, ?)", sorted(values.items()))


def read_columns(rows: Callable[[str], list[Any]], count: int) -> Columns | None:
    """Reads what `write_columns` wrote of `count` movies: None where the catalogue has no such table.

    `rows` runs a query and fetches all of it. Raises ValueError where the columns do not fit together.
    """
    if not rows(f"SELECT 1 FROM sqlite_schema WHERE name = '{TABLE}'"):
        return None
    values: dict[str, bytes] = dict(rows(f"SELECT name, value FROM {TABLE}"))
    fields: dict[str, Any] = {name: _array(values, name, kind) for name, kind in _ARRAYS.items()}
    if {len(column) for column in fields.values()} != {count}:
        raise ValueError(f"columns of {count} movies have other lengths")
    fields |= {name: _split(values.get(name, b"")) for name in _NAMES}
    fields |= {name: _listed(values, name, count) for name in _LISTED}
    return Columns(**fields)


def _listed(values: Mapping[str, bytes], name: str, count: int) -> Listed:
    names = _split(values.get(f"{name}.names", b""))
    starts, codes = _array(values, f"{name}.starts", "<i4"), _array(values, f"{name}.codes", "<i4")
    ends_fit = len(starts) == count + 1 and starts[0] == 0 and starts[-1] == len(codes)
    if not ends_fit or bool((np.diff(starts) < 0).any()):
        raise ValueError(f"{name} are not those of {count} movies")
    if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < len(names):
        raise ValueError(f"{name} have numbers without a name")
    return Listed(names, starts, codes)


def _array(values: Mapping[str, bytes], name: str, kind: str) -> Any:
    return np.frombuffer(values.get(name, b""), kind)


def _joined(names: Iterable[str]) -> bytes:
    # No name has a line's end in it, and each ends in one: an empty name is a name.
    return "".join(f"{name}\n" for name in names).encode()


def _split(text: bytes) -> list[str]:
    return text.decode().split("\n")[:-1]
