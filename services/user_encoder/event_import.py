"""Fills a feature store from a MovieLens `ratings.csv`, or MovieLens 1M's `ratings.dat`: each row is a RATED event.

A row that cannot be an event is counted, and told with its line, and skipped. Running again changes nothing.
"""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from marquee.errors import DataError, InvalidRequest
from marquee.features import MAX_FUTURE_MS, MAX_RATING, MIN_RATING, RATED, Events
from services.user_encoder.checks import check_user_id
from services.user_encoder.stores.base import FeatureStore, UserWrite, Written

RATINGS = "ratings.csv"
# MovieLens 1M: no header, latin-1, the same fields between `::`.
RATINGS_1M = "ratings.dat"
COLUMNS = ("userId", "movieId", "rating", "timestamp")

# Rows that share a transaction: its fsync is paid seldom, and a serving encoder waits for the lock below a second.
_CHUNK = 50_000
_MAX_ID = 2**63 - 1

# Per movie id, stars and time in milliseconds.
_Rating = tuple[int, float, int]
# The number of a line, and its fields.
_Row = tuple[int, list[str]]


class BadRows(NamedTuple):
    """Counts the rows that one column made useless; `line` is the first of them, the file's first line being 1."""

    column: str
    rows: int
    line: int


class Imported(NamedTuple):
    """Holds what an import did; `changed` counts people whose history was another before."""

    rows: int
    events: int
    users: int
    changed: int
    bad: tuple[BadRows, ...]
    seconds: float


async def import_events(
    data: Path, store: FeatureStore, now_ms: int, progress: Callable[[int, float], None]
) -> Imported:
    """Reads `ratings.csv` of a folder into the store; `ratings.dat` where there is no such file.

    `progress` gets the rows read and the seconds since the start, a few times a second. Raises DataError where the file
    is missing, is no such file, or has rows and none that is an event.
    """
    started = time.monotonic()
    path = _ratings_file(data)
    reader = _Reader(path, now_ms)
    users: set[str] = set()
    changed: set[str] = set()
    events = 0
    for writes in reader.chunks():
        changes = await store.write(writes)
        changed.update(
            write.user_id
            for write, one in zip(writes, changes, strict=True)
            if isinstance(one, Written) and one.changed
        )
        users.update(write.user_id for write in writes)
        events += sum(write.events.size for write in writes)
        progress(reader.rows, time.monotonic() - started)
    if reader.rows and not events:
        raise DataError(f"{path}: none of its {reader.rows:,} rows is an event ({describe(reader.bad())})")
    return Imported(reader.rows, events, len(users), len(changed), reader.bad(), time.monotonic() - started)


def describe(bad: Iterable[BadRows]) -> str:
    """Says how many rows were useless, and why and where."""
    return ", ".join(f"{one.rows:,} with a bad {one.column}, first in line {one.line:,}" for one in bad)


def _ratings_file(data: Path) -> Path:
    path, old = data / RATINGS, data / RATINGS_1M
    return old if old.is_file() and not path.exists() else path


class _Reader:
    def __init__(self, path: Path, now_ms: int) -> None:
        self._path = path
        self._dat = path.name == RATINGS_1M
        self._latest_ms = now_ms + MAX_FUTURE_MS
        self._bad: dict[str, tuple[int, int]] = {}
        self._users: set[str] = set()
        self.rows = 0

    def bad(self) -> tuple[BadRows, ...]:
        return tuple(BadRows(column, count, line) for column, (count, line) in self._bad.items())

    def chunks(self) -> Iterator[list[UserWrite]]:
        try:
            # A byte that is no UTF-8 makes its row bad and no other.
            encoding = "latin-1" if self._dat else "utf-8-sig"
            with self._path.open(encoding=encoding, errors="surrogateescape", newline="") as stream:
                yield from self._read_dat(stream) if self._dat else self._read_csv(stream)
        except OSError as error:
            raise DataError(
                f"{self._path}: cannot be read ({error.strerror}); name a folder that holds {RATINGS} or "
                f"{RATINGS_1M} with --data"
            ) from error

    def _read_dat(self, stream: TextIO) -> Iterator[list[UserWrite]]:
        lines = ((line, text.rstrip("\r\n")) for line, text in enumerate(stream, start=1))
        return self._in_chunks(((line, text.split("::")) for line, text in lines if text), list(range(len(COLUMNS))))

    def _read_csv(self, stream: TextIO) -> Iterator[list[UserWrite]]:
        lines = csv.reader(stream)
        try:
            places = self._places(next(lines, []))
            # Blank lines come as empty rows; they are none.
            yield from self._in_chunks(((lines.line_num, row) for row in lines if row), places)
        except csv.Error as error:
            raise DataError(f"{self._path}: line {lines.line_num:,} is not CSV ({error}); mend it") from error

    def _in_chunks(self, numbered: Iterator[_Row], places: list[int]) -> Iterator[list[UserWrite]]:
        while rows := list(itertools.islice(numbered, _CHUNK)):
            yield self._writes(rows, places)

    def _places(self, header: list[str]) -> list[int]:
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            raise DataError(
                f"{self._path}: its first line names no column {', '.join(missing)}; it must be a MovieLens ratings "
                f"file with the columns {','.join(COLUMNS)}"
            )
        return [header.index(column) for column in COLUMNS]

    def _writes(self, rows: list[_Row], places: list[int]) -> list[UserWrite]:
        by_user: dict[str, list[_Rating]] = {}
        for line, row in rows:
            self._take(row, places, line, by_user)
        self.rows += len(rows)
        return [UserWrite(user_id, _events(ratings)) for user_id, ratings in by_user.items()]

    def _take(self, row: list[str], places: list[int], line: int, by_user: dict[str, list[_Rating]]) -> None:
        if len(row) <= max(places):
            return self._refuse("number of columns", line)
        user_id, movie, stars, seconds = (row[place] for place in places)
        if not self._is_user(user_id):
            return self._refuse("userId", line)
        movie_id, rating, time_ms = _whole(movie), _decimal(stars), _whole(seconds) * 1000
        if not 0 < movie_id <= _MAX_ID:
            return self._refuse("movieId", line)
        if not MIN_RATING <= rating <= MAX_RATING:
            return self._refuse("rating", line)
        # 0 would be "now" on the wire; here it is what a broken export writes.
        if not 0 < time_ms <= self._latest_ms:
            return self._refuse("timestamp", line)
        by_user.setdefault(user_id, []).append((movie_id, rating, time_ms))
        return None

    def _refuse(self, column: str, line: int) -> None:
        count, first = self._bad.get(column, (0, line))
        self._bad[column] = count + 1, first

    def _is_user(self, user_id: str) -> bool:
        if user_id in self._users:
            return True
        try:
            check_user_id(user_id, "userId")
            user_id.encode()
        except (InvalidRequest, UnicodeEncodeError):
            return False
        self._users.add(user_id)
        return True


def _whole(text: str) -> int:
    # int() alone would also take "1_000", " 1" and digits of other scripts.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _events(ratings: list[_Rating]) -> Events:
    movie_ids, stars, times_ms = zip(*ratings, strict=True)
    return Events(
        np.array(movie_ids, np.int64),
        np.full(len(ratings), RATED, np.int64),
        np.array(stars, np.float32),
        np.array(times_ms, np.int64),
    )
