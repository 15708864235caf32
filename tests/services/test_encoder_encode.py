"""Encode and GetModel over a real socket, with a real bundle and a real store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from marquee.bundle.format import Bundle
from marquee.errors import SpaceNotLoaded, UserUnknown
from marquee.features import CLICKED, LIKED, NO_EVENTS, RATED, RETRACTED, Floats, merge, user_hash
from marquee.v1 import types_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, columns, encoder, events, recording, refused
from tests.rigs import publish

DAY_MS = 86_400_000
AS_OF = 20_000 * DAY_MS
MAX_HISTORY = 5
# The bundle's movies are 1, 4, 7, …; this one it does not know.
UNKNOWN = 2

FIRST, SECOND, THIRD = (
    Row(1, RATED, 4.5, AS_OF - 9 * DAY_MS),
    Row(4, LIKED, 0, AS_OF - DAY_MS),
    Row(7, CLICKED, 0, AS_OF),
)


class World(NamedTuple):
    registry: Path
    active: Bundle
    standby: Bundle


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("encode")
    active = make_bundle(folder / "active", max_history=MAX_HISTORY)
    standby = make_bundle(folder / "standby", max_history=MAX_HISTORY, seed=2)
    publish(folder / "registry", active)
    publish(folder / "registry", standby, activate=False)
    return World(folder / "registry", active, standby)


@pytest.fixture
async def rig(world: World, tmp_path: Path) -> AsyncIterator[EncoderRig]:
    async with encoder(world.registry, tmp_path / "features.sqlite") as running:
        yield running


def asking(
    user_id: str = "", *rows: Row, as_of_ms: int = AS_OF, space: str = "", cold: bool = False
) -> user_encoder_pb2.EncodeRequest:
    return user_encoder_pb2.EncodeRequest(
        user_id=user_id, events=columns(*rows), as_of_ms=as_of_ms, space=space, allow_cold_start=cold
    )


def vector_of(answer: user_encoder_pb2.EncodeResponse) -> Floats:
    return np.frombuffer(answer.vector, "<f4")


def seen_of(answer: user_encoder_pb2.EncodeResponse) -> list[int]:
    return list(np.frombuffer(answer.seen, "<i8").tolist())


def expected(rig: EncoderRig, user_id: str, *rows: Row, as_of_ms: int = AS_OF) -> bytes:
    history = merge(NO_EVENTS, events(*rows), user_hash(user_id)) if rows else NO_EVENTS
    vector, _ = rig.model.encode(history, as_of_ms)
    return vector.astype("<f4").tobytes()


async def test_events_of_the_request_make_the_vector(rig: EncoderRig, world: World) -> None:
    answer = await rig.users.Encode(asking("", FIRST, SECOND, THIRD))
    assert answer.vector == expected(rig, "", FIRST, SECOND, THIRD)
    assert np.linalg.norm(vector_of(answer)) == pytest.approx(1, abs=1e-5)
    assert (answer.space, answer.bundle_id) == (world.active.space, world.active.id)
    assert answer.source == user_encoder_pb2.FEATURE_SOURCE_REQUEST
    assert (answer.events_used, answer.events_unknown, answer.events_truncated) == (3, 0, 0)
    assert (answer.newest_event_ms, answer.as_of_ms) == (AS_OF, AS_OF)
    assert seen_of(answer) == [1, 4, 7]


async def test_stored_events_make_the_same_vector_as_sent_ones(rig: EncoderRig) -> None:
    await rig.features.RecordEvents(recording("ada", FIRST, SECOND))
    stored, sent = await rig.users.Encode(asking("ada")), await rig.users.Encode(asking("bob", FIRST, SECOND))
    assert stored.source == user_encoder_pb2.FEATURE_SOURCE_STORE
    assert stored.vector == sent.vector == expected(rig, "ada", FIRST, SECOND)
    assert seen_of(stored) == [1, 4]


async def test_stored_and_sent_events_are_merged(rig: EncoderRig) -> None:
    await rig.features.RecordEvents(recording("ada", FIRST))
    again = FIRST._replace(value=1.0)
    answer = await rig.users.Encode(asking("ada", SECOND, again))
    assert answer.vector == expected(rig, "ada", again, SECOND)
    assert answer.source == user_encoder_pb2.FEATURE_SOURCE_STORE
    assert answer.events_used == 2


async def test_the_order_of_the_request_does_not_matter(rig: EncoderRig) -> None:
    one, other = asking("", FIRST, SECOND, THIRD), asking("", THIRD, FIRST, SECOND)
    assert (await rig.users.Encode(one)).vector == (await rig.users.Encode(other)).vector


async def test_columns_may_be_left_out(rig: EncoderRig) -> None:
    request = user_encoder_pb2.EncodeRequest(
        events=types_pb2.EventColumns(movie_ids=[1, 4], kinds=[types_pb2.EVENT_KIND_LIKED] * 2)
    )
    before = time.time_ns() // 1_000_000
    answer = await rig.users.Encode(request)
    assert before <= answer.newest_event_ms == answer.as_of_ms <= time.time_ns() // 1_000_000
    assert answer.events_used == 2


async def test_a_cold_start_is_asked_for_and_told(rig: EncoderRig) -> None:
    for request in (asking("nobody", cold=True), asking("", cold=True)):
        answer = await rig.users.Encode(request)
        assert answer.vector == expected(rig, "")
        assert answer.source == user_encoder_pb2.FEATURE_SOURCE_COLD_START
        assert (answer.events_used, answer.newest_event_ms, answer.seen) == (0, 0, b"")


async def test_somebody_unknown_is_not_found(rig: EncoderRig) -> None:
    error = await refused(rig.users.Encode(asking("nobody")))
    assert isinstance(error, UserUnknown)
    assert error.message.startswith("user 'nobody' has no stored events")
    assert "allow_cold_start" in error.message


async def test_nobody_with_nothing_is_not_found(rig: EncoderRig) -> None:
    error = await refused(rig.users.Encode(user_encoder_pb2.EncodeRequest()))
    assert isinstance(error, UserUnknown)
    assert error.message.startswith("the request names no user")


async def test_movies_that_the_tower_does_not_know_count_as_seen(rig: EncoderRig) -> None:
    only = await rig.users.Encode(asking("", Row(UNKNOWN, LIKED, 0, AS_OF)))
    assert only.source == user_encoder_pb2.FEATURE_SOURCE_COLD_START
    assert only.vector == expected(rig, "")
    both = await rig.users.Encode(asking("", Row(UNKNOWN, LIKED, 0, AS_OF), FIRST))
    assert both.source == user_encoder_pb2.FEATURE_SOURCE_REQUEST
    assert (both.events_used, both.events_unknown, seen_of(both)) == (1, 1, [1, UNKNOWN])
    assert both.vector == expected(rig, "", FIRST)


async def test_the_newest_events_are_read_and_all_are_seen(rig: EncoderRig) -> None:
    rows = [Row(1 + 3 * number, LIKED, 0, AS_OF - number) for number in range(MAX_HISTORY + 2)]
    answer = await rig.users.Encode(asking("", *rows))
    assert (answer.events_used, answer.events_truncated, answer.newest_event_ms) == (MAX_HISTORY, 2, AS_OF)
    assert seen_of(answer) == [row.movie for row in rows]


async def test_events_after_as_of_are_not_read_but_seen(rig: EncoderRig) -> None:
    answer = await rig.users.Encode(asking("", FIRST, SECOND, as_of_ms=SECOND.time - 1))
    assert answer.vector == expected(rig, "", FIRST, as_of_ms=SECOND.time - 1)
    assert (answer.events_used, answer.newest_event_ms, seen_of(answer)) == (1, FIRST.time, [1, 4])


async def test_an_event_that_a_faster_clock_dated_ahead_is_read_at_once(rig: EncoderRig) -> None:
    ahead = time.time_ns() // 1_000_000 + 120_000
    answer = await rig.users.Encode(asking("", FIRST, SECOND._replace(time=ahead), as_of_ms=0))
    assert (answer.events_used, answer.newest_event_ms, answer.as_of_ms) == (2, ahead, ahead)


async def test_ages_are_measured_from_as_of(rig: EncoderRig) -> None:
    vectors = [
        vector_of(await rig.users.Encode(asking("", FIRST, SECOND, as_of_ms=AS_OF + years * 365 * DAY_MS)))
        for years in (0, 3)
    ]
    assert vectors[0] @ vectors[1] < 1 - 1e-6


async def test_a_sent_retraction_counts_for_its_answer_only(rig: EncoderRig) -> None:
    await rig.features.RecordEvents(recording("ada", FIRST, SECOND))
    without = await rig.users.Encode(asking("ada", Row(FIRST.movie, RETRACTED, 0, AS_OF)))
    assert without.vector == expected(rig, "ada", SECOND)
    assert seen_of(without) == [SECOND.movie]
    assert (await rig.users.Encode(asking("ada"))).vector == expected(rig, "ada", FIRST, SECOND)


async def test_who_took_everything_back_is_unknown(rig: EncoderRig) -> None:
    await rig.features.RecordEvents(recording("ada", FIRST, FIRST._replace(kind=RETRACTED, value=0)))
    assert isinstance(await refused(rig.users.Encode(asking("ada"))), UserUnknown)
    answer = await rig.users.Encode(asking("ada", SECOND))
    assert answer.source == user_encoder_pb2.FEATURE_SOURCE_REQUEST


async def test_the_standby_answers_who_names_its_space(rig: EncoderRig, world: World) -> None:
    active = await rig.users.Encode(asking("", FIRST, space=world.active.space))
    standby = await rig.users.Encode(asking("", FIRST, space=world.standby.space))
    assert active.bundle_id == world.active.id
    assert (standby.space, standby.bundle_id) == (world.standby.space, world.standby.id)
    assert active.vector != standby.vector


async def test_a_space_that_is_not_loaded_is_refused_with_the_loaded_ones(rig: EncoderRig, world: World) -> None:
    error = await refused(rig.users.Encode(asking("", FIRST, space="f" * 64)))
    assert isinstance(error, SpaceNotLoaded)
    assert error.metadata["loaded"].split(",") == [world.active.space, world.standby.space]


async def test_request_ids_are_echoed_or_made(rig: EncoderRig) -> None:
    request = asking("", FIRST)
    first, second = await rig.users.Encode(request), await rig.users.Encode(request)
    assert first.request_id != second.request_id
    assert len(first.request_id) == 32
    request.request_id = "é" * 64
    assert (await rig.users.Encode(request)).request_id == "é" * 64


async def test_get_model_says_what_is_loaded(rig: EncoderRig, world: World) -> None:
    answer = await rig.users.GetModel(user_encoder_pb2.GetModelRequest())
    active, standby = answer.state.bundles
    assert (active.role, standby.role) == (types_pb2.BUNDLE_ROLE_ACTIVE, types_pb2.BUNDLE_ROLE_STANDBY)
    assert (active.bundle_id, active.space, active.dimension) == (world.active.id, world.active.space, 16)
    assert active.feature_spec.max_history == MAX_HISTORY
    assert active.tower == "pooled"
    assert active.metrics[0].name == "ndcg@10"
    assert not active.HasField("index")
    assert answer.state.reload_error == ""
    assert len(answer.request_id) == 32
