"""The feature store fails in every way: Encode answers within its deadline, says what is missing, and recovers."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from marquee.errors import StoreUnavailable, UserUnknown
from marquee.features import LIKED
from marquee.v1 import live_features_pb2, user_encoder_pb2
from services.user_encoder.stores.sqlite import SqliteStore
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, columns, encoder_on, recording, refused
from tests.fault_rigs import (
    COLD_START,
    DEADLINE_S,
    FIRST,
    PATIENCE_S,
    REQUEST,
    SECOND,
    SENT,
    STALE,
    STORE,
    STORE_TIMEOUT_S,
    WRITE_TIMEOUT_S,
    encode,
    encoder_on_redis,
    is_whole,
    recovered,
    remember,
    seen,
    store_state,
    total,
)
from tests.redis_rigs import RedisServer, redis_server
from tests.rigs import eventually, publish


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


async def batch(rig: EncoderRig, people: dict[str, list[Row]]) -> user_encoder_pb2.BatchEncodeResponse:
    request = user_encoder_pb2.BatchEncodeRequest()
    for user_id, rows in people.items():
        request.items.add(user_id=user_id, events=columns(*rows))
    return await rig.users.BatchEncode(request, timeout=DEADLINE_S)


async def check_every_step(rig: EncoderRig, kind: str) -> None:
    """Checks what is answered while the store cannot be read, after `remember`."""
    before = await store_state(rig)
    assert (before.kind, before.reachable) == (kind, True)

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
    assert after.stale_answers - before.stale_answers == 3
    assert after.blind_answers - before.blind_answers == 4
    assert not after.reachable
    assert after.last_error


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
    told = [record.levelname for record in caplog.records if record.name == "services.common.breaker"]
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

    async def is_forgotten() -> bool:
        return (await encode(rig, "ada")).source != STALE

    await eventually(is_forgotten, PATIENCE_S)
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
    state = await store_state(rig)
    assert (state.stale_answers, state.blind_answers) == (1, 0), "what was refused is no answer"


# What it was told survives a restart.
KEPT = ("--appendonly", "yes", "--save", "")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis", *KEPT) as started:
        yield started


class Wire:
    """Is the way to a server, which can be made slow; it keeps the order of what it carries."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.Task[None]] = set()
        self.url = ""
        self.delay_s = 0.0

    def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(asyncio.ensure_future(self._carry(reader, writer)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        answers = asyncio.ensure_future(self._pump(from_server, writer, slow=True))
        await self._pump(reader, to_server, slow=False)
        answers.cancel()
        for end in (to_server, writer):
            end.close()
            with contextlib.suppress(ConnectionError):
                await end.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if slow:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)

    async def closed(self) -> None:
        """Waits until the callers have closed all that they had opened."""
        await asyncio.gather(*self._open)


@pytest.fixture
async def wire(server: RedisServer) -> AsyncIterator[Wire]:
    made = Wire(server.port)
    async with await asyncio.start_server(made.connect, "127.0.0.1", 0) as listening:
        made.url = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield made
        await made.closed()


@pytest.fixture
async def on_redis(registry: Path, server: RedisServer) -> AsyncIterator[EncoderRig]:
    async with encoder_on_redis(registry, server.url) as running:
        yield running


async def check_refusals(rig: EncoderRig) -> None:
    """Checks that what needs the store is refused while it cannot be used."""
    before = (await store_state(rig)).refused_writes
    for call in (
        rig.features.RecordEvents(recording("ada", SENT, SENT._replace(movie=10)), timeout=DEADLINE_S),
        rig.features.DeleteUser(live_features_pb2.DeleteUserRequest(user_id="eve"), timeout=DEADLINE_S),
        total(rig, "ada"),
    ):
        assert isinstance(await refused(call), StoreUnavailable)
    assert (await store_state(rig)).refused_writes == before + 2


async def test_redis_that_is_killed(on_redis: EncoderRig, server: RedisServer) -> None:
    await remember(on_redis)
    server.signal(signal.SIGKILL)
    await check_every_step(on_redis, "redis")
    await check_refusals(on_redis)
    server.start()
    await recovered(on_redis)
    assert await total(on_redis, "ada") == 2


async def test_redis_that_hangs(on_redis: EncoderRig, server: RedisServer) -> None:
    await remember(on_redis)
    server.signal(signal.SIGSTOP)
    await check_every_step(on_redis, "redis")
    await check_refusals(on_redis)
    server.signal(signal.SIGCONT)
    await recovered(on_redis)
    assert await total(on_redis, "ada") == 2


async def test_a_hung_redis_is_not_waited_for_by_each_call(registry: Path, server: RedisServer) -> None:
    async with encoder_on_redis(registry, server.url) as rig:
        await remember(rig)
        server.signal(signal.SIGSTOP)
        # Each on its own would wait a fifth of a second.
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(100):
                assert (await encode(rig, "ada")).source == STALE
        server.signal(signal.SIGCONT)
        await recovered(rig)


async def test_callers_that_gave_up_leave_no_connection_taken(registry: Path, server: RedisServer) -> None:
    async with encoder_on_redis(registry, server.url) as rig:
        await remember(rig)
        for _ in range(3):
            server.signal(signal.SIGSTOP)
            # More than there are connections: some wait for one in vain.
            answers = await asyncio.gather(*(encode(rig, "ada") for _ in range(200)))
            assert {answer.source for answer in answers} == {STALE}
            server.signal(signal.SIGCONT)
            await recovered(rig)
            for _ in range(5):
                answers = await asyncio.gather(*(encode(rig, "ada") for _ in range(20)))
                assert {answer.source for answer in answers} == {STORE}


async def test_a_hung_redis_is_waited_for_no_longer_than_half_of_what_is_left(
    registry: Path, server: RedisServer
) -> None:
    async with encoder_on_redis(registry, server.url, 30.0) as rig:
        await remember(rig)
        server.signal(signal.SIGSTOP)
        request = user_encoder_pb2.EncodeRequest(user_id="ada")
        people = user_encoder_pb2.BatchEncodeRequest()
        for number in range(500):
            people.items.add(user_id="ada" if number == 0 else f"person-{number}")
        for deadline_s in (0.2, 0.4):
            assert (await rig.users.Encode(request, timeout=deadline_s)).source == STALE
        answer = await rig.users.BatchEncode(people, timeout=1.5)
        assert [one.source for one in answer.results] == [STALE] + [COLD_START] * 499
        server.signal(signal.SIGCONT)


async def test_slow_redis(registry: Path, wire: Wire) -> None:
    async with encoder_on_redis(registry, wire.url) as rig:
        await remember(rig)
        wire.delay_s = STORE_TIMEOUT_S / 5
        for _ in range(10):
            assert (await encode(rig, "ada")).source == STORE
        wire.delay_s = 1.5 * max(STORE_TIMEOUT_S, WRITE_TIMEOUT_S)
        await check_every_step(rig, "redis")
        await check_refusals(rig)
        wire.delay_s = 0.0
        await recovered(rig)
        assert await total(rig, "ada") == 2


async def test_an_answer_that_comes_too_late_is_nobody_elses(registry: Path, wire: Wire) -> None:
    people = {f"person-{number}": 1 + 3 * number for number in range(12)}
    async with encoder_on_redis(registry, wire.url) as rig:
        for user_id, movie in people.items():
            await rig.features.RecordEvents(recording(user_id, Row(movie, LIKED, 0, 1000)))
        sources = set[int]()
        for turn in range(6):
            # At times just slower than what is waited for, so that answers come right after nobody waits any more.
            wire.delay_s = 1.05 * STORE_TIMEOUT_S if turn % 2 else 0.0
            answers = await asyncio.gather(*(encode(rig, user_id) for user_id in people))
            sources.update(answer.source for answer in answers)
            for answer, movie in zip(answers, people.values(), strict=True):
                assert seen(answer) == [movie]
            wire.delay_s = 0.0
            await eventually(partial(is_whole, rig, "person-0"), PATIENCE_S)
        assert sources == {STORE, STALE}


async def check_writes_are_refused(rig: EncoderRig, saying: str) -> None:
    """Checks a store that can be read and not be written."""
    request = recording("ada", SENT, SENT._replace(movie=10))
    error = await refused(rig.features.RecordEvents(request, timeout=DEADLINE_S))
    assert isinstance(error, StoreUnavailable)
    assert saying in error.message
    answer = await encode(rig, "ada")
    assert (answer.source, answer.degraded, seen(answer)) == (STORE, False, [1, 4])
    state = await store_state(rig)
    assert (state.reachable, state.refused_writes) == (True, 2)


async def check_writes_are_taken_again(rig: EncoderRig) -> None:
    assert (await rig.features.RecordEvents(recording("ada", SENT), timeout=DEADLINE_S)).recorded == 1
    assert seen(await encode(rig, "ada")) == [1, 4, 7]


async def test_full_redis(on_redis: EncoderRig, server: RedisServer) -> None:
    await remember(on_redis)
    server.ask.execute_command("CONFIG", "SET", "maxmemory", "1")
    await check_writes_are_refused(on_redis, "is full")
    server.ask.execute_command("CONFIG", "SET", "maxmemory", "0")
    await check_writes_are_taken_again(on_redis)


async def test_redis_that_has_become_a_replica(on_redis: EncoderRig, server: RedisServer) -> None:
    await remember(on_redis)
    server.ask.execute_command("REPLICAOF", "127.0.0.1", "1")
    await check_writes_are_refused(on_redis, "is a read-only replica")
    server.ask.execute_command("REPLICAOF", "NO", "ONE")
    await check_writes_are_taken_again(on_redis)


async def test_redis_that_is_restarted_between_two_calls(on_redis: EncoderRig, server: RedisServer) -> None:
    await remember(on_redis)
    await on_redis.features.RecordEvents(recording("ada", SENT))
    for _ in range(3):
        server.signal(signal.SIGKILL)
        server.start()
        answer = await encode(on_redis, "ada")
        assert (answer.source, answer.degraded, seen(answer)) == (STORE, False, [1, 4, 7])
    server.signal(signal.SIGKILL)
    server.start()
    await on_redis.features.RecordEvents(recording("ada", Row(10, LIKED, 0, 4000)), timeout=DEADLINE_S)
    assert seen(await encode(on_redis, "ada")) == [1, 4, 7, 10]


async def test_an_encoder_starts_without_its_redis(registry: Path, server: RedisServer) -> None:
    server.signal(signal.SIGKILL)
    async with encoder_on_redis(registry, server.url) as rig:
        answer = await encode(rig, "ada")
        assert (answer.source, answer.degraded) == (COLD_START, True)
        server.start()
        await rig.features.RecordEvents(recording("ada", FIRST, SECOND), timeout=DEADLINE_S)
        await recovered(rig)
        assert isinstance(await refused(encode(rig, "bob")), UserUnknown), "now that is known"
