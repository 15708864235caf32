"""import-events: what becomes of each row, and the command as a person runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from marquee.errors import DataError, StoreUnavailable
from marquee.features import MAX_EVENTS, RATED, RETRACTED, Events
from services.user_encoder import __main__ as program
from services.user_encoder import commands, event_import, rating_files
from services.user_encoder.event_import import Imported, Resume, import_events
from services.user_encoder.rating_files import BadRows
from services.user_encoder.stores.base import FeatureStore, UserWrite, pack
from services.user_encoder.stores.redis_store import RedisStore
from services.user_encoder.stores.redis_url import parse_redis_url
from services.user_encoder.stores.sqlite import SqliteStore
from services.user_encoder.stores.tags import KEY_BYTES, Tags
from tests.encoder_rigs import Row, events
from tests.redis_rigs import RedisServer
from tests.rigs import ROOT

HEADER = "userId,movieId,rating,timestamp\n"
NOW_MS = 1_700_000_000_000
NOW_S = NOW_MS // 1000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with aclosing(SqliteStore(tmp_path / "features.sqlite")) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "redis"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FeatureStore]:
    """Is a store of each kind."""
    opened: FeatureStore
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_one")
        server.flush()
        opened = RedisStore(parse_redis_url(server.url), Tags(bytes(KEY_BYTES)))
    else:
        opened = SqliteStore(tmp_path / "features.sqlite")
    async with aclosing(opened):
        yield opened


def silent(part: float, rows: int) -> None:
    pass


async def run(folder: Path, store: FeatureStore, text: str | bytes) -> Imported:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "ratings.csv").write_bytes(data)
    return await import_events(folder, store, NOW_MS, silent)


async def read(store: FeatureStore, *user_ids: str) -> list[Events]:
    return [await store.read(user_id) for user_id in user_ids]


async def test_each_row_becomes_a_rating(tmp_path: Path, either: FeatureStore) -> None:
    done = await run(tmp_path, either, HEADER + "1,7001,2.5,100\n2,7003,4,200\n1,7002,3.0,300\n")
    assert done[:5] == (3, 3, 2, 2, ())
    one, two = await read(either, "1", "2")
    expected = events(Row(7001, RATED, 2.5, 100_000), Row(7002, RATED, 3, 300_000))
    assert pack(one) == pack(expected)
    assert two.movie_ids.tolist() == [7003]


async def test_a_second_run_changes_nothing(tmp_path: Path, either: FeatureStore) -> None:
    text = HEADER + "".join(f"{number % 7},{number},3.5,{number}\n" for number in range(1, 200))
    first, second = await run(tmp_path, either, text), await run(tmp_path, either, text)
    assert (first.events, first.users, first.changed) == (199, 7, 7)
    assert (second.events, second.users, second.changed) == (199, 7, 0)


async def test_live_events_stay_and_what_was_retracted_stays_so(tmp_path: Path, either: FeatureStore) -> None:
    live = events(Row(1, RATED, 5, 2_000_000), Row(2, RETRACTED, 0, 3_000_000))
    await either.write([UserWrite("1", live)])
    await run(tmp_path, either, HEADER + "1,1,2,1000\n1,2,2,1000\n1,3,2,1000\n")
    kept = events(Row(3, RATED, 2, 1_000_000), Row(1, RATED, 5, 2_000_000), Row(2, RETRACTED, 0, 3_000_000))
    assert pack(await either.read("1")) == pack(kept)


BAD = {
    "9,1,4\n": "number of columns",
    ",1,4,5\n": "userId",
    "a\x01b,1,4,5\n": "userId",
    f"{'a' * 257},1,4,5\n": "userId",
    "9,0,4,5\n": "movieId",
    "9,-1,4,5\n": "movieId",
    "9,1_0,4,5\n": "movieId",
    "9,x,4,5\n": "movieId",
    "9,,4,5\n": "movieId",
    f"9,{2**63},4,5\n": "movieId",
    f"9,{'9' * 5000},4,5\n": "movieId",
    "9,1,5.5,5\n": "rating",
    "9,1,0,5\n": "rating",
    "9,1,nan,5\n": "rating",
    "9,1,good,5\n": "rating",
    "9,1,4,0\n": "timestamp",
    "9,1,4,-5\n": "timestamp",
    "9,1,4,1.5\n": "timestamp",
    f"9,1,4,{NOW_S + 301}\n": "timestamp",
    f"9,1,4,{NOW_MS}\n": "timestamp",
}


@pytest.mark.parametrize(("row", "column"), BAD.items())
async def test_a_bad_row_is_counted_and_skipped(tmp_path: Path, store: SqliteStore, row: str, column: str) -> None:
    done = await run(tmp_path, store, f"{HEADER}1,1,4,5\n{row}{row}1,2,4,5\n")
    assert done[:5] == (4, 2, 1, 1, (BadRows(column, 2, 3),))
    assert (await store.read("1")).size == 2
    assert (await store.read("9")).size == 0


async def test_bytes_that_are_no_text_make_their_row_bad(tmp_path: Path, store: SqliteStore) -> None:
    done = await run(tmp_path, store, HEADER.encode() + b"\xff\xfe,1,4,5\n1,1,4,5\n")
    assert (done.events, done.bad) == (1, (BadRows("userId", 1, 2),))


async def test_other_shapes_of_the_same_file_are_read(tmp_path: Path, store: SqliteStore) -> None:
    text = '\ufefftimestamp,note,rating,"movieId",userId\r\n5,"two\r\nlines",4,1,日本\r\n\r\n7,,4.5,2,日本\r\nx,,1,1,1'
    done = await run(tmp_path, store, text)
    assert done[:5] == (3, 2, 1, 1, (BadRows("timestamp", 1, 6),))
    assert (await store.read("日本")).times_ms.tolist() == [5000, 7000]


async def test_the_newest_events_of_a_busy_person_stay(tmp_path: Path, store: SqliteStore) -> None:
    rows = range(1, MAX_EVENTS + 6)
    await run(tmp_path, store, HEADER + "".join(f"1,{row},4,{row}\n" for row in rows))
    kept = await store.read("1")
    assert kept.movie_ids.tolist() == list(rows)[5:]


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rating_files, "WINDOW", 2_000)
    monkeypatch.setattr(rating_files, "_SLICE", 500)
    monkeypatch.setattr(event_import, "WINDOW", 2_000)
    monkeypatch.setattr(event_import, "_MOST_EVENTS", 300)


# People who come back in every part of the file.
ROWS = 7_000
LONG = HEADER + "".join(f"{row % 100},{row},4,{1 + row}\n" for row in range(1, ROWS + 1))


async def check_long(store: FeatureStore) -> None:
    for user, kept in enumerate(await read(store, *map(str, range(100)))):
        assert kept.movie_ids.tolist() == list(range(user or 100, ROWS + 1, 100))


@pytest.mark.usefixtures("small_steps")
async def test_windows_and_transactions_do_not_show(tmp_path: Path, either: FeatureStore) -> None:
    (tmp_path / "ratings.csv").write_text(LONG)
    seen: list[tuple[float, int]] = []
    done = await import_events(tmp_path, either, NOW_MS, lambda part, rows: seen.append((part, rows)))
    assert (done.rows, done.events, done.users, done.changed, done.before) == (ROWS, ROWS, 100, 100, 0)
    assert seen == sorted(seen)
    assert (seen[0][1], seen[-1]) == (500, (1.0, ROWS))
    await check_long(either)


class Ended(Exception):
    pass


def end_at(part: float) -> Callable[[float, int], None]:
    def progress(done: float, rows: int) -> None:
        if done >= part:
            raise Ended

    return progress


async def import_until(part: float, folder: Path, store: FeatureStore, resume: Resume) -> None:
    (folder / "ratings.csv").write_text(LONG)
    with pytest.raises(Ended):
        await import_events(folder, store, NOW_MS, end_at(part), resume)


def resume(folder: Path, store: str = "a store") -> Resume:
    return Resume(folder / "kept" / "import.json", store, every_s=0)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("part", [0.01, 0.2, 0.5, 0.75, 0.99, 1.0])
async def test_the_next_run_goes_on_where_one_was_ended(tmp_path: Path, either: FeatureStore, part: float) -> None:
    await import_until(part, tmp_path, either, resume(tmp_path))
    done = await import_events(tmp_path, either, NOW_MS, silent, resume(tmp_path))
    # Whole windows are not read again; the last transaction is written again.
    assert done.before + done.rows == ROWS + (done.before > 0)
    assert done.before == max(0, int(part * ROWS - 1) // 2_000 * 2_000) + (done.before > 0)
    assert done.events <= ROWS - done.before + (done.before > 0)
    await check_long(either)
    assert list((tmp_path / "kept").glob("*")) == []


@pytest.mark.usefixtures("small_steps")
async def test_a_store_that_has_lost_events_gets_all_of_them_again(tmp_path: Path, store: SqliteStore) -> None:
    await import_until(0.75, tmp_path, store, resume(tmp_path))
    async with aclosing(SqliteStore(tmp_path / "restored.sqlite")) as restored:
        done = await import_events(tmp_path, restored, NOW_MS, silent, resume(tmp_path))
        assert (done.rows, done.events, done.changed, done.before) == (ROWS, ROWS, 100, 0)
        await check_long(restored)


@pytest.mark.usefixtures("small_steps")
async def test_another_file_or_store_begins_at_its_beginning(tmp_path: Path, store: SqliteStore) -> None:
    await import_until(0.75, tmp_path, store, resume(tmp_path))
    other = await import_events(tmp_path, store, NOW_MS, silent, resume(tmp_path, "another store"))
    assert (other.rows, other.before) == (ROWS, 0)
    await import_until(0.75, tmp_path, store, resume(tmp_path))
    (tmp_path / "ratings.csv").write_text(LONG + "7,1,4,5\n")
    changed = await import_events(tmp_path, store, NOW_MS, silent, resume(tmp_path))
    assert (changed.rows, changed.before) == (ROWS + 1, 0)


async def test_an_event_that_the_store_refuses_ends_the_import(tmp_path: Path, store: SqliteStore) -> None:
    await run(tmp_path, store, HEADER + "1,1,4,5\n")
    with closing(sqlite3.connect(tmp_path / "features.sqlite", isolation_level=None)) as sql:
        sql.execute("UPDATE people SET history = x'0102'")
    with pytest.raises(StoreUnavailable, match="damaged"):
        await run(tmp_path, store, HEADER + "1,1,4,5\n2,1,4,5\n")


async def test_who_was_deleted_is_not_imported_again(tmp_path: Path, either: FeatureStore) -> None:
    await either.delete("1", NOW_MS)
    done = await run(tmp_path, either, HEADER + f"1,1,4,5\n2,1,4,5\n1,2,4,{NOW_S + 1}\n")
    assert (done.events, done.changed, done.refused) == (3, 2, 1)
    assert [one.movie_ids.tolist() for one in await read(either, "1", "2")] == [[2], [1]]


async def test_movielens_1m_is_read_in_the_same_way(tmp_path: Path, store: SqliteStore) -> None:
    rows = "1::7001::5::100\n2::7003::4::200\r\n\n1::7002::9::300\n\xe9::7002::3::x\n1::7002\n1::7002::3::300"
    (tmp_path / "ratings.dat").write_bytes(rows.encode("latin-1"))
    done = await import_events(tmp_path, store, NOW_MS, silent)
    bad = (BadRows("rating", 1, 4), BadRows("timestamp", 1, 5), BadRows("number of columns", 1, 6))
    assert done[:5] == (6, 3, 2, 2, bad)
    assert pack(await store.read("1")) == pack(events(Row(7001, RATED, 5, 100_000), Row(7002, RATED, 3, 300_000)))


async def test_of_two_files_the_csv_is_read(tmp_path: Path, store: SqliteStore) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::4::5\n2::1::4::5\n")
    assert (await run(tmp_path, store, HEADER + "1,1,4,5\n")).users == 1


async def test_a_file_without_the_columns_is_refused(tmp_path: Path, store: SqliteStore) -> None:
    with pytest.raises(DataError, match="its first line names no column rating, timestamp; it must be a MovieLens"):
        await run(tmp_path, store, "userId,movieId\n1,2\n")
    with pytest.raises(DataError, match="names no column userId, movieId, rating, timestamp"):
        await run(tmp_path, store, "")


async def test_a_file_of_bad_rows_only_is_refused(tmp_path: Path, store: SqliteStore) -> None:
    with pytest.raises(DataError, match=r"none of its 2 rows is an event \(2 with a bad timestamp, first in line 2\)"):
        await run(tmp_path, store, HEADER + "1,1,4,x\n1,1,4,y\n")


async def test_a_field_without_an_end_is_told_with_its_line(tmp_path: Path, store: SqliteStore) -> None:
    with pytest.raises(DataError, match="line 2 is not CSV"):
        await run(tmp_path, store, HEADER + '1,1,4,"' + "x" * 200_000)


async def test_a_file_of_no_rows_is_nothing(tmp_path: Path, store: SqliteStore) -> None:
    assert (await run(tmp_path, store, HEADER))[:5] == (0, 0, 0, 0, ())


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "services.user_encoder", "import-events", *arguments],
        cwd=ROOT,
        env=plain | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def test_the_command_fills_a_store_and_says_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(HEADER + "1,1,4,5\n1,2,9,5\n2,1,4,5\n")
    store = tmp_path / "new" / "features.sqlite"
    by_flag = command("--data", str(tmp_path), "--store", str(store))
    assert (by_flag.returncode, by_flag.stderr) == (0, "")
    assert "2 events of 2 people from 3 rows" in by_flag.stdout
    assert by_flag.stdout.endswith("2 histories written; skipped 1 with a bad rating, first in line 3\n")
    by_variable = command("--data", str(tmp_path), MARQUEE_STORE=str(store))
    assert "nothing was new" in by_variable.stdout
    async with aclosing(SqliteStore(store)) as opened:
        await opened.delete("1", 5_000)
    assert (
        "; left out 1 of people who were deleted after them"
        in command("--data", str(tmp_path), "--store", str(store)).stdout
    )


SLOWLY = """
import sys, time
from services.user_encoder import commands, event_import, rating_files
from services.user_encoder.__main__ import main
rating_files.WINDOW = event_import.WINDOW = 2_000
event_import._MOST_EVENTS = 300
plain = commands.Resume.__init__
commands.Resume.__init__ = lambda self, path, store: plain(self, path, store, every_s=0)
commands.Bar.show = lambda self, part, rows: time.sleep(0.005)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("small_steps")
def test_kill_9_costs_nothing_that_was_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ratings.csv").write_text(LONG)
    kept = tmp_path / "import.json"
    flags = ["--data", str(tmp_path), "--store", str(tmp_path / "features.sqlite"), "--progress", str(kept)]
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, "import-events", *flags], cwd=ROOT)
    # Its second window begins after the header and 2,000 rows.
    while not kept.exists() or json.loads(kept.read_bytes())["line"] < 2_001:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert program.main(["import-events", *flags]) == 0
    told = capsys.readouterr().out
    assert "went on after line " in told
    assert f"{ROWS:,} rows" not in told
    asyncio.run(check_file(tmp_path / "features.sqlite"))
    assert not kept.exists()


