"""Calls of Encode that are there at the same time are encoded together, and each gets what it would get alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee.errors import InvalidRequest, UserUnknown
from marquee.features import RATED, Floats, TowerInput
from marquee.v1 import types_pb2, user_encoder_pb2
from services.user_encoder.checks import Sent
from services.user_encoder.encoding import Account, Ask, Moment
from services.user_encoder.together import MOST, Together
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, columns, encoder
from tests.rigs import publish

AS_OF = 1_700_000_000_000
MOVIES, MAX_HISTORY = 250, 240


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    publish(folder / "registry", make_bundle(folder / "bundle", movies=MOVIES, max_history=MAX_HISTORY))
    return folder / "registry"


@pytest.fixture
async def rig(registry: Path, tmp_path: Path) -> AsyncIterator[EncoderRig]:
    async with encoder(registry, tmp_path / "features.sqlite") as running:
        yield running


@pytest.fixture
def runs(rig: EncoderRig, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Notes the people and the length of each of the tower's runs."""
    shapes: list[tuple[int, ...]] = []
    run = rig.model.run_whole

    def noted(tower: TowerInput) -> Floats:
        shapes.append(tower.rows.shape)
        return run(tower)

    monkeypatch.setattr(rig.model, "run_whole", noted)
    return shapes


def person(number: int, count: int) -> types_pb2.EventColumns:
    movies = (1 + 3 * ((number + at) % MOVIES) for at in range(count))
    return columns(*(Row(movie, RATED, 0.5 + number % 10 / 2, AS_OF - at) for at, movie in enumerate(movies)))


def asking(events: types_pb2.EventColumns) -> Ask:
    return Ask("", Sent(events, AS_OF, "events"), Moment(AS_OF, live=False, allow_cold_start=False))


async def gathered(rig: EncoderRig, people: list[types_pb2.EventColumns]) -> list[Any]:
    together = Together()
    calls = (together.encode(rig.model, asking(events)) for events in people)
    return await asyncio.gather(*calls, return_exceptions=True)


async def alone(rig: EncoderRig, events: types_pb2.EventColumns) -> tuple[Floats, Account]:
    return await Together().encode(rig.model, asking(events))


async def test_calls_that_are_there_together_are_one_run(rig: EncoderRig, runs: list[tuple[int, ...]]) -> None:
    people = [person(number, 1 + number) for number in range(10)]
    found = await gathered(rig, people)
    assert runs == [(10, 10)]
    for (vector, account), events in zip(found, people, strict=True):
        expected, told = await alone(rig, events)
        np.testing.assert_allclose(vector, expected, atol=1e-6)
        assert account == told


async def test_no_more_than_so_many_are_run_together(rig: EncoderRig, runs: list[tuple[int, ...]]) -> None:
    await gathered(rig, [person(number, 3) for number in range(MOST)])
    assert runs == [(MOST, 3)]


async def test_a_long_history_does_not_make_short_ones_long(rig: EncoderRig, runs: list[tuple[int, ...]]) -> None:
    people = [person(1, 10), person(2, 250), person(3, 2), person(4, 200), person(5, 9)]
    found = await gathered(rig, people)
    assert runs == [(2, MAX_HISTORY), (3, 10)]
    for (vector, _), events in zip(found, people, strict=True):
        np.testing.assert_allclose(vector, (await alone(rig, events))[0], atol=1e-6)


async def test_who_fails_fails_alone(rig: EncoderRig) -> None:
    bad = types_pb2.EventColumns(movie_ids=[1, 0], kinds=[types_pb2.EVENT_KIND_LIKED] * 2)
    refused, unknown, (vector, account) = await gathered(rig, [bad, columns(), person(1, 3)])
    assert isinstance(refused, InvalidRequest)
    assert refused.field == "events.movie_ids[1]"
    assert isinstance(unknown, UserUnknown)
    assert account.used == 3
    np.testing.assert_allclose(vector, (await alone(rig, person(1, 3)))[0], atol=1e-6)


async def test_who_gives_up_is_left_out(rig: EncoderRig, runs: list[tuple[int, ...]]) -> None:
    together = Together()
    calls = [asyncio.ensure_future(together.encode(rig.model, asking(person(number, 3)))) for number in range(3)]
    # Once round the loop: they wait, and for each other.
    await asyncio.sleep(0)
    calls[1].cancel()
    found: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError)
    assert (found[0][1].used, found[2][1].used, runs) == (3, 3, [(2, 3)])


async def test_a_tower_that_gains_nothing_by_it_runs_each_at_once(
    rig: EncoderRig, runs: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.model, "gains_by_batches", False)
    await gathered(rig, [person(number, 3) for number in range(3)])
    assert runs == [(1, 3)] * 3


async def test_what_breaks_is_told_to_all_and_to_the_loop(rig: EncoderRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tower: TowerInput) -> Floats:
        raise RuntimeError("no tower")

    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context["exception"]))
    with monkeypatch.context() as patched:
        patched.setattr(rig.model, "run_whole", broken)
        found = await gathered(rig, [person(1, 3), person(2, 3)])
    assert [str(error) for error in found] == ["no tower", "no tower"]
    assert heard == found[:1]
    assert (await alone(rig, person(1, 3)))[1].used == 3


async def test_on_the_wire_everybody_gets_their_own(rig: EncoderRig) -> None:
    people = [person(number, 1 + number % 70) for number in range(100)]
    encode = user_encoder_pb2.EncodeRequest
    requests = [encode(events=events, as_of_ms=AS_OF, request_id=str(at)) for at, events in enumerate(people)]
    answers = await asyncio.gather(*map(rig.users.Encode, requests))
    for at, (answer, events) in enumerate(zip(answers, people, strict=True)):
        vector, account = await alone(rig, events)
        np.testing.assert_allclose(np.frombuffer(answer.vector, "<f4"), vector, atol=1e-6)
        assert (answer.request_id, answer.events_used, answer.seen) == (str(at), account.used, account.seen)
