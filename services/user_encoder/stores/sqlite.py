"""The feature store in one local SQLite file, which several processes may use at once.

One row a person holds all their events as a packed blob, because an encoder reads all of them: a row per event costs
about 30 times more to read. Reads run on the event loop, since a point read costs less than a thread hop. Writes run
on one thread of their own, and those that arrive while a transaction runs share the next one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from marquee.errors import ConfigError, StoreUnavailable
from marquee.features import NO_EVENTS, Events
from services.user_encoder.stores.base import UserWrite, Written, add, pack, unpack

SCHEMA_VERSION = 1
# "Marq": tells a feature store from any other SQLite file.
APPLICATION_ID = 0x4D617271

_SCHEMA = """
CREATE TABLE histories (user_id TEXT PRIMARY KEY NOT NULL, events BLOB NOT NULL);
CREATE TABLE attributions (
    user_id TEXT NOT NULL, movie_id INTEGER NOT NULL, kind INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    PRIMARY KEY (user_id, movie_id, kind, time_ms)
) WITHOUT ROWID;
"""
_READ = "SELECT events FROM histories WHERE user_id = ?"
_WRITE = "INSERT INTO histories VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET events = excluded.events"
_ATTRIBUTE = "INSERT OR REPLACE INTO attributions VALUES (?, ?, ?, ?, ?)"

# A reader waits for a writer only while a crashed process's log is being recovered. It waits on the event loop.
_READ_TIMEOUT_S = 1.0


class SqliteStore:
    """Keeps histories in one SQLite file; made and read in one event loop's thread.

    A write waits `write_timeout_s` for other processes' transactions. Raises ConfigError where the file is no store.
    """

    def __init__(self, path: Path, *, write_timeout_s: float = 10.0) -> None:
        self._path = path
        self._writer = _open(path, write_timeout_s)
        try:
            self._reader = _connect(path, _READ_TIMEOUT_S)
        except sqlite3.Error:
            self._writer.close()
            raise
        self._thread = ThreadPoolExecutor(1, "feature-store-writer")
        self._transaction = asyncio.Lock()
        self._group: _Group | None = None

    async def read(self, user_id: str) -> Events:
        """Reads a person's history, with its retractions; empty where there is none."""
        return self._read(user_id)

    async def read_many(self, user_ids: Sequence[str]) -> list[Events]:
        """Reads several people's histories, in their order."""
        return [self._read(user_id) for user_id in user_ids]

    def _read(self, user_id: str) -> Events:
        try:
            row = self._reader.execute(_READ, (user_id,)).fetchone()
        except sqlite3.Error as error:
            raise StoreUnavailable(
                f"{self._path}: cannot be read ({error}); see that the file is whole and this process may read it"
            ) from error
        return unpack(row[0]) if row else NO_EVENTS

    async def write(self, writes: Sequence[UserWrite]) -> list[Written | StoreUnavailable]:
        """Adds events, all or none; says for each write what became of it."""
        group = self._group
        if group is None:
            group = self._group = _Group()
            group.committed = asyncio.ensure_future(self._commit_group(group))
        first = len(group.writes)
        group.writes.extend(writes)
        # Shielded: a caller that gives up must not cancel the others' transaction.
        changed = await asyncio.shield(group.committed)
        return [Written(one) for one in changed[first : first + len(writes)]]

    async def _commit_group(self, group: _Group) -> list[bool]:
        async with self._transaction:
            # What arrives from here on goes into the next one.
            self._group = None
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, group.writes)

    def _commit(self, writes: list[UserWrite]) -> list[bool]:
        try:
            with _transaction(self._writer):
                return [self._add(write) for write in writes]
        except sqlite3.Error as error:
            raise StoreUnavailable(
                f"{self._path}: cannot be written ({error}), nothing was recorded; see that the disk has room and no "
                "other process holds the file, then send the call again"
            ) from error

    def _add(self, write: UserWrite) -> bool:
        row = self._writer.execute(_READ, (write.user_id,)).fetchone()
        blob = pack(add(unpack(row[0]) if row else NO_EVENTS, write))
        if write.request_ids:
            self._writer.executemany(_ATTRIBUTE, _attributions(write))
        if row and row[0] == blob:
            return False
        self._writer.execute(_WRITE, (write.user_id, blob))
        return True

    async def aclose(self) -> None:
        """Finishes running writes and releases everything."""
        async with self._transaction:
            self._thread.shutdown()
            self._reader.close()
            self._writer.close()


class _Group:
    """Is the writes that go into one transaction: all that arrive until the one before has ended."""

    def __init__(self) -> None:
        self.writes: list[UserWrite] = []
        self.committed: asyncio.Future[list[bool]]


def _attributions(write: UserWrite) -> Iterator[tuple[str, int, int, int, str]]:
    columns = (write.events.movie_ids.tolist(), write.events.kinds.tolist(), write.events.times_ms.tolist())
    for movie_id, kind, time_ms, request_id in zip(*columns, write.request_ids, strict=True):
        if request_id:
            yield write.user_id, movie_id, kind, time_ms, request_id


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


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)


def _open(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Opens the file for writing, and makes it where there is none; raises ConfigError with the cure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = _connect(path, timeout_s)
    except (OSError, sqlite3.Error) as error:
        raise _cannot_open(path, error) from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise _cannot_open(path, error) from error
    except ConfigError:
        connection.close()
        raise
    return connection


def _cannot_open(path: Path, error: OSError | sqlite3.Error) -> ConfigError:
    return ConfigError(
        f"MARQUEE_STORE: {path} cannot be opened as a feature store ({error}); name a file in a folder that this "
        "process may write, either new or made by Marquee"
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    with _transaction(connection):
        if _is_new(connection):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        _check_schema(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    # An acknowledged event survives a power cut; writes that share a transaction share its fsync.
    connection.execute("PRAGMA synchronous = FULL")


def _is_new(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise ConfigError(f"MARQUEE_STORE: {path} is a SQLite file, but not a feature store; name another file")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"MARQUEE_STORE: {path} has schema version {version}, newer than this code's {SCHEMA_VERSION}; run the "
            "Marquee that wrote it, or name another file"
        )
