"""Backups of a store that are made while it is in use, and what is served from them afterwards."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import aclosing, closing
from pathlib import Path

import grpc.aio
import pytest

from marquee.features import LIKED
from services.user_encoder import __main__ as program
from services.user_encoder.stores.base import UserWrite, Written
from services.user_encoder.stores.redis_store import RedisStore
from services.user_encoder.stores.redis_url import parse_redis_url
from services.user_encoder.stores.sqlite import SqliteStore
from services.user_encoder.stores.sqlite_file import SCHEMA_VERSION, default_key_path
from services.user_encoder.stores.tags import KEY_BYTES, Tags
from tests.bundles import make_bundle
from tests.encoder_rigs import Row, Stubs, events, recording, stubs
from tests.redis_rigs import redis_server, until
from tests.rigs import eventually, publish, service_process


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backup")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


def back_up(store: Path, target: Path) -> int:
    return program.main(["back-up", "--store", str(store), "--out", str(target)])


async def record_until(ended: asyncio.Event, caller: Stubs, user_id: str, acknowledged: dict[str, int]) -> None:
    movie = 0
    while not ended.is_set():
        movie += 1
        await caller.features.RecordEvents(recording(user_id, Row(movie, LIKED, 0, movie)))
        acknowledged[user_id] = movie


async def kept(path: Path, user_id: str) -> list[int]:
    async with aclosing(SqliteStore(path)) as store:
        return sorted((await store.read(user_id)).movie_ids.tolist())


async def test_a_backup_made_while_serving_has_what_was_acknowledged_before(tmp_path: Path, registry: Path) -> None:
    path, target = tmp_path / "store" / "features.sqlite", tmp_path / "backup.sqlite"
    acknowledged: dict[str, int] = {}
    ended = asyncio.Event()
    with service_process("user_encoder", tmp_path, registry, f"--store={path}", "--drain-s=0") as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            names = [f"person-{number}" for number in range(8)]
            callers = [asyncio.ensure_future(record_until(ended, stubs(channel), name, acknowledged)) for name in names]
            await eventually(lambda: len(acknowledged) == len(names) and min(acknowledged.values()) >= 20)
            before = dict(acknowledged)
            assert await asyncio.to_thread(back_up, path, target) == 0
            ended.set()
            await asyncio.gather(*callers)
    shutil.copy(default_key_path(path), default_key_path(target))
    with closing(sqlite3.connect(target)) as sql:
        assert sql.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert sql.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    for name, count in before.items():
        found = await kept(target, name)
        assert found == list(range(1, len(found) + 1))
        assert count <= len(found) <= acknowledged[name]


async def test_a_backup_is_served_and_still_refuses_who_was_deleted(tmp_path: Path, registry: Path) -> None:
    path, target = tmp_path / "features.sqlite", tmp_path / "restored" / "features.sqlite"
    async with aclosing(SqliteStore(path)) as store:
        await store.delete("bob", 1_000)
    target.parent.mkdir()
    assert await asyncio.to_thread(back_up, path, target) == 0
    shutil.copy(default_key_path(path), default_key_path(target))
    with service_process("user_encoder", tmp_path, registry, f"--store={target}", "--drain-s=0") as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            for name, recorded in (("ada", 1), ("bob", 0)):
                request = recording(name, Row(1, LIKED, 0, 1_000))
                assert (await stubs(channel).features.RecordEvents(request)).recorded == recorded


async def test_a_snapshot_of_a_redis_has_what_was_acknowledged_before(tmp_path: Path) -> None:
    tags = Tags(bytes(KEY_BYTES))
    with redis_server(tmp_path / "serving", "--appendonly", "yes") as serving:
        async with aclosing(RedisStore(parse_redis_url(serving.url), tags)) as store:
            await store.write([UserWrite("ada", events(Row(1, LIKED, 0, 10), Row(2, LIKED, 0, 20)))])
            await store.delete("bob", 1_000)
            serving.ask.bgsave()
            until(lambda: not serving.ask.info("persistence")["rdb_bgsave_in_progress"], "the snapshot")
            await store.write([UserWrite("ada", events(Row(3, LIKED, 0, 30)))])
        (tmp_path / "restored").mkdir()
        shutil.copy(tmp_path / "serving" / "dump.rdb", tmp_path / "restored")
    with redis_server(tmp_path / "restored", "--appendonly", "no") as restored:
        restored.ask.config_set("appendonly", "yes")
        async with aclosing(RedisStore(parse_redis_url(restored.url), tags)) as store:
            assert (await store.read("ada")).movie_ids.tolist()[:2] == [1, 2]
            [refused] = await store.write([UserWrite("bob", events(Row(1, LIKED, 0, 1_000)))])
            assert refused == Written(False, 1_000)


def test_a_redis_is_not_copied_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store.key").write_bytes(bytes(KEY_BYTES))
    flags = ["--store", "redis://me:secret@127.0.0.1:1", "--store-key", str(tmp_path / "store.key")]
    assert program.main(["back-up", *flags, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "is a Redis: copy its snapshot (BGSAVE)" in told
    assert "secret" not in told


def test_what_cannot_be_copied_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert back_up(tmp_path / "none.sqlite", tmp_path / "backup.sqlite") == 1
    assert "cannot be copied to" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert back_up(tmp_path, tmp_path / "backup.sqlite") == 1
    assert "cannot be copied to" in capsys.readouterr().err
