"""Cleans the events files: drops and counts bad rows, keeps the latest of each event, sorts what is left.

Files are read, and people cleaned, part by part, so that beside the narrow columns of all events only parts are in
memory. Letters in array names: n rows, E kept events, U users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marquee import features
from marquee.errors import DataError
from training.data import cells
from training.data.columns import ColumnMap
from training.data.report import EXAMPLES, Rejects
from training.data.tables import Table, read_tables

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# People are cleaned so many events at a time.
_CLEANED_AT_ONCE = 2_000_000
LATEST_MS = 4_102_444_800_000  # the first day of 2100, UTC


class EventColumns(NamedTuple):
    """Holds events as parallel columns; `users` and `items` index the user ids and the movies."""

    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.uint8]
    values: npt.NDArray[np.float32]
    times_ms: Int64s

    def take(self, keep: Bools | Int64s | slice) -> EventColumns:
        """Selects events by mask, indices or slice."""
        return EventColumns(
            self.users[keep], self.items[keep], self.kinds[keep], self.values[keep], self.times_ms[keep]
        )


class CleanEvents(NamedTuple):
    """Holds the kept events, sorted, with the user ids and the account of what was dropped."""

    columns: EventColumns
    user_ids: list[str]
    rows_read: int
    duplicates: int
    retracted: int
    rejects: Rejects


class _Verdict:
    """Marks each of n rows with the first reason, if any, for which it is bad."""

    def __init__(self, count: int) -> None:
        self._reasons: list[str] = []
        self._found = np.zeros(count, np.uint8)

    @property
    def good(self) -> Bools:
        good: Bools = self._found == 0
        return good

    def reject(self, bad: Bools, reason: str) -> None:
        self._reasons.append(reason)
        self._found[bad & self.good] = len(self._reasons)

    def rows(self) -> Iterator[tuple[str, Int64s]]:
        for number, reason in enumerate(self._reasons, 1):
            yield reason, np.flatnonzero(self._found == number)


def load_events(paths: Sequence[Path], columns: ColumnMap, movie_ids: Int64s) -> CleanEvents:
    """Reads, cleans and sorts the events of the movies `movie_ids`, which ascend.

    Events are sorted by (user, time, `features.tie_hash`, kind), so that each user's are in the order of
    `features.merge`. Raises DataError where a file cannot be used, there are no rows, or most of them are bad.
    """
    where = paths[0] if len(paths) == 1 else paths[0].parent
    rejects, users = Rejects(where), _UserCodes()
    rows_read, parts = 0, []
    for path in paths:
        for table in read_tables(path, columns.event_columns, columns.delimiter):
            rows_read += table.rows_read
            parts.append(_good_events(path, table, columns, movie_ids, users, rejects))
    if not rows_read:
        raise DataError(f"{where} has a header and no rows: copy it again from where it came")
    rejects.refuse_if_mostly_bad(rows_read)
    events, duplicates = _clean(parts, users.ids, movie_ids)
    if not len(events.users):
        raise DataError(f"{where}: every event was taken back by a RETRACTED one: export events that still stand")
    retracted = rows_read - rejects.total - duplicates - len(events.users)
    events, user_ids = rank_users(events, users.ids)
    return CleanEvents(events, user_ids, rows_read, duplicates, retracted, rejects)


def _clean(raw: list[EventColumns], user_ids: list[str], movie_ids: Int64s) -> tuple[EventColumns, int]:
    """Drops what is double or retracted and sorts each user's events; also returns the number of duplicates.

    Empties `raw`: no more than two copies of all events are to be in memory at any time.
    """
    events = _joined(raw)
    raw.clear()
    hash_U = np.array([features.user_hash(user_id) for user_id in user_ids], np.uint64)
    duplicates, parts = 0, []
    for part in _by_user(events):
        latest = drop_duplicates(part)
        duplicates += len(part.users) - len(latest.users)
        parts.append(sort_events(drop_retracted(latest), hash_U, movie_ids))
    del events
    return _joined(parts), duplicates


def _joined(parts: Sequence[EventColumns]) -> EventColumns:
    return EventColumns(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _by_user(events: EventColumns) -> Iterator[EventColumns]:
    """Splits events into parts that hold all of a user's, or none."""
    order = _order_of(events.users)
    ends = np.cumsum(np.bincount(events.users)) if len(events.users) else np.zeros(0, np.int64)
    start = 0
    while start < len(events.users):
        end = int(ends[np.searchsorted(ends, min(start + _CLEANED_AT_ONCE, len(events.users)))])
        yield events.take(slice(start, end) if order is None else order[start:end])
        start = end


