"""What the store is asked for ends with the call: what has not begun by then is not begun, and what has may be done."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import grpc.aio
import pytest

from marquee.errors import DeadlineExceeded, StoreUnavailable
from marquee.v1 import live_features_pb2
from services.user_encoder.stores.base import UserWrite
from services.user_encoder.stores.redis_store import RedisStore
from services.user_encoder.stores.redis_url import parse_redis_url
from services.user_encoder.stores.sqlite import SqliteStore
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, encoder_on, events, recording, refused
from tests.fault_rigs import FIRST, KEY, SECOND, SENT, total
from tests.redis_rigs import RedisServer, redis_server
from tests.rigs import eventually, publish

# What the service gives any call here; the stores would wait for much longer.
LONGEST_S, STORE_PATIENCE_S = 0.3, 20.0
MAY_STILL = "may be done all the same"
LONG_PAUSE_MS = 60_000

DELETE_ADA = live_features_pb2.DeleteUserRequest(user_id="ada")
EXPORT = live_features_pb2.ExportEventsRequest()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("write-deadlines")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as started:
        yield started


@pytest.fixture
async def on_redis(registry: Path, server: RedisServer) -> AsyncIterator[EncoderRig]:
    url, waits = parse_redis_url(server.url), STORE_PATIENCE_S
    store = RedisStore(url, KEY, read_timeout_s=waits, write_timeout_s=waits)
    async with encoder_on(store, registry, max_deadline_s=LONGEST_S, store_timeout_s=waits) as running:
        # Opens the connections and checks the key, for which there is as long as it takes.
        await store.write([UserWrite("ada", events(FIRST))])
        await store.read("ada")
        yield running


async def _has(rig: EncoderRig, user_id: str) -> list[int]:
    return list((await rig.store.read(user_id)).movie_ids.tolist())


async def test_a_write_that_a_hung_redis_has_not_begun_is_not_begun(on_redis: EncoderRig, server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    error = await refused(on_redis.features.RecordEvents(recording("ada", SECOND)))
    assert isinstance(error, DeadlineExceeded)
    assert MAY_STILL in error.message
    await _have_ended()
    server.signal(signal.SIGCONT)
    # Comes after what was asked before: the writes of a person pass one by one.
    await on_redis.features.RecordEvents(recording("ada", SENT))
    assert await _has(on_redis, "ada") == [FIRST.movie, SENT.movie]


async def test_a_write_under_way_is_done_though_its_caller_was_told_that_it_is_late(
    on_redis: EncoderRig, server: RedisServer
) -> None:
    # Reads are answered, and what writes waits.
    server.ask.execute_command("CLIENT", "PAUSE", LONG_PAUSE_MS, "WRITE")
    assert isinstance(await refused(on_redis.features.RecordEvents(recording("ada", SECOND))), DeadlineExceeded)
    assert await _has(on_redis, "ada") == [FIRST.movie]
    server.ask.execute_command("CLIENT", "UNPAUSE")

    async def is_there() -> bool:
        return await _has(on_redis, "ada") == [FIRST.movie, SECOND.movie]

    await eventually(is_there)
    sent_again = await on_redis.features.RecordEvents(recording("ada", SECOND))
    assert (sent_again.recorded, await _has(on_redis, "ada")) == (1, [FIRST.movie, SECOND.movie])


async def test_nobody_is_deleted_for_a_call_that_has_ended(on_redis: EncoderRig, server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    assert isinstance(await refused(on_redis.features.DeleteUser(DELETE_ADA)), DeadlineExceeded)
    await _have_ended()
    server.signal(signal.SIGCONT)
    await on_redis.features.RecordEvents(recording("bob", FIRST))
    assert await _has(on_redis, "ada") == [FIRST.movie]


async def test_reads_get_a_part_of_what_their_call_has_left(on_redis: EncoderRig, server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    error = await refused(total(on_redis, "ada"))
    assert isinstance(error, StoreUnavailable), "half of the deadline is left to say so"
    assert "did not answer within 0.1" in error.message
    error = await refused(on_redis.features.ExportEvents(EXPORT))
    assert isinstance(error, DeadlineExceeded)
    assert "page_size" in error.message
    server.signal(signal.SIGCONT)
    assert await total(on_redis, "ada") == 1


async def test_sqlite_begins_nothing_for_a_call_that_has_ended(registry: Path, tmp_path: Path) -> None:
    file = tmp_path / "features.sqlite"
    store = SqliteStore(file, write_timeout_s=STORE_PATIENCE_S)
    async with encoder_on(store, registry) as rig:
        await rig.features.RecordEvents(recording("ada", FIRST))
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            # The first waits for the other process, the second and the third share the transaction after that.
            for call in (recording("ada", SECOND), recording("bob", SECOND)):
                await _ends_late(rig.features.RecordEvents(call, timeout=LONGEST_S))
            await _ends_late(rig.features.DeleteUser(DELETE_ADA, timeout=LONGEST_S))
            await _have_ended()
            in_time = asyncio.ensure_future(rig.features.RecordEvents(recording("bob", SENT)))
            other.execute("ROLLBACK")
            assert (await in_time).recorded == 1
        await rig.features.RecordEvents(recording("eve", SENT))
        assert await _has(rig, "ada") == [FIRST.movie]
        assert await _has(rig, "bob") == [SENT.movie]


async def _have_ended() -> None:
    """Waits until the calls before have no time left at all: a caller is told of it a little earlier."""
    await asyncio.sleep(0.2 * LONGEST_S)


async def _ends_late(call: grpc.aio.UnaryUnaryCall) -> None:  # type: ignore[type-arg]
    assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
