"""The feature store in one local SQLite file, which several processes may use at once.

One row a person holds all their events as a packed blob, because an encoder reads all of them: a row per event costs
about 30 times more to read. Reads run on the event loop, since a point read costs less than a thread hop. Writes run
on one thread of their own, and those that arrive while a transaction runs share the next one.

What is deleted must leave the file. `PRAGMA secure_delete` overwrites what is freed, but SQLite also moves rows from
page to page when it balances its trees, and the copy that stays in a page's unused part is not overwritten. So no row
holds anything about a person inside a tree: its key is a number made of the person's tag, and its blob starts with
zeros, as many as SQLite keeps in the tree; the rest lies in overflow pages, which never move.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from marquee.errors import ConfigError, StoreUnavailable
from marquee.features import NO_EVENTS, Events
from services.user_encoder.stores.base import (
    ScanPage,
    UserWrite,
    Written,
    add,
    after_deletion,
    attribute,
    damaged,
    pack_person,
    unpack,
    unpack_person,
)
from services.user_encoder.stores.tags import Tags, make_tags, read_tags

_log = logging.getLogger(__name__)

T = TypeVar("T")

SCHEMA_VERSION = 2
# "Marq": tells a feature store from any other SQLite file.
APPLICATION_ID = 0x4D617271

_SCHEMA = """
CREATE TABLE people (id INTEGER PRIMARY KEY, history BLOB NOT NULL);
CREATE TABLE requests (id INTEGER PRIMARY KEY, request_ids BLOB NOT NULL);
CREATE TABLE tombstones (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, tag BLOB NOT NULL UNIQUE, at_ms INTEGER NOT NULL
);
CREATE TABLE key_check (tag BLOB NOT NULL)
"""
_READ = "SELECT history FROM people WHERE id = ?"
_READ_TO_WRITE = """SELECT (SELECT history FROM people WHERE id = ?1),
    coalesce((SELECT at_ms FROM tombstones WHERE tag = ?2), 0)"""
_READ_ATTRIBUTIONS = "SELECT request_ids FROM requests WHERE id = ?"
_WRITE = "INSERT INTO people VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET history = excluded.history"
_ATTRIBUTE = "INSERT INTO requests VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET request_ids = excluded.request_ids"
# A replaced row gets a new sequence: a person's second deletion is told like the first.
_BURY = """INSERT OR REPLACE INTO tombstones (tag, at_ms)
    VALUES (?1, max(?2, coalesce((SELECT at_ms FROM tombstones WHERE tag = ?1), 0)))"""
_TOLD = "SELECT coalesce(max(sequence), 0) FROM tombstones"
_TO_TELL = "SELECT sequence, tag FROM tombstones WHERE sequence > ? ORDER BY sequence"
_SCAN = "SELECT id, history FROM people WHERE id >= ? ORDER BY id LIMIT ?"

# A reader waits for a writer only while a crashed process's log is being recovered: on the event loop less long.
_READ_TIMEOUT_S, _LOOP_TIMEOUT_S = 1.0, 0.02
# The log can be emptied when nobody reads an older state of the file. Writers wait meanwhile.
_EMPTY_TIMEOUT_S = 1.0
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
        self._writer, self._tags = _open(path, key_path or default_key_path(path), write_timeout_s)
        try:
            self._reader = _connect(path, _READ_TIMEOUT_S)
            self._page = _Page.of(self._reader)
            (self._told,) = self._reader.execute(_TOLD).fetchone()
            self._reader.execute(f"PRAGMA busy_timeout = {_LOOP_TIMEOUT_S * 1000:.0f}")
        except sqlite3.Error:
            self._writer.close()
            raise
        self._thread = ThreadPoolExecutor(1, "feature-store-writer")
        self._transaction = asyncio.Lock()
        self._group: _Group | None = None
        # Whether the log still holds what was deleted: it may, where another process was killed in time.
        self._log_to_empty = not _empty_log(self._writer, write_timeout_s)

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
            row = self._reader.execute(_READ, (_number(self._tags.of(user_id)),)).fetchone()
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
        first = len(group.writes)
        group.writes.extend(writes)
        # Shielded: a caller that gives up must not cancel the others' transaction.
        outcomes = await asyncio.shield(group.committed)
        return outcomes[first : first + len(writes)]

    async def _commit_group(self, group: _Group) -> list[Written | StoreUnavailable]:
        async with self._transaction:
            # What arrives from here on goes into the next one.
            self._group = None
            return await self._on_thread(lambda: self._commit(group.writes))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _commit(self, writes: list[UserWrite]) -> list[Written | StoreUnavailable]:
        with self._writing("recorded"):
            outcomes = [self._add(write) for write in writes]
        self._empty_log()
        return outcomes

    @contextmanager
    def _writing(self, done: str) -> Iterator[None]:
        try:
            with _transaction(self._writer):
                yield
        except sqlite3.Error as error:
            raise StoreUnavailable(
                f"{self._path}: cannot be written ({error}), nothing was {done}; see that the disk has room and no "
                "other process holds the file, then send the call again"
            ) from error

    def _add(self, write: UserWrite) -> Written | StoreUnavailable:
        tag = self._tags.of(write.user_id)
        number = _number(tag)
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
            self._writer.execute(_WRITE, (number, after))
        return Written(changed, deleted_at_ms)

    def _attribute(self, number: int, write: UserWrite) -> None:
        row = self._writer.execute(_READ_ATTRIBUTIONS, (number,)).fetchone()
        packed = attribute(bytes(self._page.content(row[0])) if row else b"", write)
        self._writer.execute(_ATTRIBUTE, (number, self._page.fill(packed)))

    async def delete(self, user_id: str, at_ms: int) -> bool:
        """Deletes everything about a person but a tombstone that refuses events dated at or before `at_ms`."""
        return await asyncio.shield(self._delete_next(user_id, at_ms))

    async def _delete_next(self, user_id: str, at_ms: int) -> bool:
        async with self._transaction:
            return await self._on_thread(lambda: self._delete(self._tags.of(user_id), at_ms))

    def _delete(self, tag: bytes, at_ms: int) -> bool:
        with self._writing("deleted"):
            existed = self._writer.execute("DELETE FROM people WHERE id = ?", (_number(tag),)).rowcount > 0
            self._writer.execute("DELETE FROM requests WHERE id = ?", (_number(tag),))
            self._writer.execute(_BURY, (tag, at_ms))
        self._log_to_empty = True
        self._empty_log()
        return existed

    def _empty_log(self) -> None:
        """Empties the log where it may hold what was deleted; says so where it cannot yet."""
        if self._log_to_empty:
            self._log_to_empty = not _empty_log(self._writer, self._write_timeout_s)
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
            with closing(_connect(self._path, _READ_TIMEOUT_S)) as connection:
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


class _Group:
    """Is the writes that go into one transaction: all that arrive until the one before has ended."""

    def __init__(self) -> None:
        self.writes: list[UserWrite] = []
        self.committed: asyncio.Future[list[Written | StoreUnavailable]]


class _Page(NamedTuple):
    """Fills blobs so that all of their content lies in overflow pages.

    Of a row too large for a leaf, SQLite keeps `least` bytes in the tree, or up to a page more so that the last
    overflow page has no rest (https://sqlite.org/fileformat2.html#b_tree_pages). Without a rest it keeps `least`.
    """

    least: int
    overflow: int
    # A multiple of 8, so that what follows is aligned.
    start: int

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> _Page:
        """Reads a file's page size."""
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        least = (size - 12) * 32 // 255 - 23
        return cls(least, size - 4, -(-least // 8) * 8)

    def fill(self, content: bytes) -> bytes:
        """Makes the blob that holds a content: zeros, the content, zeros, the content's length in four bytes."""
        needed = self.start + len(content) + 4
        pages = max(1, -(-(needed + _MAX_HEADER - self.least) // self.overflow))
        row = self.least + pages * self.overflow
        rest = row - _header(row) - needed
        return b"".join((bytes(self.start), content, bytes(rest), len(content).to_bytes(4, "little")))

    def content(self, blob: bytes) -> memoryview:
        """Finds the content of a blob that `fill` made."""
        end = self.start + int.from_bytes(blob[-4:], "little")
        if end + 4 > len(blob):
            raise damaged(f"a row of {len(blob)} bytes that cannot be read")
        return memoryview(blob)[self.start : end]


# A row's header: its own length, the key's type, and the blob's type, a number of 7 bits a byte made of its length.
_MAX_HEADER = 7


def _header(row: int) -> int:
    for size in range(3, _MAX_HEADER + 1):
        if (2 * (row - size) + 12) >> (7 * (size - 2)) == 0:
            return size
    raise StoreUnavailable(f"a person's row would have {row:,} bytes, which is too long")


def default_key_path(path: Path) -> Path:
    """Names the key file of a store, where nobody named another one."""
    return path.with_name(path.name + ".key")


def back_up(path: Path, target: Path) -> None:
    """Writes a compact copy of a store, which may be in use, to a new file; the key file is not part of it.

    Raises StoreUnavailable where it cannot.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        raise StoreUnavailable(
            f"{path} cannot be copied to {target} ({error}); name a store, and a new file in a folder with room"
        ) from error


def _number(tag: bytes) -> int:
    return int.from_bytes(tag[:8], "big", signed=True)


def _read_cursor(cursor: str) -> int:
    if not cursor:
        return _LEAST_ID
    number = cursor.removeprefix(_CURSOR)
    if number == cursor or not number.removeprefix("-").isdecimal() or not _LEAST_ID <= int(number) <= _MOST_ID:
        raise ValueError(f"{cursor!r} is no cursor that a SQLite store gave")
    return int(number)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    # IMMEDIATE takes the write lock before the first read: what is read here is still true when it is written.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _empty_log(connection: sqlite3.Connection, timeout_s: float) -> bool:
    """Moves the log into the file and empties it; says whether it is empty."""
    connection.execute(f"PRAGMA busy_timeout = {min(timeout_s, _EMPTY_TIMEOUT_S) * 1000:.0f}")
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {timeout_s * 1000:.0f}")
    return not busy


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)


def _open(path: Path, key_path: Path, timeout_s: float) -> tuple[sqlite3.Connection, Tags]:
    """Opens the file for writing, and makes it where there is none; raises ConfigError with the cure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = _connect(path, timeout_s)
    except (OSError, sqlite3.Error) as error:
        raise _cannot_open(path, error) from error
    try:
        return connection, _prepare(connection, path, key_path)
    except sqlite3.Error as error:
        connection.close()
        raise _cannot_open(path, error) from error
    except ConfigError:
        connection.close()
        raise


def _cannot_open(path: Path, error: OSError | sqlite3.Error) -> ConfigError:
    return ConfigError(
        f"MARQUEE_STORE: {path} cannot be opened as a feature store ({error}); name a file in a folder that this "
        "process may write, either new or made by Marquee"
    )


def _prepare(connection: sqlite3.Connection, path: Path, key_path: Path) -> Tags:
    connection.execute("PRAGMA secure_delete = ON")
    with _transaction(connection):
        if _is_new(connection):
            _make_tables(connection)
        version = _check_schema(connection, path)
    if version == 1:
        # What version 1 freed was not overwritten.
        connection.execute("VACUUM")
    with _transaction(connection):
        tags = (
            _migrate(connection, path, key_path)
            if _version(connection) == 1
            else _check_key(connection, path, key_path)
        )
    connection.execute("PRAGMA journal_mode = WAL")
    # An acknowledged event survives a power cut; writes that share a transaction share its fsync.
    connection.execute("PRAGMA synchronous = FULL")
    return tags


def _is_new(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _check_schema(connection: sqlite3.Connection, path: Path) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _version(connection)
    if application != APPLICATION_ID:
        raise ConfigError(f"MARQUEE_STORE: {path} is a SQLite file, but not a feature store; name another file")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"MARQUEE_STORE: {path} has schema version {version}, newer than this code's {SCHEMA_VERSION}; run the "
            "Marquee that wrote it, or name another file"
        )
    return version


def _check_key(connection: sqlite3.Connection, path: Path, key_path: Path) -> Tags:
    """Reads the store's key, and makes it where the store is new; raises ConfigError where it is another store's."""
    row = connection.execute("SELECT tag FROM key_check").fetchone()
    tags = read_tags(key_path) if row else make_tags(key_path)
    if row is None:
        connection.execute("INSERT INTO key_check VALUES (?)", (tags.check(),))
    elif row[0] != tags.check():
        raise ConfigError(
            f"MARQUEE_STORE_KEY: {key_path} is not the key that {path} was made with; name that one, or restore "
            "it from the backup"
        )
    return tags


def _migrate(connection: sqlite3.Connection, path: Path, key_path: Path) -> Tags:
    """Rewrites the tables of version 1, which had people by their ids."""
    _log.info("%s has schema version 1; it is rewritten as version %d", path, SCHEMA_VERSION)
    _make_tables(connection)
    tags, page = _check_key(connection, path, key_path), _Page.of(connection)
    for user_id, blob in connection.execute("SELECT user_id, events FROM histories"):
        person = page.fill(pack_person(user_id, unpack(blob)))
        connection.execute(_WRITE, (_number(tags.of(user_id)), person))
    old = connection.execute("SELECT user_id, movie_id, kind, time_ms, request_id FROM attributions ORDER BY user_id")
    for user_id, rows in itertools.groupby(old, lambda row: row[0]):
        packed = attribute(b"", _write_of(user_id, rows))
        connection.execute(_ATTRIBUTE, (_number(tags.of(user_id)), page.fill(packed)))
    connection.execute("DROP TABLE histories")
    connection.execute("DROP TABLE attributions")
    return tags


def _write_of(user_id: str, rows: Iterator[tuple[str, int, int, int, str]]) -> UserWrite:
    _, movie_ids, kinds, times_ms, request_ids = zip(*rows, strict=True)
    values = np.zeros(len(movie_ids), np.float32)
    return UserWrite(user_id, Events(np.array(movie_ids), np.array(kinds), values, np.array(times_ms)), request_ids)
