"""Clocks that jump: a service's, while it runs, and a caller's."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import pytest

from marquee.bundle.format import Bundle
from marquee.client import AsyncRecommender, Event, EventKind, FeatureSource, InvalidRequest, UserUnknown
from marquee.features import LIKED
from marquee.v1 import live_features_pb2, user_encoder_pb2
from tests.bundles import make_bundle, movie_record
from tests.chaos.load import AS_OF, DEADLINE_OF_CALLS_S, RIGHT, Expected, K, expect, loading, record_people
from tests.chaos.promises import Happened, promise
from tests.encoder_rigs import Row, Stubs, recording, stubs
from tests.fault_rigs import seen
from tests.rigs import DEADLINE_S, eventually, module_process, publish

MOVIES = 50
HOUR_S, DAY_S = 3_600, 86_400
JUMPS = {"+1 hour": HOUR_S, "+1 day": DAY_S, "-1 hour": -HOUR_S, "-1 day": -DAY_S}
FIRST, SECOND, THIRD = (movie_record(number).movie_id for number in (30, 31, 32))
PATIENCE_S = 10.0


class Clocked(NamedTuple):
    """Is one replica of each service, whose clocks the test sets, and what they serve."""

    folder: Path
    encoder: str
    retriever: str
    expected: Expected

    def jump(self, off_s: int) -> None:
        """Sets the clocks of both off by so many seconds."""
        (self.folder / "new").write_text(str(off_s))
        os.replace(self.folder / "new", self.folder / "clock")


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clocked]:
    folder = tmp_path_factory.mktemp("clocked")
    (folder / "clock").write_text("0")
    bundle = make_bundle(folder / "bundle", movies=MOVIES)
    publish(folder / "registry", bundle)
    told = {"user_encoder": [f"--store={folder / 'features.sqlite'}"], "retriever": []}
    with contextlib.ExitStack() as stack:
        ports = []
        for service, arguments in told.items():
            words = ["tests.chaos.clocked", str(folder / "clock"), service]
            started = module_process(words, folder, folder / "registry", *arguments)
            ports.append(stack.enter_context(started).port)
        encoder, retriever = (f"127.0.0.1:{port}" for port in ports)
        yield Clocked(folder, encoder, retriever, expect(bundle, MOVIES))


@pytest.fixture
def clocked(processes: Clocked) -> Iterator[Clocked]:
    yield processes
    processes.jump(0)


@pytest.fixture
async def sdk(clocked: Clocked) -> AsyncIterator[AsyncRecommender]:
    async with AsyncRecommender(clocked.encoder, clocked.retriever, deadline_s=DEADLINE_OF_CALLS_S) as made:
        yield made


@pytest.fixture
async def calls(clocked: Clocked) -> AsyncIterator[Stubs]:
    async with grpc.aio.insecure_channel(clocked.encoder) as channel:
        yield stubs(channel)


async def _like_now(calls: Stubs, user_id: str, movie_id: int) -> None:
    """Records a like that the service's own clock dates."""
    request = recording(user_id, Row(movie_id, LIKED, 0, 0))
    assert (await calls.features.RecordEvents(request, timeout=DEADLINE_S)).recorded == 1


async def _encode(calls: Stubs, user_id: str) -> user_encoder_pb2.EncodeResponse:
    request = user_encoder_pb2.EncodeRequest(user_id=user_id, allow_cold_start=True)
    return await calls.users.Encode(request, timeout=DEADLINE_S)


@promise(
    "the services' clocks jump by an hour or a day, and back, under load",
    "every list is right, and no deadline passes early or late. What was recorded before and after counts, whatever "
    "its date",
)
@pytest.mark.parametrize("jump", JUMPS)
async def test_clocks_jump(
    clocked: Clocked, sdk: AsyncRecommender, calls: Stubs, jump: str, happened: Happened
) -> None:
    user_id = f"jumper {jump}"
    await record_people(sdk)
    async with loading(sdk, clocked.expected) as load:
        await _like_now(calls, user_id, FIRST)
        clocked.jump(JUMPS[jump])
        await load.until(RIGHT)
        await _like_now(calls, user_id, SECOND)
        jumped = await _encode(calls, user_id)
        off_s = (await _encode(calls, "")).as_of_ms / 1000 - time.time()
        clocked.jump(0)
        await load.until(RIGHT)
        await _like_now(calls, user_id, THIRD)
        back = await _encode(calls, user_id)
    assert set(load.count()) == {RIGHT}, load.others()
    assert (jumped.degraded, jumped.events_used, seen(jumped)) == (False, 2, [FIRST, SECOND])
    assert (back.degraded, back.events_used, seen(back)) == (False, 3, [FIRST, SECOND, THIRD])
    assert off_s == pytest.approx(JUMPS[jump], abs=DEADLINE_S)
    # Of people whose events are dated ahead of the clock, now is when the last of them was.
    assert jumped.as_of_ms >= jumped.newest_event_ms
    happened(load.summary())


