"""The feature store fails in every way: Encode answers within its deadline, says what is missing, and recovers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path

import numpy as np
import pytest

from marquee.errors import StoreUnavailable
from marquee.features import CLICKED, LIKED
from marquee.v1 import live_features_pb2, user_encoder_pb2
from services.user_encoder.stores.sqlite import SqliteStore
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, columns, encoder_on, recording, refused
from tests.rigs import publish

STORE = user_encoder_pb2.FEATURE_SOURCE_STORE
REQUEST = user_encoder_pb2.FEATURE_SOURCE_REQUEST
COLD_START = user_encoder_pb2.FEATURE_SOURCE_COLD_START
STALE = user_encoder_pb2.FEATURE_SOURCE_STALE

# The bundle's movies are 1, 4, 7, …
FIRST, SECOND, SENT = Row(1, LIKED, 0, 1000), Row(4, LIKED, 0, 2000), Row(7, CLICKED, 0, 3000)
DEADLINE_S = 2.0
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "features.sqlite"


@pytest.fixture
async def rig(registry: Path, file: Path) -> AsyncIterator[EncoderRig]:
    async with encoder_on(SqliteStore(file, write_timeout_s=0.05), registry) as running:
        yield running


async def encode(rig: EncoderRig, user_id: str, *rows: Row) -> user_encoder_pb2.EncodeResponse:
    request = user_encoder_pb2.EncodeRequest(user_id=user_id, events=columns(*rows))
    return await rig.users.Encode(request, timeout=DEADLINE_S)


async def batch(rig: EncoderRig, people: dict[str, list[Row]]) -> user_encoder_pb2.BatchEncodeResponse:
    request = user_encoder_pb2.BatchEncodeRequest()
    for user_id, rows in people.items():
        request.items.add(user_id=user_id, events=columns(*rows))
    return await rig.users.BatchEncode(request, timeout=DEADLINE_S)


async def store_state(rig: EncoderRig) -> user_encoder_pb2.StoreState:
    return (await rig.users.GetModel(user_encoder_pb2.GetModelRequest(), timeout=DEADLINE_S)).store


async def total(rig: EncoderRig, user_id: str) -> int:
    request = live_features_pb2.GetHistoryRequest(user_id=user_id)
    return (await rig.features.GetHistory(request, timeout=DEADLINE_S)).total


def seen(answer: user_encoder_pb2.EncodeResponse | user_encoder_pb2.BatchEncodeResult) -> list[int]:
    return list(np.frombuffer(answer.seen, "<i8").tolist())


async def remember(rig: EncoderRig) -> None:
    """Records ada's and bob's events; only ada's are read."""
    await rig.features.RecordEvents(recording("ada", FIRST, SECOND), timeout=DEADLINE_S)
    await rig.features.RecordEvents(recording("bob", FIRST), timeout=DEADLINE_S)
    answer = await encode(rig, "ada")
    assert (answer.source, answer.features_age_ms, answer.degraded) == (STORE, 0, False)


async def check_every_step(rig: EncoderRig, kind: str) -> None:
    """Checks what is answered while the store cannot be read, after `remember`."""
    before = await store_state(rig)
    assert (before.kind, before.reachable, before.stale_answers, before.blind_answers) == (kind, True, 0, 0)

    known = await encode(rig, "ada")
    assert (known.source, known.degraded, seen(known), known.events_used) == (STALE, True, [1, 4], 2)
    assert known.features_age_ms > 0
    merged = await encode(rig, "ada", SENT)
    assert (merged.source, merged.degraded, seen(merged), merged.events_used) == (STALE, True, [1, 4, 7], 3)
    sent = await encode(rig, "bob", SENT)
    assert (sent.source, sent.degraded, sent.features_age_ms, seen(sent)) == (REQUEST, True, 0, [7])
    nothing = await encode(rig, "bob")
    assert (nothing.source, nothing.degraded, nothing.features_age_ms, seen(nothing)) == (COLD_START, True, 0, [])
    assert np.linalg.norm(np.frombuffer(nothing.vector, "<f4")) == pytest.approx(1, abs=1e-5)
    nobody = await encode(rig, "", SENT)
    assert (nobody.source, nobody.degraded) == (REQUEST, False), "who needs no store misses none"

    answer = await batch(rig, {"ada": [], "bob": [SENT], "cy": [], "": [SENT]})
    assert [(one.source, one.degraded, one.features_age_ms > 0, seen(one)) for one in answer.results] == [
        (STALE, True, True, [1, 4]),
        (REQUEST, True, False, [7]),
        (COLD_START, True, False, []),
        (REQUEST, False, False, [7]),
    ]
    assert not any(one.HasField("status") for one in answer.results)

    after = await store_state(rig)
    assert (after.reachable, after.stale_answers, after.blind_answers) == (False, 3, 4)
    assert after.last_error


