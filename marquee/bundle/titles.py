"""Titles in a catalogue's file, and the search over them: first as they are typed, then with typing errors forgiven.

A movie's place says how much it is watched: 1 has the most ratings. FTS5 gives rows in the order of their numbers,
which are places, so that the first matches are the most popular ones and nothing is sorted, however many there are.
"""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from marquee.features import fold
from marquee.movies import MovieRecord, parse_title

# Words of a query that are matched; SQLite refuses expressions deeper than 256.
_MAX_WORDS = 32
# `names` and `words` are what `_names` and `_words` say. They come folded and split, so the plainest tokenizers do:
# what a word is must not hang on the Unicode tables of somebody's SQLite.
SCHEMA = """
CREATE TABLE {schema}.title (place INTEGER PRIMARY KEY, movie_id INTEGER NOT NULL, names TEXT NOT NULL) STRICT;
CREATE VIRTUAL TABLE {schema}.title_search USING fts5 (
    words, names, year, content = '', columnsize = 0, tokenize = 'ascii', prefix = '1 2 3'
);
CREATE VIRTUAL TABLE {schema}.title_trigrams USING fts5 (
    names, content = '', columnsize = 0, detail = none, tokenize = 'trigram case_sensitive 1'
);
CREATE TABLE {schema}.short_name (name TEXT, place INTEGER, PRIMARY KEY (name, place)) STRICT, WITHOUT ROWID;
"""


def write_titles(connection: sqlite3.Connection, movies: Iterable[MovieRecord]) -> None:
    """Fills the tables of SCHEMA."""
    by_place = sorted(movies, key=lambda movie: (-movie.rating_count, movie.movie_id))
    names = [_names(movie) for movie in by_place]
    padded = ["\n".join(["", *each, ""]) for each in names]
    places = range(1, len(by_place) + 1)
    ids = (movie.movie_id for movie in by_place)
    connection.executemany("INSERT INTO title VALUES (?, ?, ?)", zip(places, ids, padded, strict=True))
    columns = ((_words(movie.title), " ".join(each), movie.year) for movie, each in zip(by_place, names, strict=True))
    searched = ((place, *row) for place, row in zip(places, columns, strict=True))
    connection.executemany("INSERT INTO title_search (rowid, words, names, year) VALUES (?, ?, ?, ?)", searched)
    connection.executemany("INSERT INTO title_trigrams (rowid, names) VALUES (?, ?)", zip(places, padded, strict=True))
    short = {(name, place) for place, each in zip(places, names, strict=True) for name in each if len(name) <= _SHORT}
    connection.executemany("INSERT INTO short_name VALUES (?, ?)", sorted(short))
    for table in ("title_search", "title_trigrams"):
        connection.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")


# Letters that Unicode does not decompose, and the sign that people type either way.
_SPELLINGS = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "&": " and "}
)
_ARTICLES = (["the"], ["a"], ["an"], ["le"], ["la"], ["les"], ["el"], ["los"], ["las"], ["il"], ["der"], ["das"])


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


def _words(title: str) -> str:
    """Lists the words of a title, then those that punctuation divides, whole: spider, man, spiderman."""
    chunks = _chunks(title)
    joined = ["".join(parts) for parts in chunks if len(parts) > 1]
    return " ".join([*(part for parts in chunks for part in parts), *joined])


_ASIDE = re.compile(r"\((?:a\.?k\.?a\.?\s+)?([^()]*)\)")


def _names(movie: MovieRecord) -> list[str]:
    """Lists the names of a movie without spaces, with and without article, and these again with the year.

    "The City of Lost Children (Cité des enfants perdus)" has a main and another name beside the whole. No spaces: then
    "wall e", "WALL-E" and "walle" are the same.
    """
    title = movie.title
    names = [_chunks(name) for name in (title, _ASIDE.sub(" ", title), *_ASIDE.findall(title))]
    squeezed = [_squeeze(form) for chunks in names for form in (chunks, _bare(chunks)) if chunks]
    dated = [f"{name}{movie.year}" for name in squeezed] if movie.year else []
    return list(dict.fromkeys([*squeezed, *dated]))


