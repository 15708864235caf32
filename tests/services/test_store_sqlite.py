"""What only the SQLite store does: its file, its processes, its side table."""

import asyncio
import hmac
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path

import numpy as np
import pytest

from marquee.errors import ConfigError, StoreUnavailable
from marquee.features import LIKED, NO_EVENTS, RATED, Events
from services.user_encoder.stores.base import UserWrite, Written, pack
from services.user_encoder.stores.sqlite import SqliteStore
from services.user_encoder.stores.sqlite_file import SCHEMA_VERSION, back_up, default_key_path
from tests.rigs import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "features.sqlite"


@pytest.fixture
def sql(path: Path) -> Iterator[sqlite3.Connection]:
    """Is another process's connection to the file."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


def liked(*movies: int) -> Events:
    ids = np.array(movies, np.int64)
    return Events(ids, np.full(len(ids), LIKED), np.zeros(len(ids), np.float32), ids * 1000)


async def test_the_file_and_its_folder_are_made(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path)):
        assert sql.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_closing_leaves_one_file(path: Path) -> None:
    async with aclosing(SqliteStore(path)) as store:
        await store.write([UserWrite("ada", liked(1))])
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.key"]


async def test_one_row_holds_all_of_a_person(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path)) as store:
        await store.write([UserWrite("ada", liked(1, 2)), UserWrite("ada", liked(3)), UserWrite("bob", liked(1))])
        number = int.from_bytes(store.digest("ada")[:8], "big", signed=True)
        rows = sql.execute("SELECT id = ?, history FROM people ORDER BY 1", (number,)).fetchall()
    assert [(is_ada, pack(liked(1, 2, 3)) in blob) for is_ada, blob in rows] == [(0, False), (1, True)]


async def test_request_ids_are_kept_beside_the_events(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path)) as store:
        await store.write([UserWrite("ada", liked(1, 2, 3), ("first", "", "third"))])
        await store.write([UserWrite("ada", liked(3), ("again",)), UserWrite("bob", liked(3))])
        [(blob,)] = sql.execute("SELECT request_ids FROM requests").fetchall()
    assert b'[[1000,1,2,"first"],[3000,3,2,"again"]]' in blob


async def test_a_failed_write_records_nothing_and_the_next_one_works(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path, write_timeout_s=0.05)) as store:
        await store.write([UserWrite("ada", liked(1))])
        sql.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="nothing was recorded; see that the disk has room"):
            await store.write([UserWrite("ada", liked(2)), UserWrite("bob", liked(2))])
        sql.execute("ROLLBACK")
        assert [(await store.read(name)).size for name in ("ada", "bob")] == [1, 0]
        assert await store.write([UserWrite("ada", liked(2))]) == [Written(True)]


async def test_a_write_that_fails_half_way_records_nothing(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path)) as store:
        sql.execute("CREATE TRIGGER full BEFORE INSERT ON people WHEN (SELECT count(*) FROM people) = 1 "
                    "BEGIN SELECT RAISE(FAIL, 'disk full'); END")  # fmt: skip
        with pytest.raises(StoreUnavailable, match="disk full"):
            await store.write([UserWrite("ada", liked(1), ("a-request",)), UserWrite("bob", liked(1))])
        assert (await store.read("ada")).size == 0
        assert sql.execute("SELECT count(*) FROM requests").fetchone() == (0,)


async def test_a_reader_waits_for_no_writer(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path)) as store:
        await store.write([UserWrite("ada", liked(1))])
        sql.execute("BEGIN IMMEDIATE")
        sql.execute("DELETE FROM people")
        assert (await store.read("ada")).size == 1
        sql.execute("COMMIT")
        assert (await store.read("ada")).size == 0


@pytest.mark.parametrize(
    "damage",
    [
        "x'00'",
        "zeroblob(5000)",
        "substr(history, 2)",
        "(SELECT history FROM people AS other WHERE other.id <> people.id)",
    ],
    ids=["short", "zeros", "shifted", "another's"],
)
async def test_a_damaged_row_is_told(path: Path, sql: sqlite3.Connection, damage: str) -> None:
    async with aclosing(SqliteStore(path)) as store:
        await store.write([UserWrite("ada", liked(1)), UserWrite("bob", liked(1))])
        number = int.from_bytes(store.digest("ada")[:8], "big", signed=True)
        sql.execute(f"UPDATE people SET history = {damage} WHERE id = ?", (number,))
        with pytest.raises(StoreUnavailable, match="the store is damaged"):
            await store.read("ada")
        read = await store.read_many(["ada", "bob"])
        assert [one.size if isinstance(one, Events) else "damaged" for one in read] == ["damaged", 1]
        written = await store.write([UserWrite("ada", liked(2)), UserWrite("bob", liked(2))])
        assert [one if isinstance(one, Written) else "damaged" for one in written] == ["damaged", Written(True)]


PLANTED_ID, PLANTED_MOVIE = "the-planted-person@example.org", 0x4D4F564945


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


def planted(folder: Path) -> list[bool]:
    """Says whether the planted person's id and movie are in any file."""
    kept = bytes_of(folder)
    return [
        PLANTED_ID.encode() in kept,
        PLANTED_MOVIE.to_bytes(8, "little") in kept,
        str(PLANTED_MOVIE).encode() in kept,
    ]


