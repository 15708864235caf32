"""The catalogue of a bundle: details of every movie and full-text search over titles, in one SQLite file.

This module and `titles` are the only ones that know the file's schema. It is written once with fixed bytes and read
without locks. A further table or column does not raise the schema's version: readers use what is there.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from marquee.bundle import columns, titles
from marquee.errors import BundleError, DataError
from marquee.movies import MovieRecord

SCHEMA_VERSION = 2
# Had no links, and another search over titles.
_OLDER_VERSION = 1
# "MrqC": tells a catalogue from every other SQLite file.
_APPLICATION_ID = 0x4D727143
_CHUNK = 1000

_PRAGMAS = f"""
PRAGMA page_size = 4096;
PRAGMA encoding = 'UTF-8';
PRAGMA auto_vacuum = NONE;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

_SCHEMA = """
CREATE TABLE movie (
    movie_id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    year INTEGER,
    genres TEXT NOT NULL,
    language TEXT NOT NULL,
    release_date TEXT NOT NULL,
    runtime_minutes INTEGER,
    directors TEXT NOT NULL,
    "cast" TEXT NOT NULL,
    external_id TEXT NOT NULL,
    mean_rating REAL,
    rating_count INTEGER NOT NULL,
    links TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX movie_external_id ON movie (external_id) WHERE external_id <> '';
"""

_COLUMNS = ", ".join(f'"{column}"' for column in MovieRecord._fields)
_INSERT = f"INSERT INTO movie ({_COLUMNS}) VALUES ({', '.join('?' * len(MovieRecord._fields))})"


def write_catalog(path: Path, movies: Sequence[MovieRecord]) -> None:
    """Writes the catalogue file; equal movies give equal bytes, whatever their order, with one version of SQLite.

    Replaces a file that is there. Raises DataError where two movies share an id or an external id, or a field holds
    what cannot be stored.
    """
    ascending = sorted(movies, key=lambda movie: movie.movie_id)
    _check_unique(ascending)
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(_PRAGMAS + "BEGIN;" + _SCHEMA + columns.SCHEMA + titles.SCHEMA.format(schema="main"))
        connection.executemany(_INSERT, (_to_row(movie) for movie in ascending))
        columns.write_columns(connection, ascending)
        titles.write_titles(connection, ascending)
        connection.execute("COMMIT")
        connection.execute("VACUUM")
    except sqlite3.IntegrityError as error:
        raise DataError(f"{path}: a movie cannot be stored ({error}); give plain int, float, str and tuples") from error
    finally:
        connection.close()


def _check_unique(ascending: Sequence[MovieRecord]) -> None:
    seen: dict[int | str, MovieRecord] = {}
    for movie in ascending:
        if movie.movie_id < 1:
            raise DataError(f"movie {movie.movie_id} ({movie.title!r}): ids are positive; give it one that is")
        for key in (movie.movie_id, movie.external_id):
            if key in seen and key != "":
                raise DataError(f"movies {seen[key].title!r} and {movie.title!r} share the id {key}: drop one of them")
            seen[key] = movie


def _to_row(movie: MovieRecord) -> list[Any]:
    if movie.language:
        _pack((movie.language,), movie)
    return [_pack(value, movie) if isinstance(value, tuple) else value for value in movie]


def _pack(values: tuple[str, ...], movie: MovieRecord) -> str:
    for value in values:
        if not value or "\n" in value:
            raise DataError(f"movie {movie.movie_id} ({movie.title!r}): {value!r} in {values} must be one line of text")
    return "\n".join(values)


