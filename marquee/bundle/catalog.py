"""The catalogue of a bundle: details of every movie and full-text search over titles, in one SQLite file.

The only module that knows the file's schema. It is written once with fixed bytes and read without locks. A further
table (say, trigrams of `movie.names`, against typing errors) does not raise the schema's version: readers use what is
there.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from marquee.errors import BundleError, DataError
from marquee.features import fold
from marquee.movies import MovieRecord

SCHEMA_VERSION = 1
# "MrqC": tells a catalogue from every other SQLite file.
_APPLICATION_ID = 0x4D727143
_CHUNK = 1000
# Words of a query that are matched; SQLite refuses expressions deeper than 256.
_MAX_WORDS = 32

_PRAGMAS = f"""
PRAGMA page_size = 4096;
PRAGMA encoding = 'UTF-8';
PRAGMA auto_vacuum = NONE;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

# `names` and `fame` are for the ranking: `_names` and `_fame` say what they hold. The words come folded and split, so
# the plainest tokenizer does: what a word is must not hang on the Unicode tables of somebody's SQLite.
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
    links TEXT NOT NULL,
    names TEXT NOT NULL,
    fame REAL NOT NULL
) STRICT;
CREATE UNIQUE INDEX movie_external_id ON movie (external_id) WHERE external_id <> '';
CREATE INDEX movie_year ON movie (year, rating_count);
CREATE VIRTUAL TABLE title_words USING fts5 (words, content = '', tokenize = 'ascii', prefix = '1 2 3');
"""

_COLUMNS = ", ".join(f'"{column}"' for column in MovieRecord._fields)
_INSERT = f"INSERT INTO movie ({_COLUMNS}, names, fame) VALUES ({', '.join('?' * (len(MovieRecord._fields) + 2))})"


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
        connection.executescript(_PRAGMAS + "BEGIN;" + _SCHEMA)
        connection.executemany(_INSERT, (_to_row(movie) for movie in ascending))
        words = ((movie.movie_id, _indexed_words(movie.title)) for movie in ascending)
        connection.executemany("INSERT INTO title_words (rowid, words) VALUES (?, ?)", words)
        connection.execute("INSERT INTO title_words (title_words) VALUES ('optimize')")
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
    row = [_pack(value, movie) if isinstance(value, tuple) else value for value in movie]
    return [*row, _names(movie.title), _fame(movie.rating_count)]


def _pack(values: tuple[str, ...], movie: MovieRecord) -> str:
    for value in values:
        if not value or "\n" in value:
            raise DataError(f"movie {movie.movie_id} ({movie.title!r}): {value!r} in {values} must be one line of text")
    return "\n".join(values)


def _unpack(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


def _fame(rating_count: int) -> float:
    # Rounded: the last bits of a logarithm vary with the machine.
    return round(math.log(2 + rating_count), 3)


_LISTS = tuple(MovieRecord._fields.index(name) for name in ("genres", "directors", "cast", "links"))


def _from_row(row: Sequence[Any]) -> MovieRecord:
    values = list(row)
    for at in _LISTS:
        values[at] = _unpack(values[at])
    return MovieRecord(*values)


# Letters that Unicode does not decompose, and the sign that people type either way.
_SPELLINGS = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "&": " and "}
)
_ARTICLES = (["the"], ["a"], ["an"])


def _chunks(text: str) -> list[list[str]]:
    """Splits text at spaces, and each piece at its punctuation: "WALL-E (2008)" is [[wall, e], [2008]].

    Marks belong to the word they stand in: Devanagari is written with them.
    """
    folded = fold(text).translate(_SPELLINGS)
    spaced = "".join(char if char.isalnum() or char.isspace() or _is_mark(char) else "\0" for char in folded)
    pieces = ([part for part in piece.split("\0") if part] for piece in spaced.split())
    return [parts for parts in pieces if parts]


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


def _bare(chunks: list[list[str]]) -> list[list[str]]:
    """Drops a leading article, unless it is all there is."""
    return chunks[1:] if len(chunks) > 1 and chunks[0] in _ARTICLES else chunks


def _squeeze(chunks: list[list[str]]) -> str:
    return "".join(part for parts in chunks for part in parts)


def _indexed_words(title: str) -> str:
    """Lists the words of a title, then those that punctuation divides, whole: spider, man, spiderman."""
    chunks = _chunks(title)
    joined = ["".join(parts) for parts in chunks if len(parts) > 1]
    return " ".join([*(part for parts in chunks for part in parts), *joined])


_ASIDE = re.compile(r"\((?:a\.?k\.?a\.?\s+)?([^()]*)\)")


def _names(title: str) -> str:
    """Lists the names of a movie, each between line ends, without spaces, with and without its article.

    "The City of Lost Children (Cité des enfants perdus)" has a main and another name beside the whole. No spaces: then
    "wall e", "WALL-E" and "walle" are the same.
    """
    names = [_chunks(name) for name in (title, _ASIDE.sub(" ", title), *_ASIDE.findall(title))]
    squeezed = (_squeeze(form) for chunks in names for form in (chunks, _bare(chunks)) if chunks)
    return "\n".join(["", *dict.fromkeys(squeezed), ""])


class _Reading(NamedTuple):
    """Is one way to read a query: words to match, and the years that a number in it stands for.

    `typed` and `bare` (no leading article) are compared with `movie.names`.
    """

    match: str
    typed: str
    bare: str
    first: int | None = None
    last: int | None = None


_YEAR = re.compile(r"(?:18|19|20)\d\d")
_YEAR_BEGUN = re.compile(r"(?:18|19|20)\d?")


def _readings(text: str) -> Iterator[_Reading]:
    """Yields the ways to read a query: all of it words, then each number that may be a year as one."""
    # "&" alone is a symbol, though it is a word between others.
    chunks = _chunks(text)[:_MAX_WORDS] if any(char.isalnum() for char in text) else []
    if chunks:
        yield _reading(chunks)
    tried = set()
    for at, parts in enumerate(chunks):
        years = _years(parts, last=at == len(chunks) - 1)
        if years and years not in tried:
            tried.add(years)
            yield _reading(chunks[:at] + chunks[at + 1 :])._replace(first=years[0], last=years[1])


def _reading(chunks: list[list[str]]) -> _Reading:
    bare = _bare(chunks)
    return _Reading(_match(bare), _squeeze(chunks), _squeeze(bare))


def _years(parts: list[str], *, last: bool) -> tuple[int, int] | None:
    if len(parts) != 1:
        return None
    if _YEAR.fullmatch(parts[0]):
        return int(parts[0]), int(parts[0])
    if last and _YEAR_BEGUN.fullmatch(parts[0]):
        return int(parts[0].ljust(4, "0")), int(parts[0].ljust(4, "9"))
    return None


def _match(chunks: list[list[str]]) -> str:
    """Writes the FTS5 expression: every chunk, the last as a prefix; quoted words hold no syntax."""
    last = len(chunks) - 1
    return " AND ".join(_match_chunk(parts, "*" if at == last else "") for at, parts in enumerate(chunks))


def _match_chunk(parts: list[str], star: str) -> str:
    phrase = f'"{" ".join(parts)}"{star}'
    return f'({phrase} OR "{"".join(parts)}"{star})' if len(parts) > 1 else phrase


# Lower comes first: the title as typed, the same but for a leading article, titles that begin so, the rest. Names
# stand between line ends.
_TIER = """CASE
    WHEN instr(names, char(10) || :typed) THEN 2 * (instr(names, char(10) || :typed || char(10)) = 0)
    WHEN :bare = :typed THEN 4
    WHEN instr(names, char(10) || :bare) THEN 1 + 2 * (instr(names, char(10) || :bare || char(10)) = 0)
    ELSE 4 END"""
# CROSS JOIN: words first, then the rows that have them.
_BY_WORDS = f"""
SELECT {_TIER}, {{score}}, -rating_count, movie_id
FROM title_words CROSS JOIN movie ON movie_id = title_words.rowid
WHERE title_words MATCH :match AND (:first IS NULL OR year BETWEEN :first AND :last)
ORDER BY 1, 2, 3, 4 LIMIT :limit"""
# As every word is required, bm25 alone would only tell the lengths of titles apart, and put "Star Wars: The Clone Wars"
# before the film that everybody means.
_BY_BM25 = _BY_WORDS.format(score="bm25(title_words) * fame")
_LETTERS = 3
# What begins with one to three letters is a large part of the catalogue: bm25 would say little of it, and slowly.
_BY_LETTERS = _BY_WORDS.format(score="0")
_BY_YEAR = """
SELECT 5, 0, -rating_count, movie_id FROM movie WHERE year BETWEEN :first AND :last
ORDER BY 3, 4 LIMIT :limit"""


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
            self._check()
            self._rows("PRAGMA mmap_size = 268435456")
            self._columns = self._readable_columns()
            self.count: int = self._rows("SELECT count(*) FROM movie")[0][0]
        except BundleError:
            self.close()
            raise

    def _check(self) -> None:
        if self._rows("PRAGMA application_id")[0][0] != _APPLICATION_ID:
            raise BundleError(f"{self._path}: is not a catalogue; export the bundle again")
        version = self._rows("PRAGMA user_version")[0][0]
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{self._path}: schema version {version} is not read here (this code reads {SCHEMA_VERSION}); run a "
                "Marquee that does, or export the bundle with this version"
            )

    def _readable_columns(self) -> str:
        """Lists the columns of a record; a catalogue written before there were links has none of any movie."""
        has_links = any(column[1] == "links" for column in self._rows("PRAGMA table_info (movie)"))
        return _COLUMNS if has_links else _COLUMNS.replace('"links"', "''")

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

    def search(self, text: str, *, limit: int, offset: int = 0) -> list[MovieRecord]:
        """Finds movies by title, best first, skipping `offset` of them; the last word may be unfinished.

        All words must be there; case, diacritics, punctuation and a leading article do not matter. A number that may be
        a year narrows to films of that year, or is a word of the title; alone, it lists titles and then the year's
        films. Exact titles first, then titles that begin so; among these by bm25 and number of ratings, then by id.
        """
        readings = _readings(text)
        keys = sorted(key for reading in readings for key in self._ranked(reading, limit + offset))
        ids = list(dict.fromkeys(key[-1] for key in keys))[offset : offset + limit]
        return [movie for movie in self.get_many(ids) if movie is not None]

    def _ranked(self, reading: _Reading, limit: int) -> list[Any]:
        sql = _BY_BM25 if len(reading.bare) > _LETTERS else _BY_LETTERS if reading.match else _BY_YEAR
        return self._rows(sql, {**reading._asdict(), "limit": limit})

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