async def recovered(rig: EncoderRig) -> None:
    """Waits until answers are made of the store again, and checks that all of it is still there."""
    async with asyncio.timeout(PATIENCE_S):
        while (await encode(rig, "ada")).degraded:
            await asyncio.sleep(0.05)
    answer = await encode(rig, "ada")
    assert (answer.source, answer.features_age_ms, seen(answer)) == (STORE, 0, [1, 4])
    state = await store_state(rig)
    assert state.reachable
    assert state.last_error, "what went wrong last can still be read"


def rename_table(file: Path, old: str, new: str) -> None:
    with closing(sqlite3.connect(file)) as sql:
        sql.execute(f"ALTER TABLE {old} RENAME TO {new}")


async def test_sqlite_that_cannot_be_read(rig: EncoderRig, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    await remember(rig)
    rename_table(file, "people", "lost")
    await check_every_step(rig, "sqlite")
    for _ in range(20):
        assert (await encode(rig, "ada")).source == STALE
    assert isinstance(await refused(rig.features.RecordEvents(recording("ada", SENT))), StoreUnavailable)
    assert isinstance(await refused(total(rig, "ada")), StoreUnavailable)
    state = await store_state(rig)
    assert (state.refused_writes, "no such table: people" in state.last_error) == (1, True)
    rename_table(file, "lost", "people")
    await recovered(rig)
    told = [record.levelname for record in caplog.records if record.name == "services.user_encoder.breaker"]
    assert told == ["ERROR"], "one line an outage; that it ended is said at INFO"


async def test_sqlite_that_another_process_writes_is_read_and_refuses_writes(rig: EncoderRig, file: Path) -> None:
    await remember(rig)
    with closing(sqlite3.connect(file, isolation_level=None)) as sql:
        sql.execute("BEGIN IMMEDIATE")
        request = recording("ada", SENT, SENT._replace(movie=10))
        assert isinstance(await refused(rig.features.RecordEvents(request)), StoreUnavailable)
        answer = await encode(rig, "ada")
        assert (answer.source, answer.degraded, seen(answer)) == (STORE, False, [1, 4])
        sql.execute("ROLLBACK")
    assert (await store_state(rig)).refused_writes == 2
    await rig.features.RecordEvents(request)
    assert seen(await encode(rig, "ada")) == [1, 4, 7, 10]


async def test_what_was_recorded_just_before_is_part_of_what_is_remembered(rig: EncoderRig, file: Path) -> None:
    await remember(rig)
    await rig.features.RecordEvents(recording("ada", SENT))
    rename_table(file, "people", "lost")
    answer = await encode(rig, "ada")
    assert (answer.source, seen(answer), answer.newest_event_ms) == (STALE, [1, 4, 7], SENT.time)


async def test_a_deleted_person_is_not_remembered(rig: EncoderRig, file: Path) -> None:
    await remember(rig)
    await rig.features.DeleteUser(live_features_pb2.DeleteUserRequest(user_id="ada"))
    rename_table(file, "people", "lost")
    answer = await encode(rig, "ada")
    assert (answer.source, answer.degraded, seen(answer)) == (COLD_START, True, [])


async def test_a_person_whom_another_process_deletes_is_forgotten_soon(rig: EncoderRig, file: Path) -> None:
    await remember(rig)
    async with aclosing(SqliteStore(file)) as other:
        assert await other.delete("ada", 5000)
    rename_table(file, "people", "lost")
    async with asyncio.timeout(PATIENCE_S):
        while (await encode(rig, "ada")).source == STALE:
            await asyncio.sleep(0.05)
    assert seen(await encode(rig, "ada")) == []


async def test_memory_has_an_end(registry: Path, file: Path) -> None:
    async with encoder_on(SqliteStore(file), registry, store_stale_s=0.0) as rig:
        await remember(rig)
        rename_table(file, "people", "lost")
        answer = await encode(rig, "ada")
        assert (answer.source, answer.degraded) == (COLD_START, True)
        assert (await store_state(rig)).blind_answers == 1


async def test_no_explanation_is_made_of_nothing(rig: EncoderRig, file: Path) -> None:
    await remember(rig)
    rename_table(file, "people", "lost")
    known = await rig.users.Explain(user_encoder_pb2.ExplainRequest(user_id="ada", movie_ids=[7]))
    assert (known.source, known.degraded, known.features_age_ms > 0) == (STALE, True, True)
    nothing = rig.users.Explain(user_encoder_pb2.ExplainRequest(user_id="bob", movie_ids=[7]))
    assert isinstance(await refused(nothing), StoreUnavailable)
