"""Reads MovieLens' `ratings.csv`, or MovieLens 1M's `ratings.dat`, as events of people, window by window of rows."""

from __future__ import annotations

import asyncio
import codecs
import csv
import functools
import itertools
from array import array
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from marquee.errors import DataError, InvalidRequest
from marquee.features import MAX_FUTURE_MS, MAX_RATING, MIN_RATING, RATED, Events
from services.user_encoder.checks import check_user_id
from services.user_encoder.stores.base import UserWrite

RATINGS = "ratings.csv"
# MovieLens 1M: no header, latin-1, the same fields between `::`.
RATINGS_1M = "ratings.dat"
COLUMNS = ("userId", "movieId", "rating", "timestamp")

# Rows whose events are grouped by person, about 60 bytes a row: in a file in the order of time people come back, and
# a store takes about as long for one event of a person as for ten.
WINDOW = 2_000_000
# Rows that are read before the event loop gets its turn; so few that they do not set off the garbage collector.
_SLICE = 2_000
_MAX_ID = 2**63 - 1

# The number of a line, and its fields.
_Row = tuple[int, list[str]]
# Picks the fields of COLUMNS out of a row.
_Pick = Callable[[list[str]], tuple[str, str, str, str]]


class BadRows(NamedTuple):
    """Counts the rows that one column made useless; `line` is the first of them, the file's first line being 1."""

    column: str
    rows: int
    line: int


class Place(NamedTuple):
    """Is a place between two rows of a file: the bytes and the lines before it."""

    offset: int = 0
    line: int = 0


class Window(NamedTuple):
    """Holds the events of some rows of a file, person by person: person i's are those from bounds[i] to bounds[i + 1].

    Of 200,000 people the writes themselves would take 100 MB.
    """

    begins: Place
    ends: Place
    user_ids: list[str]
    bounds: list[int]
    ratings: Events

    def events_of(self, person: int) -> int:
        """Counts a person's events."""
        return self.bounds[person + 1] - self.bounds[person]

    def write_of(self, person: int) -> UserWrite:
        """Makes what is to write of a person, in the order of the rows."""
        return UserWrite(self.user_ids[person], self.ratings.take(slice(*self.bounds[person : person + 2])))


class RatingFile:
    """Reads the ratings of a folder; `rows` counts the rows that were read, `bad` those of them that are no events."""

    def __init__(self, data: Path, now_ms: int) -> None:
        self.path = _ratings_file(data)
        self.rows = 0
        self._dat = self.path.name == RATINGS_1M
        self._latest_ms = now_ms + MAX_FUTURE_MS
        self._bad: dict[str, tuple[int, int]] = {}
        self._users: set[str] = set()

    @property
    def bad(self) -> tuple[BadRows, ...]:
        """Says how many rows were no events, by column."""
        return tuple(BadRows(column, count, line) for column, (count, line) in self._bad.items())

    def state(self) -> tuple[int, int]:
        """Tells this file from what it was before: its size and its time."""
        with _reading(self.path):
            found = self.path.stat()
        return found.st_size, found.st_mtime_ns

    async def windows(self, start: Place, on_rows: Callable[[int], None]) -> AsyncGenerator[Window]:
        """Reads windows from the beginning on, or from where one of them ended.

        `on_rows` gets the bytes before the next row, a few times a second. Raises DataError where the file is missing
        or is no such file.
        """
        with _reading(self.path), self.path.open("rb") as stream:
            lines = _Lines(stream, "latin-1" if self._dat else "utf-8")
            pick: _Pick = itemgetter(*range(len(COLUMNS))) if self._dat else self._columns(lines)
            if start.offset:
                lines.go_to(start)
            rows = _dat_rows(lines) if self._dat else self._csv_rows(lines)
            while True:
                begins, ratings = lines.place, _Ratings()
                await self._fill(ratings, rows, pick, lambda: on_rows(lines.place.offset))
                if begins == lines.place:
                    return
                yield ratings.window(begins, lines.place)

    async def _fill(self, ratings: _Ratings, rows: Iterator[_Row], pick: _Pick, on_rows: Callable[[], None]) -> None:
        read = 0
        while part := list(itertools.islice(rows, min(_SLICE, WINDOW - read))):
            for line, row in part:
                self._take(row, pick, line, ratings)
            read += len(part)
            self.rows += len(part)
            on_rows()
            await asyncio.sleep(0)

    def _csv_rows(self, lines: _Lines) -> Iterator[_Row]:
        try:
            # Blank lines come as empty rows; they are none.
            yield from ((lines.line, row) for row in csv.reader(lines) if row)
        except csv.Error as error:
            raise DataError(f"{self.path}: line {lines.line:,} is not CSV ({error}); mend it") from error

    def _columns(self, lines: _Lines) -> _Pick:
        header = next(csv.reader(lines), [])
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            raise DataError(
                f"{self.path}: its first line names no column {', '.join(missing)}; it must be a MovieLens ratings "
                f"file with the columns {','.join(COLUMNS)}"
            )
        return itemgetter(*[header.index(column) for column in COLUMNS])

    def _take(self, row: list[str], pick: _Pick, line: int, ratings: _Ratings) -> None:
        try:
            user_id, movie, stars, seconds = pick(row)
        except IndexError:
            return self._refuse("number of columns", line)
        if user_id not in self._users and not self._is_user(user_id):
            return self._refuse("userId", line)
        movie_id, rating, time_ms = _known_whole(movie), _known_decimal(stars), _whole(seconds) * 1000
        if not 0 < movie_id <= _MAX_ID:
            return self._refuse("movieId", line)
        if not MIN_RATING <= rating <= MAX_RATING:
            return self._refuse("rating", line)
        # 0 would be "now" on the wire; here it is what a broken export writes.
        if not 0 < time_ms <= self._latest_ms:
            return self._refuse("timestamp", line)
        return ratings.add(user_id, movie_id, rating, time_ms)

    def _refuse(self, column: str, line: int) -> None:
        count, first = self._bad.get(column, (0, line))
        self._bad[column] = count + 1, first

    def _is_user(self, user_id: str) -> bool:
        try:
            check_user_id(user_id, "userId")
            user_id.encode()
        except (InvalidRequest, UnicodeEncodeError):
            return False
        self._users.add(user_id)
        return True


