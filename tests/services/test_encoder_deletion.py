"""DeleteUser: what is gone, what is refused from then on, and that nothing names the person afterwards."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import grpc.aio
import pytest

from marquee.errors import InvalidRequest, StoreUnavailable, UserDeleted, UserUnknown, from_status
from marquee.features import LIKED
from marquee.v1 import live_features_pb2, user_encoder_pb2
from services.user_encoder.stores.redis_keys import CHANNEL
from services.user_encoder.stores.redis_store import RedisStore
from services.user_encoder.stores.redis_url import parse_redis_url
from services.user_encoder.stores.tags import KEY_BYTES, Tags
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, Stubs, encoder, encoder_on, recording, refused, rows_of, stubs
from tests.redis_rigs import redis_server, until
from tests.rigs import eventually, publish, service_process

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deletion")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture
async def rig(registry: Path, tmp_path: Path) -> AsyncIterator[EncoderRig]:
    async with encoder(registry, tmp_path / "features.sqlite") as running:
        yield running


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def liked(movie: int, time_ms: int) -> Row:
    return Row(movie, LIKED, 0, time_ms)


async def delete(caller: EncoderRig | Stubs, user_id: str) -> live_features_pb2.DeleteUserResponse:
    return await caller.features.DeleteUser(live_features_pb2.DeleteUserRequest(user_id=user_id))


async def test_who_was_deleted_is_unknown(rig: EncoderRig) -> None:
    for name in ("ada", "bob"):
        await rig.features.RecordEvents(recording(name, liked(1, 10)))
    before = now_ms()
    answer = await delete(rig, "ada")
    assert answer.existed
    assert before <= answer.deleted_at_ms <= now_ms()
    for call in (
        rig.features.GetHistory(live_features_pb2.GetHistoryRequest(user_id="ada")),
        rig.users.Encode(user_encoder_pb2.EncodeRequest(user_id="ada")),
    ):
        assert isinstance(await refused(call), UserUnknown)
    assert (await rig.features.GetHistory(live_features_pb2.GetHistoryRequest(user_id="bob"))).total == 1


async def test_deleting_again_is_no_error_and_never_moves_back(rig: EncoderRig) -> None:
    first, second = await delete(rig, "ada"), await delete(rig, "ada")
    assert (first.existed, second.existed) == (False, False)
    assert second.deleted_at_ms >= first.deleted_at_ms


@pytest.mark.parametrize("user_id", ["", "a\nb", "a" * 257])
async def test_nobody_of_such_a_name_is_deleted(rig: EncoderRig, user_id: str) -> None:
    error = await refused(rig.features.DeleteUser(live_features_pb2.DeleteUserRequest(user_id=user_id)))
    assert isinstance(error, InvalidRequest)
    assert error.field == "user_id"


async def test_events_up_to_the_deletion_are_refused_one_by_one(rig: EncoderRig) -> None:
    at_ms = (await delete(rig, "ada")).deleted_at_ms
    request = recording("ada", liked(1, 10), liked(4, at_ms), liked(7, at_ms + 1))
    request.events.extend(recording("bob", liked(1, 10)).events)
    request.events.add(user_id="ada", movie_id=-1, kind=LIKED)
    answer = await rig.features.RecordEvents(request)
    told = [from_status(status) if status.code else None for status in answer.statuses]
    assert [type(one).__name__ for one in told] == [
        "UserDeleted",
        "UserDeleted",
        "NoneType",
        "NoneType",
        "InvalidRequest",
    ]
    assert answer.recorded == 2
    refusal = told[1]
    assert isinstance(refusal, UserDeleted)
    assert refusal.field == "events[1].time_ms"
    assert f"user 'ada' was deleted at {at_ms}" in refusal.message
    kept = await rig.features.GetHistory(live_features_pb2.GetHistoryRequest(user_id="ada"))
    assert rows_of(kept.events) == [liked(7, at_ms + 1)]


async def test_what_a_fast_clock_had_dated_ahead_is_refused_when_it_comes_again(rig: EncoderRig) -> None:
    ahead = recording("ada", liked(1, now_ms() + 200_000))
    assert (await rig.features.RecordEvents(ahead)).recorded == 1
    assert (await delete(rig, "ada")).deleted_at_ms == ahead.events[0].time_ms
    answer = await rig.features.RecordEvents(ahead)
    assert isinstance(from_status(answer.statuses[0]), UserDeleted)


async def test_a_damaged_person_fails_alone_and_can_be_deleted(rig: EncoderRig, tmp_path: Path) -> None:
    await rig.features.RecordEvents(recording("ada", liked(1, now_ms() + 200_000)))
    with closing(sqlite3.connect(tmp_path / "features.sqlite", isolation_level=None)) as sql:
        sql.execute("UPDATE people SET history = x'0102'")
    request = recording("ada", liked(4, 10))
    request.events.extend(recording("bob", liked(1, 10)).events)
    answer = await rig.features.RecordEvents(request)
    assert isinstance(from_status(answer.statuses[0]), StoreUnavailable)
    assert (answer.statuses[1].code, answer.recorded) == (0, 1)
    deleted = await delete(rig, "ada")
    assert deleted.existed
    # When its events were dated cannot be told, but none may be later than this.
    assert deleted.deleted_at_ms >= now_ms() + 200_000
    assert isinstance(
        await refused(rig.features.GetHistory(live_features_pb2.GetHistoryRequest(user_id="ada"))), UserUnknown
    )


async def test_a_store_that_cannot_write_deletes_nothing(rig: EncoderRig, tmp_path: Path) -> None:
    await rig.features.RecordEvents(recording("ada", liked(1, 10)))
    with closing(sqlite3.connect(tmp_path / "features.sqlite", isolation_level=None)) as sql:
        sql.execute("BEGIN IMMEDIATE")
        error = await refused(rig.features.DeleteUser(live_features_pb2.DeleteUserRequest(user_id="ada")))
        sql.execute("ROLLBACK")
    assert isinstance(error, StoreUnavailable)
    assert (await rig.features.RecordEvents(recording("ada", liked(4, 20)))).recorded == 1
    assert (await delete(rig, "ada")).existed


async def test_another_encoder_forgets_who_was_deleted(tmp_path: Path, registry: Path) -> None:
    with redis_server(tmp_path / "redis") as server:

        def store() -> RedisStore:
            return RedisStore(parse_redis_url(server.url), Tags(bytes(KEY_BYTES)))

        async with encoder_on(store(), registry) as one, encoder_on(store(), registry) as other:
            # One who begins to listen forgets everybody.
            await asyncio.to_thread(until, lambda: server.ask.pubsub_numsub(CHANNEL)[0][1] == 2, "both to listen")
            for name in ("ada", "bob"):
                await one.features.RecordEvents(recording(name, liked(1, 10)))
                await other.users.Encode(user_encoder_pb2.EncodeRequest(user_id=name))
            await delete(one, "ada")
            # From here on only what it remembers can tell the other one of anybody.
            server.signal(signal.SIGSTOP)
            await eventually(partial(is_forgotten, other, "ada"), 10)
            assert await source_of(other, "ada") == user_encoder_pb2.FEATURE_SOURCE_COLD_START
            assert await source_of(other, "bob") == user_encoder_pb2.FEATURE_SOURCE_STALE
            server.signal(signal.SIGCONT)


async def source_of(caller: EncoderRig, user_id: str) -> user_encoder_pb2.FeatureSource:
    return (await caller.users.Encode(user_encoder_pb2.EncodeRequest(user_id=user_id))).source


async def is_forgotten(caller: EncoderRig, user_id: str) -> bool:
    return await source_of(caller, user_id) != user_encoder_pb2.FEATURE_SOURCE_STALE


# Found nowhere by chance, as text or as bytes.
WHO, MOVIE = "someone-who-leaves-7f3a", 0x5EED_F11C_4E57_1DEA
TRACES = (WHO.encode(), str(MOVIE).encode(), MOVIE.to_bytes(8, "little"), MOVIE.to_bytes(8, "big"))


async def test_nothing_names_who_was_deleted_neither_files_nor_logs(tmp_path: Path, registry: Path) -> None:
    folder = tmp_path / "store"
    await serve_somebody_who_leaves(tmp_path, registry, f"--store={folder / 'features.sqlite'}")
    assert traces_in(folder) == []


async def test_nothing_names_who_was_deleted_in_a_redis_and_its_files(tmp_path: Path, registry: Path) -> None:
    (tmp_path / "store.key").write_bytes(bytes(KEY_BYTES))
    with redis_server(tmp_path / "store" / "redis", "--appendonly", "yes", "--save", "3600 1") as server:
        flags = [f"--store={server.url}", f"--store-key={tmp_path / 'store.key'}"]
        await serve_somebody_who_leaves(tmp_path, registry, *flags)
        assert server.ask.dbsize() > 50
    assert traces_in(tmp_path / "store") == []


async def serve_somebody_who_leaves(folder: Path, registry: Path, *store: str) -> None:
    """Records somebody and deletes them, both in every way that is logged; puts the log beside the store's files."""
    flags = [*store, "--drain-s=0", "--log-level=debug"]
    with service_process("user_encoder", folder, registry, *flags) as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            await stay(stubs(channel))
            assert traces_in(folder / "store") != []
            await leave(stubs(channel))
        exit_code, log = process.stop()
    assert (exit_code, "stopped" in log) == (0, True)
    (folder / "store" / "log").write_text(log)


