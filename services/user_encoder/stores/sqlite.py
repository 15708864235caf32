"""The feature store in one local SQLite file, which several processes may use at once.

One row a person holds all their events as a packed blob, because an encoder reads all of them: a row per event costs
about 30 times more to read. Reads run on the event loop, since a point read costs less than a thread hop. Writes run
on one thread of their own, and those that arrive while a transaction runs share the next one.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import NamedTuple, TypeVar

from marquee.errors import StoreUnavailable
from marquee.features import NO_EVENTS, Events
from services.common.deadlines import ends_at, time_left, too_late
from services.user_encoder.stores.base import (
    ScanPage,
    UserWrite,
    Written,
    add,
    after_deletion,
    attribute,
    damaged,
    pack_person,
    unpack_person,
)
from services.user_encoder.stores.sqlite_file import (
    ATTRIBUTE,
    WRITE,
    connect,
    default_key_path,
    empty_log,
    number_of,
    open_file,
    transaction,
)
from services.user_encoder.stores.sqlite_pages import Page

_log = logging.getLogger(__name__)

T = TypeVar("T")
# Of one call, in the order of its writes.
_Outcomes = list[Written | StoreUnavailable]

_READ = "SELECT history FROM people WHERE id = ?"
_READ_TO_WRITE = """SELECT (SELECT history FROM people WHERE id = ?1),
    coalesce((SELECT at_ms FROM tombstones WHERE tag = ?2), 0)"""
_READ_ATTRIBUTIONS = "SELECT request_ids FROM requests WHERE id = ?"
# A replaced row gets a new sequence: a person's second deletion is told like the first.
_BURY = """INSERT OR REPLACE INTO tombstones (tag, at_ms)
    VALUES (?1, max(?2, coalesce((SELECT at_ms FROM tombstones WHERE tag = ?1), 0)))"""
_TOLD = "SELECT coalesce(max(sequence), 0) FROM tombstones"
_TO_TELL = "SELECT sequence, tag FROM tombstones WHERE sequence > ? ORDER BY sequence"
_SCAN = "SELECT id, history FROM people WHERE id >= ? ORDER BY id LIMIT ?"

# A reader waits for a writer only while a crashed process's log is being recovered: on the event loop less long.
_READ_TIMEOUT_S, _LOOP_TIMEOUT_S = 1.0, 0.02
_WATCH_S = 0.5
_LEAST_ID, _MOST_ID = -(2**63), 2**63 - 1
_CURSOR = "sqlite:"


class SqliteStore:
    """Keeps histories in one SQLite file; made and read in one event loop's thread.

    A write waits `write_timeout_s` for other processes' transactions. `key_path` is the file of the key that tags are
    made with, `<path>.key` unless it is given; it is made with a new store. Raises ConfigError where the file is no
    store, or the key is not its own.
    """

    kind = "sqlite"
    waits = False

    def __init__(self, path: Path, *, key_path: Path | None = None, write_timeout_s: float = 10.0) -> None:
        self._path = path
        self._write_timeout_s = write_timeout_s
        self._writer, self._tags = open_file(path, key_path or default_key_path(path), write_timeout_s)
        try:
            self._reader = connect(path, _READ_TIMEOUT_S)
            self._page = Page.of(self._reader)
            (self._told,) = self._reader.execute(_TOLD).fetchone()
            self._reader.execute(f"PRAGMA busy_timeout = {_LOOP_TIMEOUT_S * 1000:.0f}")
        except sqlite3.Error:
            self._writer.close()
            raise
        self._thread = ThreadPoolExecutor(1, "feature-store-writer")
        self._transaction = asyncio.Lock()
        self._group: _Group | None = None
        # Whether the log still holds what was deleted: it may, where another process was killed in time.
        self._log_to_empty = self._told > 0 and not empty_log(self._writer, write_timeout_s)

    def digest(self, user_id: str) -> bytes:
        """Computes the keyed hash of an id, under which its tombstone stands; asks nobody."""
        return self._tags.of(user_id)

    async def read(self, user_id: str) -> Events:
        """Reads a person's history, with its retractions; empty where there is none."""
        history = self._history(user_id, self._blob(user_id))
        if isinstance(history, StoreUnavailable):
            raise history
        return history

    async def read_many(self, user_ids: Sequence[str]) -> list[Events | StoreUnavailable]:
        """Reads several people's histories, in their order; says which are damaged."""
        return [self._history(user_id, self._blob(user_id)) for user_id in user_ids]

    def _blob(self, user_id: str) -> bytes:
        try:
            row = self._reader.execute(_READ, (number_of(self._tags.of(user_id)),)).fetchone()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        return row[0] if row else b""

    def _history(self, user_id: str, blob: bytes) -> Events | StoreUnavailable:
        """Reads a row's blob, empty where there is no row."""
        if not blob:
            return NO_EVENTS
        try:
            owner, history = unpack_person(self._page.content(blob))
        except StoreUnavailable as error:
            return error
        return history if owner == user_id else damaged("another person in this one's row")

    def _unreadable(self, error: sqlite3.Error) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._path}: cannot be read ({error}); see that the file is whole and this process may read it"
        )

    async def write(self, writes: Sequence[UserWrite]) -> list[Written | StoreUnavailable]:
        """Adds events, in one transaction; says for each write what became of it."""
        group = self._group
        if group is None:
            group = self._group = _Group()
            group.committed = asyncio.ensure_future(self._commit_group(group))
        place = len(group.parts)
        group.parts.append(_Part(writes, ends_at()))
        # Shielded: a caller that gives up must not cancel the others' transaction.
        outcomes = (await asyncio.shield(group.committed))[place]
        if outcomes is None:
            raise too_late()
        return outcomes

    async def _commit_group(self, group: _Group) -> list[_Outcomes | None]:
        async with self._transaction:
            # What arrives from here on goes into the next one.
            self._group = None
            return await self._on_thread(lambda: self._commit(group.parts))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        # In the call's context, which has its deadline.
        return await asyncio.get_running_loop().run_in_executor(self._thread, copy_context().run, work)

    def _commit(self, parts: list[_Part]) -> list[_Outcomes | None]:
        """Writes all parts; has None for one whose call ended while it waited for its turn, or for another process."""
        with self._writing("recorded"):
            now = time.monotonic()
            outcomes = [None if part.is_late(now) else [self._add(write) for write in part.writes] for part in parts]
        self._empty_log()
        return outcomes

    @contextmanager
    def _writing(self, done: str) -> Iterator[None]:
        try:
            with transaction(self._writer):
                yield
        except sqlite3.Error as error:
            raise StoreUnavailable(
                f"{self._path}: cannot be written ({error}), nothing was {done}; see that the disk has room and no "
                "other process holds the file, then send the call again"
            ) from error

    def _add(self, write: UserWrite) -> Written | StoreUnavailable:
        tag = self._tags.of(write.user_id)
        number = number_of(tag)
        blob, deleted_at_ms = self._writer.execute(_READ_TO_WRITE, (number, tag)).fetchone()
        before = self._history(write.user_id, blob or b"")
        if isinstance(before, StoreUnavailable):
            return before
        write = after_deletion(write, deleted_at_ms)
        if any(write.request_ids):
            self._attribute(number, write)
        after = self._page.fill(pack_person(write.user_id, add(before, write)))
        changed = after != blob and write.events.size > 0
        if changed:
            self._writer.execute(WRITE, (number, after))
        return Written(changed, deleted_at_ms)

    def _attribute(self, number: int, write: UserWrite) -> None:
        row = self._writer.execute(_READ_ATTRIBUTIONS, (number,)).fetchone()
        packed = attribute(bytes(self._page.content(row[0])) if row else b"", write)
        self._writer.execute(ATTRIBUTE, (number, self._page.fill(packed)))

    async def delete(self, user_id: str, at_ms: int) -> bool:
        """Deletes everything about a person but a tombstone that refuses events dated at or before `at_ms`."""
        return await asyncio.shield(self._delete_next(user_id, at_ms))

    async def _delete_next(self, user_id: str, at_ms: int) -> bool:
        async with self._transaction:
            return await self._on_thread(lambda: self._delete(self._tags.of(user_id), at_ms))

    def _delete(self, tag: bytes, at_ms: int) -> bool:
        with self._writing("deleted"):
            time_left()
            existed = self._writer.execute("DELETE FROM people WHERE id = ?", (number_of(tag),)).rowcount > 0
            self._writer.execute("DELETE FROM requests WHERE id = ?", (number_of(tag),))
            self._writer.execute(_BURY, (tag, at_ms))
        self._log_to_empty = True
        self._empty_log()
        return existed

    def _empty_log(self) -> None:
        """Empties the log where it may hold what was deleted; says so where it cannot yet."""
        if self._log_to_empty:
            self._log_to_empty = not empty_log(self._writer, self._write_timeout_s)
            if self._log_to_empty:
                _log.warning(
                    "%s-wal still holds what was deleted, because another process reads the file; it is emptied as "
                    "soon as that one is done: end long readers",
                    self._path,
                )

    async def scan(self, cursor: str, limit: int) -> ScanPage:
        """Reads up to `limit` people from a cursor on, "" being the first, in the order of their rows."""
        first = _read_cursor(cursor)
        # A connection of its own, on another thread: reading thousands of histories must not hold up the others.
        rows = await asyncio.to_thread(self._scan, first, limit + 1)
        people = [unpack_person(self._page.content(blob)) for _, blob in rows[:limit]]
        if len(rows) <= limit:
            return ScanPage(people, "", 1.0)
        following = rows[limit][0]
        # Rows are spread evenly over all numbers.
        return ScanPage(people, f"{_CURSOR}{following}", (following - _LEAST_ID) / (_MOST_ID - _LEAST_ID))

    def _scan(self, first: int, count: int) -> list[tuple[int, bytes]]:
        try:
            with closing(connect(self._path, _READ_TIMEOUT_S)) as connection:
                return connection.execute(_SCAN, (first, count)).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    async def watch_deletions(self, forget: Callable[[bytes | None], None]) -> None:
        """Tells of deletions, by whatever process, since this store was opened, until cancelled."""
        failure = ""
        while True:
            await asyncio.sleep(_WATCH_S)
            try:
                self._tell(forget)
            except StoreUnavailable as error:
                if error.message != failure:
                    failure = error.message
                    _log.warning("deletions cannot be watched, and are told later: %s", failure)
            if self._log_to_empty:
                await self._on_thread(self._empty_log)

    def _tell(self, forget: Callable[[bytes | None], None]) -> None:
        try:
            rows = self._reader.execute(_TO_TELL, (self._told,)).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        for sequence, tag in rows:
            forget(tag)
            self._told = sequence

    async def aclose(self) -> None:
        """Finishes running writes and releases everything."""
        async with self._transaction:
            self._thread.shutdown()
            self._reader.close()
            self._empty_log()
            self._writer.close()


class _Part(NamedTuple):
    """Is one call's writes, and when the call ends on the monotonic clock; None: never."""

    writes: Sequence[UserWrite]
    ends_at: float | None

    def is_late(self, now: float) -> bool:
        return self.ends_at is not None and self.ends_at <= now


class _Group:
    """Is what goes into one transaction: all that arrives until the one before has ended."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.committed: asyncio.Future[list[_Outcomes | None]]


def _read_cursor(cursor: str) -> int:
    if not cursor:
        return _LEAST_ID
    number = cursor.removeprefix(_CURSOR)
    if number == cursor or not number.removeprefix("-").isdecimal() or not _LEAST_ID <= int(number) <= _MOST_ID:
        raise ValueError(f"{cursor!r} is no cursor that a SQLite store gave")
    return int(number)
