"""ExportEvents and export-events: what training reads of them, pages, shards, and runs that are ended."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from marquee.errors import DataError, InvalidRequest, Unavailable
from marquee.features import DISLIKED, LIKED, RATED, RETRACTED, WATCHED
from marquee.v1 import live_features_pb2, types_pb2
from services.user_encoder import __main__ as program
from services.user_encoder import event_export, export_folder
from services.user_encoder.export_folder import Source, export_events
from services.user_encoder.stores.base import FeatureStore, UserWrite
from services.user_encoder.stores.redis_store import RedisStore
from services.user_encoder.stores.redis_url import parse_redis_url
from services.user_encoder.stores.sqlite import SqliteStore
from services.user_encoder.stores.tags import KEY_BYTES, Tags
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, encoder, events, refused
from tests.redis_rigs import RedisServer, redis_server
from tests.rigs import ROOT, publish
from training.data.dataset import load_dataset

TAGS = Tags(bytes(KEY_BYTES))

# Per user id, movie id, kind's name, value and time.
Exported = tuple[str, int, str, float, int]

PEOPLE = {
    "ada": [Row(1, RATED, 4.5, 1_000), Row(2, LIKED, 0, 2_000), Row(3, WATCHED, 0, 3_000), Row(3, RETRACTED, 0, 4_000)],
    "日本": [Row(2**62, DISLIKED, 0, 5_000), Row(1, RATED, 0.5, 6_000)],
    "who took all back": [Row(1, LIKED, 0, 1_000), Row(1, RETRACTED, 0, 1_000)],
}
HELD: set[Exported] = {
    ("ada", 1, "RATED", 4.5, 1_000),
    ("ada", 2, "LIKED", 0.0, 2_000),
    ("日本", 2**62, "DISLIKED", 0.0, 5_000),
    ("日本", 1, "RATED", 0.5, 6_000),
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture
async def rig(registry: Path, tmp_path: Path) -> AsyncIterator[EncoderRig]:
    async with encoder(registry, tmp_path / "features.sqlite") as running:
        await running.store.write([UserWrite(user_id, events(*rows)) for user_id, rows in PEOPLE.items()])
        yield running


def rows_of(files: Iterable[Any]) -> list[Exported]:
    tables = [pyarrow.parquet.read_table(file) for file in files]
    return [tuple(row[name] for name in table.column_names) for table in tables for row in table.to_pylist()]


async def page(rig: EncoderRig, **fields: Any) -> live_features_pb2.ExportEventsResponse:
    return await rig.features.ExportEvents(live_features_pb2.ExportEventsRequest(**fields))


async def pages(rig: EncoderRig, **fields: Any) -> list[live_features_pb2.ExportEventsResponse]:
    found = [await page(rig, **fields)]
    while found[-1].next_page_token:
        found.append(await page(rig, page_token=found[-1].next_page_token, **fields))
    return found


async def test_a_page_has_everybody_without_what_was_retracted(rig: EncoderRig) -> None:
    answer = await page(rig)
    assert (answer.users, answer.events, answer.next_page_token) == (2, 4, "")
    table = pyarrow.parquet.read_table(io.BytesIO(answer.parquet))
    types = ["user_id: string", "movie_id: int64", "kind: string", "value: float", "time_ms: int64"]
    assert [f"{field.name}: {field.type}" for field in table.schema] == types
    rows = rows_of([io.BytesIO(answer.parquet)])
    assert set(rows) == HELD
    assert len(rows) == len(HELD)


@pytest.mark.parametrize("page_size", [1, 2, 3])
async def test_pages_are_everybody_cut_up(rig: EncoderRig, page_size: int) -> None:
    found = await pages(rig, page_size=page_size)
    assert len(found) == -(-len(PEOPLE) // page_size)
    assert max(answer.users for answer in found) <= page_size
    rows = rows_of(io.BytesIO(answer.parquet) for answer in found if answer.parquet)
    assert (set(rows), len(rows)) == (HELD, len(HELD))
    assert sum(answer.events for answer in found) == len(HELD)


async def test_a_page_ends_earlier_where_it_gets_large(rig: EncoderRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_export, "_PAGE_EVENTS", 2)
    monkeypatch.setattr(event_export, "_PAGE_STEP", 1)
    found = await pages(rig)
    assert [answer.users for answer in found if answer.users] == [1, 1]


async def test_since_leaves_out_what_was_before(rig: EncoderRig) -> None:
    answer = await page(rig, since_ms=2_000)
    assert set(rows_of([io.BytesIO(answer.parquet)])) == {row for row in HELD if row[4] >= 2_000}
    nothing = await page(rig, since_ms=7_000)
    assert (nothing.parquet, nothing.users, nothing.events) == (b"", 0, 0)


async def test_a_token_is_good_for_its_export_only(rig: EncoderRig) -> None:
    token = (await page(rig, page_size=1)).next_page_token
    for fields in (
        {"page_token": "x"},
        {"page_token": "AAAA"},
        {"page_token": token[:12]},
        {"page_token": token[:12] + base64.b64encode(b"no cursor").decode()},
        {"page_token": token, "since_ms": 1},
    ):
        error = await refused(page(rig, **fields))
        assert isinstance(error, InvalidRequest)
        assert error.field == "page_token"


@pytest.mark.parametrize(("field", "value"), [("page_size", -1), ("page_size", 1001), ("since_ms", -1)])
async def test_numbers_out_of_range_are_named(rig: EncoderRig, field: str, value: int) -> None:
    error = await refused(page(rig, **{field: value}))
    assert isinstance(error, InvalidRequest)
    assert error.field == field


async def test_without_pyarrow_the_rpc_says_so_and_recording_goes_on(
    rig: EncoderRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    error = await refused(page(rig))
    assert isinstance(error, Unavailable)
    assert "pyarrow is not installed here" in error.message
    assert (await rig.features.GetHistory(live_features_pb2.GetHistoryRequest(user_id="ada"))).total == 2


# 200 people with 5 events each.
MANY = {
    f"person-{number}": [Row(1 + number % 7 + place, LIKED, 0, 1 + place) for place in range(5)]
    for number in range(200)
}
MANY_HELD = {(user_id, row.movie, "LIKED", 0.0, row.time) for user_id, rows in MANY.items() for row in rows}


async def fill(store: FeatureStore) -> None:
    await store.write([UserWrite(user_id, events(*rows)) for user_id, rows in MANY.items()])


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FeatureStore]:
    opened: FeatureStore
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_one")
        server.flush()
        opened = RedisStore(parse_redis_url(server.url), TAGS)
    else:
        opened = SqliteStore(tmp_path / "features.sqlite")
    async with aclosing(opened):
        await fill(opened)
        yield opened


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_folder, "_SHARD_EVENTS", 50)
    monkeypatch.setattr(export_folder, "_STEP", 3)


ALL = Source("a store", 0)


def silent(part: float, written: int) -> None:
    pass


class Ended(Exception):
    pass


async def export_until(part: float, store: FeatureStore, out: Path, source: Source = ALL) -> None:
    def progress(done: float, written: int) -> None:
        if done >= part:
            raise Ended

    with pytest.raises(Ended):
        await export_events(store, source, out, progress)


def check_many(out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == ["events"]
    rows = rows_of(sorted((out / "events").glob("*.parquet")))
    assert (set(rows), len(rows)) == (MANY_HELD, len(MANY_HELD))


@pytest.mark.usefixtures("small_shards")
async def test_shards_hold_everybody_once(store: FeatureStore, tmp_path: Path) -> None:
    seen: list[tuple[float, int]] = []
    done = await export_events(store, ALL, tmp_path / "out", lambda part, written: seen.append((part, written)))
    check_many(tmp_path / "out")
    assert (done.users, done.events, done.begun) == (200, 1000, 0)
    assert seen == sorted(seen)
    assert seen[-1] == (1.0, 1000)
    names = sorted(path.name for path in (tmp_path / "out" / "events").glob("part-*"))
    assert names == [f"part-{number:05}.parquet" for number in range(1, done.shards + 1)]
    assert done.shards > 10


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
async def test_the_next_run_goes_on_where_one_was_ended(store: FeatureStore, tmp_path: Path, part: float) -> None:
    out = tmp_path / "out"
    await export_until(part, store, out)
    assert not (out / "events").exists()
    before = {path: path.stat().st_mtime_ns for path in (out / "events.unfinished").glob("*.parquet")}
    # What a run that ends in the middle of a shard leaves behind.
    (out / "events.unfinished" / "part-00099.parquet").write_bytes(b"whole, but not counted yet")
    (out / "events.unfinished" / "part-00100.parquet.writing").write_bytes(b"half")
    done = await export_events(store, ALL, out, silent)
    check_many(out)
    assert before == {path: (out / "events" / path.name).stat().st_mtime_ns for path in before}
    assert (done.users, done.events) == (200, 1000)
    # About half of all keyed hashes are in the first half; which ones the store's new key decides.
    assert done.begun >= 600 * part


@pytest.mark.usefixtures("small_shards")
async def test_who_comes_twice_is_written_once(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        async with aclosing(RedisStore(parse_redis_url(server.url), TAGS)) as store:
            await fill(store)
            await export_until(0.5, store, tmp_path / "out")
        # Its cursors end with it, so that it begins with the first ones again.
        server.signal(signal.SIGKILL)
        server.start()
        async with aclosing(RedisStore(parse_redis_url(server.url), TAGS)) as store:
            done = await export_events(store, ALL, tmp_path / "out", silent)
    check_many(tmp_path / "out")
    assert done.users == 200
    assert done.begun > 0


@pytest.mark.usefixtures("small_shards")
async def test_two_exports_do_not_mix(store: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await export_until(0.5, store, out)
    for other in (Source("another store", 0), Source("a store", 5)):
        with pytest.raises(DataError, match=r"holds a part of another export \(a store, since_ms 0\)"):
            await export_events(store, other, out, silent)
    await export_events(store, ALL, out, silent)
    with pytest.raises(DataError, match="events is there already: name another folder"):
        await export_events(store, ALL, out, silent)
    check_many(out)


async def test_two_processes_do_not_mix(store: FeatureStore, tmp_path: Path) -> None:
    folder = tmp_path / "events.unfinished"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(DataError, match="another process exports there"):
            await export_events(store, ALL, tmp_path, silent)
    finally:
        os.close(handle)
    await export_events(store, ALL, tmp_path, silent)


async def test_what_is_no_export_is_told(store: FeatureStore, tmp_path: Path) -> None:
    state = tmp_path / "events.unfinished" / "export.json"
    state.parent.mkdir()
    for text, says in (("{", "is not JSON"), ("[]", "is not a JSON object"), ('{"x": 1}', "is not of an export")):
        state.write_text(text)
        with pytest.raises(DataError, match=says):
            await export_events(store, ALL, tmp_path, silent)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        await export_events(store, ALL, tmp_path / "file", silent)


async def test_training_reads_the_same_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "features.sqlite", tmp_path / "out"
    async with aclosing(SqliteStore(path)) as store:
        await store.write([UserWrite(user_id, events(*rows)) for user_id, rows in PEOPLE.items()])
    assert await asyncio.to_thread(program.main, ["export-events", "--out", str(out), "--store", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{out / 'events'}: 4 events of 2 people in 1 files in ")
    (out / "movies.csv").write_text(f"movieId,title,genres\n1,One,Drama\n2,Two,Drama\n{2**62},Far,Drama\n")
    data = load_dataset(out)
    kinds = [types_pb2.EventKind.Name(kind).removeprefix("EVENT_KIND_") for kind in types_pb2.EventKind.values()]
    read = {
        (data.user_ids[user], int(data.movie_ids[item]), kinds[kind], float(value), int(time_ms))
        for user, item, kind, value, time_ms in zip(
            data.users, data.items, data.kinds, data.values, data.times_ms, strict=True
        )
    }
    assert (read, len(data.users), data.report.rows_bad, data.report.duplicates) == (HELD, 4, 0, 0)


SLOWLY = """
import sys, time
from services.user_encoder import commands, export_folder
from services.user_encoder.__main__ import main
export_folder._SHARD_EVENTS, export_folder._STEP = 50, 3
commands.Bar.show = lambda self, part, events: time.sleep(0.02)
sys.exit(main(sys.argv[1:]))
"""


async def fill_file(path: Path) -> None:
    async with aclosing(SqliteStore(path)) as store:
        await fill(store)


def test_kill_9_costs_no_event_and_doubles_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "features.sqlite", tmp_path / "out"
    asyncio.run(fill_file(path))
    flags = ["export-events", "--out", str(out), "--store", str(path)]
    state = out / "events.unfinished" / "export.json"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, *flags], cwd=ROOT)
    while not state.exists() or json.loads(state.read_bytes())["shards"] < 5:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert program.main(flags) == 0
    assert "of them by a run before, which was ended" in capsys.readouterr().out
    check_many(out)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("86400000", 86_400_000),
        ("1970-01-02", 86_400_000),
        ("1970-01-02T01:00", 90_000_000),
        ("1970-01-02T01:00+01:00", 86_400_000),
    ],
)
def test_since_is_a_date_or_milliseconds(tmp_path: Path, text: str, ms: int) -> None:
    path, out = tmp_path / "features.sqlite", tmp_path / "out"
    asyncio.run(SqliteStore(path).aclose())
    assert program.main(["export-events", "--out", str(out), "--store", str(path), "--since", text]) == 0
    assert json.loads((out / "events" / "export.json").read_bytes())["since_ms"] == ms


@pytest.mark.parametrize("text", ["yesterday", "1969-12-31", "-5", "2026-13-01"])
def test_another_since_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["export-events", "--out", str(tmp_path), "--since", text])
    assert ended.value.code == 2
    assert f"{text!r} is no time since 1970; write a date" in capsys.readouterr().err


def test_a_store_that_is_not_there_is_not_made_to_be_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mistyped.sqlite"
    assert program.main(["export-events", "--out", str(tmp_path / "out"), "--store", str(path)]) == 2
    assert f"{path} does not exist: nothing to export" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