async def check_file(path: Path) -> None:
    async with aclosing(SqliteStore(path)) as store:
        await check_long(store)


def test_the_command_fills_a_redis(tmp_path: Path, redis_one: RedisServer) -> None:
    redis_one.flush()
    (tmp_path / "ratings.csv").write_text(HEADER + "1,1,4,5\n2,1,4,5\n")
    (tmp_path / "store.key").write_bytes(bytes(KEY_BYTES))
    url = redis_one.url.replace("//", "//nobody:se%20cret@")
    no_key = command("--data", str(tmp_path), "--store", url)
    assert (no_key.returncode, "--store-key is missing" in no_key.stderr) == (2, True)
    done = command("--data", str(tmp_path), MARQUEE_STORE=redis_one.url, MARQUEE_STORE_KEY=str(tmp_path / "store.key"))
    assert done.stdout.startswith(f"{redis_one.url}: 2 events of 2 people from 2 rows")
    refused = command("--data", str(tmp_path), "--store", url, "--store-key", str(tmp_path / "store.key"))
    assert (refused.returncode, "refuses the user or the password" in refused.stderr) == (1, True)
    assert "cret" not in no_key.stderr + refused.stderr


def test_ctrl_c_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "import_events", interrupted)
    assert program.main(["import-events", "--data", str(tmp_path), "--store", str(tmp_path / "store")]) == 130
    assert capsys.readouterr().err.endswith("import-events: interrupted; run it again to import the rest\n")


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    missing = command("--data", str(tmp_path), "--store", str(tmp_path / "features.sqlite"))
    assert missing.returncode == 1
    assert missing.stderr == (
        f"python -m services.user_encoder import-events: {tmp_path / 'ratings.csv'}: cannot be read (No such file or "
        "directory); name a folder that holds ratings.csv or ratings.dat with --data\n"
    )
    no_store = command("--data", str(tmp_path), "--store", str(tmp_path))
    assert no_store.returncode == 2
    assert "cannot be opened as a feature store" in no_store.stderr
    assert command().returncode == 2