@promise(
    "a person is deleted after the clock jumped ahead and back",
    "all is gone, what was dated ahead as well; such events are refused afterwards, in a sentence",
)
async def test_a_deletion_after_a_jump(clocked: Clocked, calls: Stubs, happened: Happened) -> None:
    clocked.jump(DAY_S)
    await _like_now(calls, "deleted", FIRST)
    clocked.jump(0)
    request = live_features_pb2.DeleteUserRequest(user_id="deleted")
    deleted = await calls.features.DeleteUser(request, timeout=DEADLINE_S)
    assert deleted.existed
    answer = await calls.features.RecordEvents(recording("deleted", Row(FIRST, LIKED, 0, 0)), timeout=DEADLINE_S)
    assert (answer.recorded, "was deleted at" in answer.statuses[0].message) == (0, True)
    ahead_h = (deleted.deleted_at_ms / 1000 - time.time()) / HOUR_S
    happened(f"events of that person are refused for the {ahead_h:.0f} hours that the last one was ahead")


@promise(
    "the clock jumps while the store cannot be read",
    "what is remembered is as old as it is: answers go on from memory, and say its true age",
)
async def test_memory_outlives_a_jump(
    clocked: Clocked, sdk: AsyncRecommender, calls: Stubs, happened: Happened
) -> None:
    await record_people(sdk)
    await sdk.recommend("person-0", k=K)
    ages = []
    with _unreadable(clocked.folder / "features.sqlite"):
        for off_s in (0, DAY_S, -DAY_S, 0):
            clocked.jump(off_s)
            found = await sdk.recommend("person-0", k=K, as_of=AS_OF)
            assert (found.source, found.degraded) == (FeatureSource.STALE, True)
            assert found.movie_ids == clocked.expected.lists["person-0"]
            ages.append(found.features_age_s)
    # Rounded to milliseconds. Of a read a day ago nothing would be remembered.
    assert 0 < ages[0] <= ages[1] <= ages[2] <= ages[3] < 60
    await eventually(lambda: _is_fresh(sdk), PATIENCE_S)
    happened(f"flagged stale, {ages[0]:.3f} to {ages[-1]:.3f} s old, over jumps of a day ahead and back")


async def _is_fresh(sdk: AsyncRecommender) -> bool:
    return not (await sdk.recommend("person-0", k=K, as_of=AS_OF)).degraded


@contextlib.contextmanager
def _unreadable(store: Path) -> Iterator[None]:
    """Takes a table away from a store that others have open."""

    def rename(old: str, new: str) -> None:
        with contextlib.closing(sqlite3.connect(store)) as sql:
            sql.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename("people", "lost")
    try:
        yield
    finally:
        rename("lost", "people")


@promise("the clock jumps a day back before a bundle is published", "both services load it as ever")
async def test_bundles_are_loaded_after_a_jump(
    clocked: Clocked, sdk: AsyncRecommender, tmp_path: Path, happened: Happened
) -> None:
    clocked.jump(-DAY_S)
    revision = make_bundle(tmp_path / "revision", movies=MOVIES, added=1)
    began = time.monotonic()
    await _publish(clocked, sdk, revision)
    happened(f"loaded {time.monotonic() - began:.1f} s after it was published")
    await _publish(clocked, sdk, clocked.expected.bundle)


async def _publish(clocked: Clocked, sdk: AsyncRecommender, bundle: Bundle) -> None:
    """Publishes a revision and waits until both services answer with it."""
    publish(clocked.folder / "registry", bundle, activate=False)

    async def is_loaded() -> bool:
        status = await sdk.status(deadline_s=DEADLINE_S)
        return {one.bundles[0].bundle_id for one in (status.encoder, status.retriever)} == {bundle.id}

    await eventually(is_loaded)


@promise(
    "a caller's clock is an hour or a day off",
    "lists are right. What it dates behind is recorded, what it dates ahead is refused, in a sentence that names the "
    "field and the clock; the next call is none the worse",
)
@pytest.mark.parametrize("jump", JUMPS)
async def test_a_callers_clock_is_off(
    clocked: Clocked, sdk: AsyncRecommender, jump: str, monkeypatch: pytest.MonkeyPatch, happened: Happened
) -> None:
    now_ms = time.time_ns() // 1_000_000
    monkeypatch.setattr("marquee.client.requests.clock_ms", lambda: now_ms + 1000 * JUMPS[jump])
    user_id = f"caller {jump}"
    recorded = await sdk.record(user_id, [Event(FIRST, EventKind.LIKED)])
    if JUMPS[jump] > 0:
        [failure] = recorded.failures
        assert isinstance(failure.error, InvalidRequest)
        assert "time_ms is" in failure.error.message
        assert "ahead of the server's clock" in failure.error.message
        with pytest.raises(UserUnknown):
            await sdk.recommend(user_id, allow_cold_start=False)
    else:
        assert (recorded.recorded, recorded.failures) == (1, ())
        assert FIRST not in (await sdk.recommend(user_id, k=MOVIES, allow_cold_start=False)).movie_ids
    happened("refused" if recorded.failures else "recorded")