class _Reading(NamedTuple):
    """Is one way to read a query: as a name with and without its article, as words, and as a phrase of the year.

    Words and year are FTS5 expressions, empty where there is none.
    """

    typed: str
    bare: str
    words: str
    year: str


_YEAR = re.compile(r"(?:18|19|20)\d\d")
_YEAR_BEGUN = re.compile(r"(?:18|19|20)\d?")
# What lists a year's films is worth less than any title.
_YEAR_TIER = 5


def _readings(chunks: list[list[str]]) -> Iterator[_Reading]:
    """Yields the ways to read a query: all of it words, then each number that may be a year as one."""
    yield _reading(chunks, "")
    tried = set()
    for at, parts in enumerate(chunks):
        year = _year(parts, last=at == len(chunks) - 1)
        if year and year not in tried:
            tried.add(year)
            yield _reading(chunks[:at] + chunks[at + 1 :], year)


def _reading(chunks: list[list[str]], year: str) -> _Reading:
    bare = _bare(chunks)
    return _Reading(_squeeze(chunks), _squeeze(bare), _match(bare), year)


def _year(parts: list[str], *, last: bool) -> str:
    """Writes the FTS5 phrase of a year, or of one that is being typed; empty where it is neither."""
    if len(parts) == 1 and _YEAR.fullmatch(parts[0]):
        return f'"{parts[0]}"'
    if len(parts) == 1 and last and _YEAR_BEGUN.fullmatch(parts[0]):
        return f'"{parts[0]}"*'
    return ""


def _match(chunks: list[list[str]]) -> str:
    """Writes the FTS5 expression: every chunk, the last as a prefix; quoted words hold no syntax."""
    last = len(chunks) - 1
    return " AND ".join(_match_chunk(parts, "*" if at == last else "") for at, parts in enumerate(chunks))


def _match_chunk(parts: list[str], star: str) -> str:
    phrase = f'"{" ".join(parts)}"{star}'
    return f'({phrase} OR "{"".join(parts)}"{star})' if len(parts) > 1 else phrase


def _expressions(reading: _Reading) -> Iterator[tuple[int, str]]:
    """Yields (tier, FTS5 expression): the title as typed, the same but for an article, what begins so, the rest."""
    within = f" AND year : {reading.year}" if reading.year else ""
    if not reading.words:
        yield _YEAR_TIER, f"year : {reading.year}"
        return
    for tier, star in ((0, ""), (2, "*")):
        yield tier, f'names : "{reading.typed}"{star}{within}'
        if reading.bare != reading.typed:
            yield tier + 1, f'names : "{reading.bare}"{star}{within}'
    yield 4, f"words : ({reading.words}){within}"


_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MAX_LETTERS = 100
# Queries that are looked up in all their variants: 72 a letter.
_SHORT = 12
_PARTS = 4
# Shorter ones have no part with enough trigrams in it.
_IN_PARTS = 9
# The most watched names that are compared with a query, of those that one expression finds.
_MAX_SHARING = 100
_NAMED = """
SELECT DISTINCT place FROM json_each(?) CROSS JOIN short_name ON name = json_each.value ORDER BY place"""
_SHARING = """
SELECT place, title.names FROM title_trigrams CROSS JOIN title ON place = title_trigrams.rowid
WHERE title_trigrams MATCH ? ORDER BY title_trigrams.rowid LIMIT ?"""

Rows = Callable[[str, Sequence[Any]], list[Any]]