async def test_a_deletion_leaves_nothing_in_any_file(path: Path) -> None:
    async with aclosing(SqliteStore(path)) as store:
        await store.write([UserWrite("bob", liked(1))])
        for extra in range(1, 400, 50):
            # Each write is longer than the one before: it frees what it outgrows.
            write = UserWrite(PLANTED_ID, liked(PLANTED_MOVIE, *range(1, extra * 10)), ("led-by",) * extra * 10)
            await store.write([write, UserWrite(f"neighbour {extra}", liked(2))])
        assert planted(path.parent) == [True, True, True]
        assert await store.delete(PLANTED_ID, 2**62) is True
        # While it is open, the log is beside the file.
        assert planted(path.parent) == [False, False, False]
        assert path.with_name(f"{path.name}-wal").stat().st_size == 0
        assert (await store.read("bob")).size == 1
    assert planted(path.parent) == [False, False, False]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT tag, at_ms FROM tombstones").fetchall() == [(store.digest(PLANTED_ID), 2**62)]


async def test_nothing_about_a_person_lies_in_a_page_whose_rows_move(path: Path) -> None:
    # SQLite moves rows between the pages of a tree, and what it leaves behind there outlives the row.
    sizes = [*range(1, 60), *range(150, 260), *range(340, 420), 780, 1000, 9_999]
    async with aclosing(SqliteStore(path)) as store:
        await store.write(
            [
                UserWrite(f"<{size}>", liked(*range(PLANTED_MOVIE, PLANTED_MOVIE + size)), ("led-by",) * size)
                for size in sizes
            ]
        )
    file = path.read_bytes()
    pages = [file[at : at + 4096] for at in range(0, len(file), 4096)]
    tree = [page for page in pages if page[0] in (2, 5, 10, 13)]
    rest = [page for page in pages if page[0] == 0]
    assert len(tree) + len(rest) == len(pages) - 1
    for word in (PLANTED_MOVIE.to_bytes(8, "little"), b"led-by", b"<59>"):
        assert any(word in page for page in rest)
        assert not any(word in page for page in tree)


async def test_a_reader_that_holds_up_the_emptying_of_the_log_is_told(
    path: Path, sql: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with aclosing(SqliteStore(path, write_timeout_s=0.05)) as store:
        await store.write([UserWrite(PLANTED_ID, liked(PLANTED_MOVIE)), UserWrite("bob", liked(1))])
        sql.execute("BEGIN")
        sql.execute("SELECT count(*) FROM people").fetchone()
        assert await store.delete(PLANTED_ID, 100) is True
        assert "-wal still holds what was deleted, because another process reads the file" in caplog.text
        assert planted(path.parent)[0]
        assert (await store.read(PLANTED_ID)).size == 0
        sql.execute("COMMIT")
        await store.write([UserWrite("bob", liked(2))])
        assert planted(path.parent) == [False, False, False]


async def test_the_log_is_emptied_without_another_write(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path, write_timeout_s=0.05)) as store:
        await store.write([UserWrite(PLANTED_ID, liked(PLANTED_MOVIE))])
        sql.execute("BEGIN")
        sql.execute("SELECT count(*) FROM people").fetchone()
        await store.delete(PLANTED_ID, 100)
        sql.execute("COMMIT")
        watching = asyncio.ensure_future(store.watch_deletions(lambda _: None))
        await eventually(lambda: not any(planted(path.parent)))
        watching.cancel()


