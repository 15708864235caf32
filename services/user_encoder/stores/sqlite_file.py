"""The file of a SQLite store: opened, made, checked, rewritten from an older version, and copied."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from marquee.errors import ConfigError, StoreUnavailable
from marquee.features import Events
from marquee.whole_files import write_whole
from services.user_encoder.stores.base import UserWrite, attribute, pack_person, unpack
from services.user_encoder.stores.sqlite_pages import Page
from services.user_encoder.stores.tags import Tags, make_tags, read_tags

_log = logging.getLogger(__name__)

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
WRITE = "INSERT INTO people VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET history = excluded.history"
ATTRIBUTE = "INSERT INTO requests VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET request_ids = excluded.request_ids"
# The log can be emptied when nobody reads an older state of the file. Writers wait meanwhile.
_EMPTY_TIMEOUT_S = 1.0


def default_key_path(path: Path) -> Path:
    """Names the key file of a store, where nobody named another one."""
    return path.with_name(path.name + ".key")


def back_up(path: Path, target: Path) -> None:
    """Writes a compact copy of a store, which may be in use, to a new file; the key file is not part of it.

    The file is whole or not there. Raises StoreUnavailable where it cannot be written.
    """
    if target.exists():
        raise StoreUnavailable(f"{target} is there already: name another file with --out, or move that one away")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            write_whole(target, lambda temporary: connection.execute("VACUUM INTO ?", (str(temporary),)))
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(
            f"{path} cannot be copied to {target} ({error}); name a store, and a new file in a folder with room"
        ) from error


def number_of(tag: bytes) -> int:
    """Makes the key of a person's rows."""
    return int.from_bytes(tag[:8], "big", signed=True)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits what is done inside, or undoes it."""
    # IMMEDIATE takes the write lock before the first read: what is read here is still true when it is written.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def empty_log(connection: sqlite3.Connection, timeout_s: float) -> bool:
    """Moves the log into the file and empties it; says whether it is empty."""
    connection.execute(f"PRAGMA busy_timeout = {min(timeout_s, _EMPTY_TIMEOUT_S) * 1000:.0f}")
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {timeout_s * 1000:.0f}")
    return not busy


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Connects to a file, without transactions of Python's own."""
    return sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)


def open_file(path: Path, key_path: Path, timeout_s: float) -> tuple[sqlite3.Connection, Tags]:
    """Opens the file for writing, and makes it where there is none; raises ConfigError with the cure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = connect(path, timeout_s)
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
    with transaction(connection):
        if _is_new(connection):
            _make_tables(connection)
        version = _check_schema(connection, path)
    if version == 1:
        # What version 1 freed was not overwritten.
        connection.execute("VACUUM")
    with transaction(connection):
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
    tags, page = _check_key(connection, path, key_path), Page.of(connection)
    for user_id, blob in connection.execute("SELECT user_id, events FROM histories"):
        person = page.fill(pack_person(user_id, unpack(blob)))
        connection.execute(WRITE, (number_of(tags.of(user_id)), person))
    old = connection.execute("SELECT user_id, movie_id, kind, time_ms, request_id FROM attributions ORDER BY user_id")
    for user_id, rows in itertools.groupby(old, lambda row: row[0]):
        packed = attribute(b"", _write_of(user_id, rows))
        connection.execute(ATTRIBUTE, (number_of(tags.of(user_id)), page.fill(packed)))
    connection.execute("DROP TABLE histories")
    connection.execute("DROP TABLE attributions")
    return tags


def _write_of(user_id: str, rows: Iterator[tuple[str, int, int, int, str]]) -> UserWrite:
    _, movie_ids, kinds, times_ms, request_ids = zip(*rows, strict=True)
    values = np.zeros(len(movie_ids), np.float32)
    return UserWrite(user_id, Events(np.array(movie_ids), np.array(kinds), values, np.array(times_ms)), request_ids)