def _order_of(users: npt.NDArray[np.int32]) -> Int64s | None:
    """Sorts stably by user; None where nothing has to move."""
    return None if np.all(users[1:] >= users[:-1]) else np.argsort(users, kind="stable").astype(np.int64, copy=False)


def drop_duplicates(events: EventColumns) -> EventColumns:
    """Keeps the latest event of each (user, movie, kind); of the same time, the one of the highest value.

    `features.merge` takes the later arrival of two at the same time. A file's order must not matter here, so that
    shuffled rows make the same dataset.
    """
    pairs = _pairs(events) * features.KINDS + events.kinds
    ascending = np.sort(pairs)
    if np.all(ascending[1:] != ascending[:-1]):
        return events
    order = np.lexsort((events.values, events.times_ms, pairs))
    ordered = pairs[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return events.take(order[last])


def drop_retracted(events: EventColumns) -> EventColumns:
    """Drops retractions and every event of the same user and movie dated at or before one, as `features.merge` does."""
    retractions = events.take(events.kinds == features.RETRACTED)
    if not len(retractions.users):
        return events
    pairs = _pairs(retractions)
    order = np.argsort(pairs)
    pairs, times = pairs[order], retractions.times_ms[order]
    at = np.minimum(np.searchsorted(pairs, _pairs(events)), len(pairs) - 1)
    return events.take(~((pairs[at] == _pairs(events)) & (events.times_ms <= times[at])))


def rank_users(events: EventColumns, user_ids: list[str]) -> tuple[EventColumns, list[str]]:
    """Renumbers and sorts users by id, in numeric order where all ids are integers; ids without events go."""
    present = np.flatnonzero(np.bincount(events.users, minlength=len(user_ids))).tolist()
    numeric = all(_is_integer(user_ids[code]) for code in present)
    order = sorted(present, key=lambda code: (int(user_ids[code]) if numeric else 0, user_ids[code]))
    ranks = np.zeros(len(user_ids), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    events = events._replace(users=ranks[events.users])
    moved = _order_of(events.users)
    return events if moved is None else events.take(moved), [user_ids[code] for code in order]


def sort_events(events: EventColumns, hash_U: npt.NDArray[np.uint64], movie_ids: Int64s) -> EventColumns:
    """Sorts by (user, time, tie hash, kind)."""
    ties = features.tie_hash(hash_U[events.users], movie_ids[events.items])
    return events.take(np.lexsort((events.kinds, ties, events.times_ms, events.users)))


def _pairs(events: EventColumns) -> Int64s:
    """Numbers (user, movie) pairs: below 2^31 users times 2^28 movies, a kind still fits beside it."""
    return events.users.astype(np.int64) * (1 + int(events.items.max(initial=0))) + events.items


def _is_integer(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()


class _UserCodes:
    """Numbers user ids in the order in which they are met."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    @property
    def ids(self) -> list[str]:
        return list(self._codes)

    def of(self, users: cells.Users) -> npt.NDArray[np.int32]:
        codes = [self._codes.setdefault(user_id, len(self._codes)) for user_id in users.ids]
        return np.array(codes, np.int32)[users.codes]


def _good_events(
    path: Path, table: Table, columns: ColumnMap, movie_ids: Int64s, users: _UserCodes, rejects: Rejects
) -> EventColumns:
    """Parses a part of a file, and counts and drops its bad rows."""
    verdict = _Verdict(len(table.lines))
    try:
        events = _parse(table, columns, movie_ids, users, verdict)
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: a column holds neither numbers nor text ({error}): write it as one of both"
        ) from error
    _count_bad(table, verdict, rejects)
    return events.take(verdict.good)


def _parse(table: Table, columns: ColumnMap, movie_ids: Int64s, users: _UserCodes, verdict: _Verdict) -> EventColumns:
    codes = users.of(_parse_users(table, columns, verdict))
    items = _parse_items(table, columns, movie_ids, verdict)
    kinds = _parse_kinds(table, columns, verdict)
    values = _parse_values(table, columns, kinds, verdict)
    times = _parse_times(table, columns, verdict)
    return EventColumns(codes, items.astype(np.int32), kinds.astype(np.uint8), values.astype(np.float32), times)


def _parse_users(table: Table, columns: ColumnMap, verdict: _Verdict) -> cells.Users:
    users = cells.users(table.columns[columns.user])
    missing_U = np.array([user_id in cells.MISSING for user_id in users.ids], bool)
    long_U = np.array([len(user_id.encode()) > cells.MAX_USER_BYTES for user_id in users.ids], bool)
    verdict.reject(missing_U[users.codes], f"{columns.user} is missing")
    verdict.reject(long_U[users.codes], f"{columns.user} is longer than {cells.MAX_USER_BYTES} bytes")
    return users


def _parse_items(table: Table, columns: ColumnMap, movie_ids: Int64s, verdict: _Verdict) -> Int64s:
    found = cells.positive_ids(table.columns[columns.movie])
    verdict.reject(found == 0, f"{columns.movie} is not a whole number from 1 to 2^63 - 1")
    items = np.minimum(np.searchsorted(movie_ids, found), len(movie_ids) - 1)
    verdict.reject(movie_ids[items] != found, f"{columns.movie} is not in {columns.movies_file}")
    return items


def _parse_kinds(table: Table, columns: ColumnMap, verdict: _Verdict) -> Int64s:
    if not columns.kind:
        return np.full(len(table.lines), features.RATED, np.int64)
    kinds = cells.event_kinds(table.columns[columns.kind])
    verdict.reject(kinds == 0, f"{columns.kind} is not a kind of event")
    return kinds


def _parse_values(table: Table, columns: ColumnMap, kinds: Int64s, verdict: _Verdict) -> npt.NDArray[np.float64]:
    """Maps ratings to stars; events of other kinds have 0."""
    rated = kinds == features.RATED
    if not columns.value:
        verdict.reject(rated, "kind is RATED, but no column of ratings is named")
        return np.zeros(len(kinds))
    low, high = columns.lowest, columns.rating_max
    values = cells.numbers(table.columns[columns.value])
    verdict.reject(rated & np.isnan(values), f"{columns.value} is not a number")
    verdict.reject(rated & ~((values >= low) & (values <= high)), f"{columns.value} is not from {low:g} to {high:g}")
    stars = features.MIN_RATING + (values - low) * ((features.MAX_RATING - features.MIN_RATING) / (high - low))
    return np.where(rated, np.nan_to_num(stars), 0.0)


def _parse_times(table: Table, columns: ColumnMap, verdict: _Verdict) -> Int64s:
    times = cells.times_ms(table.columns[columns.time], columns.time_unit)
    verdict.reject(np.isnan(times), f"{columns.time} is not a number")
    absurd = ~((times >= 0) & (times < LATEST_MS))
    verdict.reject(absurd, f"{columns.time}, read as {columns.time_unit}, is not from 1970 to 2099")
    return np.where(absurd, 0.0, times).astype(np.int64)


def _count_bad(table: Table, verdict: _Verdict, rejects: Rejects) -> None:
    for reason, lines in table.misfits.items():
        if len(lines):
            rejects.add(reason, table.rows(lines[:EXAMPLES]), len(lines))
    for reason, rows in verdict.rows():
        if len(rows):
            rejects.add(reason, table.rows(table.lines[rows[:EXAMPLES]]), len(rows))