async def test_a_log_that_a_killed_process_left_is_emptied_at_the_start(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path, write_timeout_s=0.05)) as store:
        await store.write([UserWrite(PLANTED_ID, liked(PLANTED_MOVIE))])
        sql.execute("BEGIN")
        sql.execute("SELECT count(*) FROM people").fetchone()
        await store.delete(PLANTED_ID, 100)
        sql.execute("COMMIT")
        # What is closed afterwards is closed by another one.
        async with aclosing(SqliteStore(path)):
            assert planted(path.parent) == [False, False, False]


VERSION_1 = """
CREATE TABLE histories (user_id TEXT PRIMARY KEY NOT NULL, events BLOB NOT NULL);
CREATE TABLE attributions (
    user_id TEXT NOT NULL, movie_id INTEGER NOT NULL, kind INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    PRIMARY KEY (user_id, movie_id, kind, time_ms)
) WITHOUT ROWID;
PRAGMA application_id = 0x4D617271;
PRAGMA user_version = 1;
"""


def write_version_1(sql: sqlite3.Connection) -> None:
    """Writes what version 1 left: people of whom one was rewritten often, and what that freed."""
    sql.execute("PRAGMA journal_mode = WAL")
    sql.executescript(VERSION_1)
    for size in range(1, 600, 40):
        blob = pack(liked(PLANTED_MOVIE, *range(1, size)))
        sql.execute("INSERT OR REPLACE INTO histories VALUES (?, ?)", (PLANTED_ID, blob))
    sql.execute("INSERT INTO histories VALUES ('bob', ?)", (pack(liked(1, 2)),))
    rows = [
        (PLANTED_ID, PLANTED_MOVIE, LIKED, 7, "led-by"),
        ("bob", 1, LIKED, 1000, "r1"),
        ("bob", 2, LIKED, 2000, "r2"),
    ]
    sql.executemany("INSERT INTO attributions VALUES (?, ?, ?, ?, ?)", rows)


async def test_version_1_is_rewritten_in_place(path: Path, sql: sqlite3.Connection) -> None:
    write_version_1(sql)
    async with aclosing(SqliteStore(path)) as store:
        assert (await store.read("bob")).movie_ids.tolist() == [1, 2]
        assert (await store.read(PLANTED_ID)).size == 561
        assert sql.execute("PRAGMA user_version").fetchone() == (2,)
        tables = sql.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        assert [name for (name,) in tables if "sqlite" not in name] == ["key_check", "people", "requests", "tombstones"]
        blobs = [blob for (blob,) in sql.execute("SELECT request_ids FROM requests")]
        assert any(b'[[1000,1,2,"r1"],[2000,2,2,"r2"]]' in blob for blob in blobs)
        await store.delete(PLANTED_ID, 2**62)
        assert planted(path.parent) == [False, False, False]
    async with aclosing(SqliteStore(path)) as store:
        assert (await store.read("bob")).movie_ids.tolist() == [1, 2]