def _unpack(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


_LISTS = tuple(MovieRecord._fields.index(name) for name in ("genres", "directors", "cast", "links"))


def _from_row(row: Sequence[Any]) -> MovieRecord:
    values = list(row)
    for at in _LISTS:
        values[at] = _unpack(values[at])
    return MovieRecord(*values)


class Catalog:
    """Reads a catalogue file. Threads may share it: they take turns.

    Raises BundleError naming the file where it is not a catalogue, is damaged, or has a newer schema.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()
        # immutable: no locks and no look at a journal; as_uri quotes what a URI gives a meaning to.
        uri = path.absolute().as_uri() + "?mode=ro&immutable=1"
        try:
            self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise self._error(error) from error
        try:
            older = self._check() == _OLDER_VERSION
            self._rows("PRAGMA mmap_size = 268435456")
            self._columns = _COLUMNS.replace('"links"', "''") if older else _COLUMNS
            self._titles = None if older else titles.Titles(self._rows)
            self.count: int = self._rows("SELECT count(*) FROM movie")[0][0]
        except BundleError:
            self.close()
            raise

    def _check(self) -> int:
        """Reads the schema's version, and raises BundleError where it is not one that this code reads."""
        if self._rows("PRAGMA application_id")[0][0] != _APPLICATION_ID:
            raise BundleError(f"{self._path}: is not a catalogue; export the bundle again")
        version = self._rows("PRAGMA user_version")[0][0]
        if version not in (_OLDER_VERSION, SCHEMA_VERSION):
            raise BundleError(
                f"{self._path}: schema version {version} is not read here (this code reads {_OLDER_VERSION} and "
                f"{SCHEMA_VERSION}); run a Marquee that does, or export the bundle with this version"
            )
        return int(version)

    def close(self) -> None:
        """Closes the file; what is asked afterwards raises sqlite3.ProgrammingError."""
        self._connection.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def get(self, movie_id: int) -> MovieRecord | None:
        """Reads a movie; None where there is none of this id."""
        return self._one("movie_id = ?", movie_id)

    def by_external_id(self, text: str) -> MovieRecord | None:
        """Finds a movie by its "source:id", spelt exactly so."""
        # The second condition lets SQLite use the index, which leaves empty ids out.
        return self._one("external_id = ? AND external_id <> ''", text)

    def get_many(self, movie_ids: Iterable[int]) -> list[MovieRecord | None]:
        """Reads movies, as many as ids and in their order; None where there is none of this id."""
        ids = [int(movie_id) for movie_id in movie_ids]
        found: dict[int, MovieRecord] = {}
        for start in range(0, len(ids), _CHUNK):
            found.update(self._chunk(ids[start : start + _CHUNK]))
        return [found.get(movie_id) for movie_id in ids]

    def all(self) -> Iterator[MovieRecord]:
        """Yields every movie, ascending by id."""
        last = 0
        while rows := self._rows(
            f"SELECT {self._columns} FROM movie WHERE movie_id > ? ORDER BY movie_id LIMIT ?", (last, _CHUNK)
        ):
            yield from map(_from_row, rows)
            last = rows[-1][0]

    def columns(self) -> columns.Columns:
        """Reads what filters ask of all movies: from a table of its own, or of an older catalogue movie by movie."""
        try:
            found = columns.read_columns(self._rows, self.count)
        except ValueError as error:
            raise BundleError(f"{self._path}: its columns are no good ({error}); export the bundle again") from error
        return found or columns.make_columns(self.all())

    def search(
        self, text: str, *, limit: int, offset: int = 0, hidden: Callable[[int], bool] | None = None
    ) -> list[MovieRecord]:
        """Finds movies by title, best first, skipping `offset` of them and those whose ids are `hidden`.

        All words must be there, the last of them perhaps unfinished; case, diacritics, punctuation and a leading
        article do not matter. A number that may be a year narrows to films of that year, or is a word of the title;
        alone, it lists titles and then the year's films. Exact titles come first, then titles that begin so, then the
        rest; among these the most rated first, then by id. Where nothing is found so, titles that differ by a typing
        error or two.
        """
        wanted = limit + offset
        asked = wanted
        while True:
            found = self._searched().search(text, asked)
            shown = [movie_id for movie_id in found if not (hidden and hidden(movie_id))]
            if len(shown) >= wanted or len(found) < asked:
                break
            asked *= 2
        return [movie for movie in self.get_many(shown[offset:wanted]) if movie is not None]

    def _searched(self) -> titles.Titles:
        if self._titles is None:
            # Of an older version, whose own tables are for another search.
            movies = list(self.all())
            with self._turn:
                self._connection.executescript("PRAGMA temp_store = MEMORY;" + titles.SCHEMA.format(schema="temp"))
                titles.write_titles(self._connection, movies)
                self._connection.commit()
            self._titles = titles.Titles(self._rows)
        return self._titles

    def _one(self, condition: str, value: int | str) -> MovieRecord | None:
        rows = self._rows(f"SELECT {self._columns} FROM movie WHERE {condition}", (value,))
        return _from_row(rows[0]) if rows else None

    def _chunk(self, ids: list[int]) -> Iterator[tuple[int, MovieRecord]]:
        sql = f"SELECT {self._columns} FROM json_each(?) CROSS JOIN movie ON movie_id = json_each.value"
        return ((row[0], _from_row(row)) for row in self._rows(sql, (json.dumps(ids),)))

    def _rows(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        try:
            with self._turn:
                return self._connection.execute(sql, values).fetchall()
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> BundleError:
        return BundleError(f"{self._path}: cannot be read as a catalogue ({error}); publish the bundle again")