async def stay(caller: Stubs) -> None:
    for number in range(50):
        request = recording(WHO, liked(MOVIE, HOUR_MS), liked(1 + number, HOUR_MS + number))
        request.events.extend(recording(f"another-{number}", liked(1, HOUR_MS)).events)
        request.events[0].request_id = f"{WHO}-was-shown-{MOVIE}"
        await caller.features.RecordEvents(request)
    await caller.users.Encode(user_encoder_pb2.EncodeRequest(user_id=WHO))
    await caller.features.ExportEvents(live_features_pb2.ExportEventsRequest())


async def leave(caller: Stubs) -> None:
    await delete(caller, WHO)
    answer = await caller.features.RecordEvents(recording(WHO, liked(MOVIE, HOUR_MS)))
    assert isinstance(from_status(answer.statuses[0]), UserDeleted)
    assert isinstance(await refused(caller.users.Encode(user_encoder_pb2.EncodeRequest(user_id=WHO))), UserUnknown)
    for page_size in (0, -1):
        await refused(caller.features.GetHistory(live_features_pb2.GetHistoryRequest(user_id=WHO, page_size=page_size)))
    await refused(caller.users.Encode(user_encoder_pb2.EncodeRequest(user_id=WHO, space="no-such-space")))


def traces_in(folder: Path) -> list[tuple[str, bytes]]:
    files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return [(name, trace) for name, data in files.items() for trace in TRACES if trace in data]