async def test_a_backup_is_taken_while_events_are_written(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup" / "features.sqlite"
    target.parent.mkdir()
    async with aclosing(SqliteStore(path)) as store:
        await store.write([UserWrite(f"person {number}", liked(1)) for number in range(200)])
        await store.delete("person 7", 2**62)
        copying = asyncio.ensure_future(asyncio.to_thread(back_up, path, target))
        for movie in range(2, 30):
            await store.write([UserWrite("person 0", liked(movie))])
        await copying
        with pytest.raises(StoreUnavailable, match="is there already: name another file with --out"):
            back_up(path, target)
    default_key_path(target).write_bytes(default_key_path(path).read_bytes())
    async with aclosing(SqliteStore(target)) as restored:
        assert len((await restored.scan("", 1000)).people) == 199
        assert await restored.write([UserWrite("person 7", liked(1))]) == [Written(False, 2**62)]


def mode_of(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


async def test_a_key_is_made_with_a_new_store_and_kept(path: Path) -> None:
    async with aclosing(SqliteStore(path)) as store:
        key = default_key_path(path)
        assert (len(key.read_bytes()), mode_of(key)) == (32, "0o600")
        digest = store.digest("ada")
        assert digest == hmac.digest(key.read_bytes(), b"ada", "sha256")[:16]
    async with aclosing(SqliteStore(path)) as store:
        assert store.digest("ada") == digest


async def test_the_key_may_lie_elsewhere(path: Path, tmp_path: Path) -> None:
    async with aclosing(SqliteStore(path, key_path=tmp_path / "keys" / "one.key")):
        assert [file.name for file in (tmp_path / "keys").iterdir()] == ["one.key"]
        assert not default_key_path(path).exists()


async def test_another_stores_key_is_refused(path: Path, tmp_path: Path) -> None:
    async with aclosing(SqliteStore(path)):
        pass
    default_key_path(path).write_bytes(bytes(32))
    with pytest.raises(ConfigError, match=r"MARQUEE_STORE_KEY: .* is not the key that .* was made with; name that one"):
        SqliteStore(path)


async def test_a_lost_key_is_told_and_not_replaced(path: Path) -> None:
    async with aclosing(SqliteStore(path)):
        pass
    default_key_path(path).unlink()
    with pytest.raises(ConfigError, match=r"MARQUEE_STORE_KEY: .* cannot be read .*No such file"):
        SqliteStore(path)
    assert not default_key_path(path).exists()


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(path: Path, length: int) -> None:
    path.parent.mkdir()
    default_key_path(path).write_bytes(bytes(length))
    with pytest.raises(ConfigError, match=rf"has {length} bytes, and a key has 32"):
        SqliteStore(path)


def test_a_newer_schema_is_refused_by_number(path: Path, sql: sqlite3.Connection) -> None:
    sql.execute("PRAGMA application_id = 0x4D617271")
    sql.execute("PRAGMA user_version = 99")
    sql.execute("CREATE TABLE histories (x)")
    with pytest.raises(
        ConfigError, match=r"schema version 99, newer than this code's 2; run the Marquee that wrote it"
    ):
        SqliteStore(path)


def test_another_programs_database_is_refused_and_left_alone(path: Path, sql: sqlite3.Connection) -> None:
    sql.execute("CREATE TABLE movies (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is a SQLite file, but not a feature store; name another file"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("userId,movieId,rating,timestamp\n" * 100)
    before = path.read_bytes()
    with pytest.raises(
        ConfigError, match=f"{re.escape(str(path))} cannot be opened as a feature store .*not a database"
    ):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"MARQUEE_STORE: .*File exists.*name a file in a folder that this process may"
    ):
        SqliteStore(tmp_path / "file" / "features.sqlite")


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MARQUEE_STORE: .*unable to open database file"):
        SqliteStore(tmp_path)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Gives up root for the moment: it may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    yield folder
    folder.chmod(0o755)


@pytest.mark.usefixtures("read_only", "unprivileged")
def test_a_folder_that_may_not_be_written_is_told(read_only: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be opened as a feature store .*this process may write"):
        SqliteStore(read_only / "features.sqlite")


WRITER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from services.user_encoder.stores.base import UserWrite, Written, pack
from services.user_encoder.stores.sqlite import SqliteStore
from marquee.features import Events

async def main(path, number):
    store = SqliteStore(path)
    for movie in range(number * 100 + 1, number * 100 + 21):
        ids = np.array([movie])
        await store.write([UserWrite("ada", Events(ids, ids * 0 + 2, np.zeros(1, np.float32), ids))])
    await store.aclose()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def test_processes_share_a_new_file_and_lose_nothing(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)], cwd=ROOT, stderr=subprocess.PIPE)
        for number in range(3)
    ]
    errors = [writer.communicate(timeout=60)[1].decode() for writer in writers]
    assert errors == ["", "", ""]
    async with aclosing(SqliteStore(path)) as store:
        kept = await store.read("ada")
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.key"]
    expected = [number * 100 + at for number in range(3) for at in range(1, 21)]
    assert kept.movie_ids.tolist() == expected


async def test_an_unreadable_file_is_told_while_serving(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path)) as store:
        sql.execute("DROP TABLE people")
        with pytest.raises(StoreUnavailable, match=r"cannot be read .*no such table"):
            await store.read("ada")
        with pytest.raises(StoreUnavailable, match=r"cannot be written .*no such table"):
            await store.write([UserWrite("ada", NO_EVENTS._replace(kinds=np.array([RATED])))])