class Titles:
    """Searches the tables of SCHEMA; `rows` runs a query and fetches all of it."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def search(self, text: str, limit: int) -> list[int]:
        """Finds ids of movies, best first, as `Catalog.search` says."""
        # "&" alone is a symbol, though it is a word between others.
        if not any(char.isalnum() for char in text):
            return []
        chunks = [parts[:_MAX_WORDS] for parts in _chunks(_as_read(text))[:_MAX_WORDS]]
        if not chunks:
            return []
        places = self._matching(chunks, limit) or list(self._like(chunks))[:limit]
        return self._movies(places)

    def _matching(self, chunks: list[list[str]], limit: int) -> list[int]:
        found: set[tuple[int, int]] = set()
        for reading in _readings(chunks):
            for tier, expression in _expressions(reading):
                found.update((tier, place) for place in self._places(expression, limit))
        return list(dict.fromkeys(place for _, place in sorted(found)))[:limit]

    def _places(self, expression: str, limit: int) -> list[int]:
        sql = "SELECT rowid FROM title_search WHERE title_search MATCH ? ORDER BY rowid LIMIT ?"
        return [row[0] for row in self._rows(sql, (expression, limit))]

    def _movies(self, places: list[int]) -> list[int]:
        sql = "SELECT place, movie_id FROM json_each(?) CROSS JOIN title ON place = json_each.value"
        found = dict(self._rows(sql, (json.dumps(places),)))
        return [found[place] for place in places]

    def _like(self, chunks: list[list[str]]) -> Iterable[int]:
        """Yields places of names that are the query but for one typing error, or that begin so."""
        typed = _squeeze(_bare(chunks))[:_MAX_LETTERS]
        whole = self._rows(_NAMED, (json.dumps(_variants(typed)),)) if len(typed) <= _SHORT else []
        if whole:
            return (row[0] for row in whole)
        rows = {row for part in _parts(typed) for row in self._rows(_SHARING, (part, _MAX_SHARING))}
        rated = ((_goes_on(typed, names), place) for place, names in rows)
        return (place for _, place in sorted(each for each in rated if each[0] is not None))


def _variants(typed: str) -> list[str]:
    """Lists what a short query may have been meant as."""
    cuts = [(typed[:at], typed[at:]) for at in range(len(typed) + 1)]
    swapped = [start + end[1] + end[0] + end[2:] for start, end in cuts if len(end) > 1]
    without = [start + end[1:] for start, end in cuts if end]
    others = [start + letter + end[skip:] for start, end in cuts for skip in (0, 1) for letter in _LETTERS]
    return [*swapped, *without, *others]


def _parts(typed: str) -> list[str]:
    """Writes FTS5 expressions, each of all but a few letters of the query; one of them leaves out a typing error."""
    size = len(typed)
    if size < _IN_PARTS:
        return [" OR ".join(_trigrams(f"\n{typed}\n"))] if typed else []
    # They overlap, so that two letters that were swapped are in one of them.
    left_out = [(size * at // _PARTS, size * (at + 1) // _PARTS + 1) for at in range(_PARTS)]
    kept = ([*_trigrams(f"\n{typed[:start]}"), *_trigrams(typed[end:])] for start, end in left_out)
    return [" AND ".join(trigrams) for trigrams in kept]


def _trigrams(text: str) -> list[str]:
    return [f'"{text[at : at + 3]}"' for at in range(len(text) - 2)]


def _goes_on(typed: str, names: str) -> bool | None:
    """Says whether the likeliest of names goes on after a query with one error in it; None: it is none of them."""
    found = (_errs(typed, name) for name in names.split("\n")[1:-1])
    return min((each for each in found if each is not None), default=None)


def _errs(typed: str, name: str) -> bool | None:
    # Letters that both begin with are right; what differs first is the error, and what follows it must agree.
    at = _common(typed, name)
    left, rest = typed[at:], name[at:]
    tries = [(left[1:], rest[1:]), (left[1:], rest), (left, rest[1:])]
    if left[:2] == rest[1::-1]:
        tries.append((left[2:], rest[2:]))
    found = [len(end) > len(start) for start, end in tries if end.startswith(start)]
    return min(found, default=None)


def _common(one: str, other: str) -> int:
    """Counts the letters that both begin with."""
    at, most = 0, min(len(one), len(other))
    while at < most and one[at] == other[at]:
        at += 1
    return at


def _as_read(text: str) -> str:
    """Writes a title of MovieLens as catalogues do: "Matrix, The (1999)" is The Matrix 1999."""
    title, year = parse_title(text)
    return title if year is None else f"{title} {year}"