def _ratings_file(data: Path) -> Path:
    path, old = data / RATINGS, data / RATINGS_1M
    return old if old.is_file() and not path.exists() else path


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); name a folder that holds {RATINGS} or {RATINGS_1M} with --data"
        ) from error


class _Lines:
    """Reads lines; `line` counts those that were read. A byte that is no UTF-8 makes its row bad and no other."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding
        self._offset = self.line = 0

    @property
    def place(self) -> Place:
        """Is where the next line begins."""
        return Place(self._offset, self.line)

    def go_to(self, place: Place) -> None:
        """Goes on at a place."""
        self._stream.seek(place.offset)
        self._offset, self.line = place

    def __iter__(self) -> Iterator[str]:
        for raw in self._stream:
            text = raw.removeprefix(codecs.BOM_UTF8) if self._offset == 0 else raw
            self._offset += len(raw)
            self.line += 1
            yield text.decode(self._encoding, "surrogateescape")


def _dat_rows(lines: _Lines) -> Iterator[_Row]:
    for text in lines:
        row = text.rstrip("\r\n")
        if row:
            yield lines.line, row.split("::")


class _Ratings:
    """Collects ratings as columns; the codes of people count from 0."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._users, self._movies, self._stars, self._times = array("i"), array("q"), array("f"), array("q")

    def add(self, user_id: str, movie_id: int, stars: float, time_ms: int) -> None:
        """Adds a rating."""
        self._users.append(self._codes.setdefault(user_id, len(self._codes)))
        self._movies.append(movie_id)
        self._stars.append(stars)
        self._times.append(time_ms)

    def window(self, begins: Place, ends: Place) -> Window:
        """Groups the ratings by person, people in the order in which they came."""
        users = np.frombuffer(self._users, np.int32)
        order = np.argsort(users, kind="stable")
        ratings = Events(
            np.frombuffer(self._movies, np.int64)[order],
            np.full(len(users), RATED, np.int64),
            np.frombuffer(self._stars, np.float32)[order],
            np.frombuffer(self._times, np.int64)[order],
        )
        counts = np.bincount(users, minlength=len(self._codes))
        return Window(begins, ends, list(self._codes), [0, *np.cumsum(counts).tolist()], ratings)


def _whole(text: str) -> int:
    # int() alone would also take "1_000", " 1" and digits of other scripts.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


# Movies and stars are few, and come again and again.
_known_whole = functools.lru_cache(1 << 17)(_whole)
_known_decimal = functools.lru_cache(1 << 6)(_decimal)
