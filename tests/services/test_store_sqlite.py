"""What only the SQLite store does: its file, its processes, its side table."""

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
from services.user_encoder.stores.sqlite import SCHEMA_VERSION, SqliteStore

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
    expected = [number * 100 + at for number in range(3) for at in range(1, 21)]
    assert kept.movie_ids.tolist() == expected


async def test_an_unreadable_file_is_told_while_serving(path: Path, sql: sqlite3.Connection) -> None:
    async with aclosing(SqliteStore(path)) as store:
        sql.execute("DROP TABLE people")
        with pytest.raises(StoreUnavailable, match=r"cannot be read .*no such table"):
            await store.read("ada")
        with pytest.raises(StoreUnavailable, match=r"cannot be written .*no such table"):
            await store.write([UserWrite("ada", NO_EVENTS._replace(kinds=np.array([RATED])))])
