"""Fills a feature store from a MovieLens `ratings.csv`, or MovieLens 1M's `ratings.dat`: each row is a RATED event.

A row that cannot be an event is counted, and told with its line, and skipped. Running again changes nothing. A
`Resume` keeps how far a run is, so that the next one goes on there however it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from marquee.errors import DataError, StoreUnavailable
from marquee.whole_files import read_json, write_json
from services.user_encoder.rating_files import WINDOW, BadRows, Place, RatingFile, Window
from services.user_encoder.stores.base import FeatureStore, UserWrite

FORMAT = 1

# What shares a transaction: its fsync is paid seldom, and a serving encoder waits for the lock below a second.
_MOST_EVENTS, _MOST_PEOPLE = 50_000, 2_000


class Imported(NamedTuple):
    """Holds what an import did; `changed` counts people whose history was another before.

    `refused` counts events of people who were deleted after them, `before` the lines that an earlier run had read.
    """

    rows: int
    events: int
    users: int
    changed: int
    bad: tuple[BadRows, ...]
    seconds: float
    refused: int = 0
    before: int = 0


class _Mark(NamedTuple):
    """Says how far an import is: the window that it is in, and how many of its transactions have been stored."""

    window: Place
    stored: int


class _Stale(Exception):
    """Says that the store has lost what a mark says that it has."""


class Resume:
    """Keeps how far an import is in a file, once in `every_s` seconds, and removes it when the import is done."""

    def __init__(self, path: Path, store: str, *, every_s: float = 1.0) -> None:
        self._path = path
        self._store = store
        self._every_s = every_s
        self._kept_at = time.monotonic()

    def read(self, file: RatingFile) -> _Mark | None:
        """Reads how far an import of this file, as it is now, into this store is."""
        kept = read_json(self._path)
        if kept is None or {name: kept.get(name) for name in self._source(file)} != self._source(file):
            return None
        return _Mark(Place(kept["offset"], kept["line"]), kept["stored"])

    def keep(self, file: RatingFile, mark: _Mark) -> None:
        """Keeps how far an import is; raises DataError where the file cannot be written."""
        now = time.monotonic()
        if now - self._kept_at < self._every_s:
            return
        self._kept_at = now
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, {**self._source(file), **mark.window._asdict(), "stored": mark.stored})
        except OSError as error:
            raise DataError(
                f"{self._path}: cannot be written ({error.strerror}), so the import could not go on where it is ended; "
                "name another file with --progress"
            ) from error

    def end(self) -> None:
        """Removes the file."""
        self._path.unlink(missing_ok=True)

    def _source(self, file: RatingFile) -> dict[str, object]:
        size, time_ns = file.state()
        return {
            "format": FORMAT,
            "data": str(file.path.resolve()),
            "size": size,
            "time_ns": time_ns,
            "store": self._store,
            "split": [WINDOW, _MOST_EVENTS, _MOST_PEOPLE],
        }


async def import_events(
    data: Path,
    store: FeatureStore,
    now_ms: int,
    progress: Callable[[float, int], None],
    resume: Resume | None = None,
) -> Imported:
    """Reads `ratings.csv` of a folder into the store; `ratings.dat` where there is no such file.

    `progress` gets the part that is done, and the rows read, a few times a second. Raises DataError where the file is
    missing, is no such file, or has rows and none that is an event, and StoreUnavailable where an event could not be
    stored.
    """
    mark = resume.read(RatingFile(data, now_ms)) if resume else None
    try:
        done = await _Import(RatingFile(data, now_ms), store, progress, resume).run(mark)
    except _Stale:
        done = await _Import(RatingFile(data, now_ms), store, progress, resume).run(None)
    if resume:
        resume.end()
    return done


def describe(bad: Iterable[BadRows]) -> str:
    """Says how many rows were useless, and why and where."""
    return ", ".join(f"{one.rows:,} with a bad {one.column}, first in line {one.line:,}" for one in bad)


class _Import:
    """Is one run through a file."""

    def __init__(
        self, file: RatingFile, store: FeatureStore, progress: Callable[[float, int], None], resume: Resume | None
    ) -> None:
        self._file = file
        self._store = store
        self._progress = progress
        self._resume = resume
        self._size, _ = file.state()
        self._users: set[str] = set()
        self._changed: set[str] = set()
        self._events = self._refused = 0

    async def run(self, mark: _Mark | None) -> Imported:
        started = time.monotonic()
        begins, stored = mark or _Mark(Place(), 0)
        written = begins.offset
        # Half of the work is to read a row, half to write it.
        windows = self._file.windows(begins, lambda read: self._tell(read, written))
        async with aclosing(windows):
            async for window in windows:
                await self._write(window, stored)
                stored, written = 0, window.ends.offset
        if self._file.rows and not self._events and not begins.offset:
            bad = describe(self._file.bad)
            raise DataError(f"{self._file.path}: none of its {self._file.rows:,} rows is an event ({bad})")
        return Imported(
            self._file.rows,
            self._events,
            len(self._users),
            len(self._changed),
            self._file.bad,
            time.monotonic() - started,
            self._refused,
            begins.line,
        )

    async def _write(self, window: Window, stored: int) -> None:
        """Writes a window but for its first `stored` transactions, of which it writes the last one again."""
        transactions = list(self._transactions(window))
        for number, people in enumerate(transactions, start=1):
            if number >= stored:
                changed = await self._add([window.write_of(person) for person in people])
                if number == stored and changed:
                    raise _Stale
                if self._resume:
                    self._resume.keep(self._file, _Mark(window.begins, number))
            length = window.ends.offset - window.begins.offset
            self._tell(window.ends.offset, window.begins.offset + length * number // len(transactions))

    def _transactions(self, window: Window) -> Iterator[list[int]]:
        """Says of whom each transaction is."""
        # In the order of a SQLite file's rows: in another order, 200,000 people take three times as long to write.
        order = sorted(range(len(window.user_ids)), key=lambda person: self._store.digest(window.user_ids[person]))
        people: list[int] = []
        events = 0
        for person in order:
            people.append(person)
            events += window.events_of(person)
            if events >= _MOST_EVENTS or len(people) == _MOST_PEOPLE:
                yield people
                people, events = [], 0
        if people:
            yield people

    async def _add(self, writes: Sequence[UserWrite]) -> list[str]:
        """Writes, and lists the people whose history was another before."""
        changed = []
        for write, one in zip(writes, await self._store.write(writes), strict=True):
            if isinstance(one, StoreUnavailable):
                raise one
            if one.changed:
                changed.append(write.user_id)
            if one.deleted_at_ms:
                self._refused += int(np.count_nonzero(write.events.times_ms <= one.deleted_at_ms))
        self._changed.update(changed)
        self._users.update(write.user_id for write in writes)
        self._events += sum(write.events.size for write in writes)
        return changed

    def _tell(self, read: int, written: int) -> None:
        self._progress((read + written) / (2 * max(self._size, 1)), self._file.rows)
