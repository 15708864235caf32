"""Explain: what each event does for each movie's score, held against encoding the history without it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from marquee.bundle.format import ITEM_VECTORS, MOVIE_IDS, Bundle
from marquee.engine.encoder import Encoder
from marquee.errors import InvalidRequest, SpaceNotLoaded, UserUnknown
from marquee.features import LIKED, NO_EVENTS, NOT_INTERESTED, RATED, Floats, TowerInput, merge, user_hash
from marquee.v1 import user_encoder_pb2
from services.user_encoder import explaining as explaining_module
from services.user_encoder.encoding import Moment, Person, prepare
from services.user_encoder.explaining import Explainer, Explanation
from services.user_encoder.ladder import NOTHING
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, columns, encoder, events, recording, refused, rows_of
from tests.rigs import DEADLINE_S, publish

DAY_MS = 86_400_000
AS_OF = 20_000 * DAY_MS
MAX_HISTORY, MOVIES = 60, 150
# The bundle's movies are 1, 4, 7, …; these it does not know.
STRANGERS = [2, 10**15]

ADA = [Row(1, RATED, 5, AS_OF - 9 * DAY_MS), Row(4, NOT_INTERESTED, 0, AS_OF - DAY_MS), Row(7, LIKED, 0, AS_OF - 5)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle, Bundle]:
    folder = tmp_path_factory.mktemp("explain")
    active = make_bundle(folder / "active", movies=MOVIES, max_history=MAX_HISTORY)
    standby = make_bundle(folder / "standby", movies=MOVIES, max_history=MAX_HISTORY, seed=2)
    publish(folder / "registry", active)
    publish(folder / "registry", standby, activate=False)
    return folder / "registry", active, standby


@pytest.fixture
async def rig(bundles: tuple[Path, Bundle, Bundle], tmp_path: Path) -> AsyncIterator[EncoderRig]:
    async with encoder(bundles[0], tmp_path / "features.sqlite") as running:
        yield running


def asking(rows: list[Row], movie_ids: list[int], **more: object) -> user_encoder_pb2.ExplainRequest:
    known: dict[str, object] = {"as_of_ms": AS_OF}
    return user_encoder_pb2.ExplainRequest(
        events=columns(*rows),
        movie_ids=movie_ids,
        **(known | more),  # type: ignore[arg-type]
    )


def random_rows(seed: int, known: int) -> list[Row]:
    """Draws events of so many known movies, and a few of unknown ones."""
    rng = np.random.default_rng(seed)
    movies = [*(1 + 3 * rng.choice(MOVIES, known, replace=False)), *(2 + 3 * rng.choice(MOVIES, 5, replace=False))]
    ages_ms = rng.choice(400 * DAY_MS, len(movies), replace=False)
    stars = rng.choice([0.5, 1.5, 4.0, 5.0], len(movies))
    drawn = zip(movies, stars, ages_ms, strict=True)
    return [Row(int(movie), RATED, float(star), AS_OF - int(age_ms)) for movie, star, age_ms in drawn]


def score(model: Encoder, bundle: Bundle, history: list[Row], movie_ids: list[int]) -> Floats:
    """Scores movies the plain way: the vector of a history against the bundle's rows."""
    held = merge(NO_EVENTS, events(*history), user_hash("")) if history else NO_EVENTS
    at = [np.asarray(bundle.array(MOVIE_IDS)).tolist().index(movie) for movie in movie_ids]
    scores: Floats = np.asarray(bundle.array(ITEM_VECTORS), np.float32)[at] @ model.encode(held, AS_OF)[0]
    return scores


def table_of(answer: user_encoder_pb2.ExplainResponse) -> Floats:
    return np.frombuffer(answer.contributions, "<f4").reshape(len(answer.movie_ids), len(answer.events.movie_ids))


# One known event, fewer than are read, as many, one more and many more.
@pytest.mark.parametrize("count", [1, 2, 9, MAX_HISTORY, MAX_HISTORY + 1, 140])
async def test_a_contribution_is_the_score_less_the_score_without_the_event(
    rig: EncoderRig, bundles: tuple[Path, Bundle, Bundle], count: int
) -> None:
    history, movie_ids = random_rows(count, count), [4, 1, 148, 40]
    answer = await rig.users.Explain(asking(history, movie_ids, max_events=1000))
    whole = score(rig.model, bundles[1], history, movie_ids)
    np.testing.assert_allclose(np.frombuffer(answer.scores, "<f4"), whole, atol=1e-6)
    left_out = rows_of(answer.events)
    assert len(left_out) == answer.events_used
    assert [row.time for row in left_out] == sorted((row.time for row in left_out), reverse=True)
    for out, contribution in zip(left_out, table_of(answer).T, strict=True):
        rest = [row for row in history if row != out]
        np.testing.assert_allclose(contribution, whole - score(rig.model, bundles[1], rest, movie_ids), atol=2e-6)
    assert np.abs(table_of(answer)).max() > 1e-3


async def test_the_newest_50_are_left_out_unless_asked_for_others(rig: EncoderRig) -> None:
    history = [Row(1 + 3 * at, LIKED, 0, AS_OF - at) for at in range(80)]
    usual = await rig.users.Explain(asking(history, [1]))
    few = await rig.users.Explain(asking(history, [1], max_events=3))
    assert (len(usual.events.movie_ids), usual.events_used) == (50, MAX_HISTORY)
    assert rows_of(few.events) == rows_of(usual.events)[:3] == history[:3]
    np.testing.assert_allclose(table_of(few), table_of(usual)[:, :3], atol=1e-6)


async def test_stored_events_are_explained_and_the_answer_says_of_what(
    rig: EncoderRig, bundles: tuple[Path, Bundle, Bundle]
) -> None:
    await rig.features.RecordEvents(recording("ada", *ADA))
    answer = await rig.users.Explain(asking([], [1, 4, 7], user_id="ada", request_id="why"))
    assert rows_of(answer.events) == ADA[::-1]
    assert (answer.space, answer.bundle_id, answer.request_id) == (bundles[1].space, bundles[1].id, "why")
    assert (answer.source, answer.as_of_ms) == (user_encoder_pb2.FEATURE_SOURCE_STORE, AS_OF)
    # Its own five stars speak for movie 1, and that it was not wanted speaks against movie 4.
    assert table_of(answer)[0, 2] > 0 > table_of(answer)[1, 1]


async def test_movies_that_the_space_does_not_know_are_listed(rig: EncoderRig) -> None:
    answer = await rig.users.Explain(asking(ADA, [STRANGERS[0], 7, STRANGERS[1], 1]))
    assert (list(answer.movie_ids), list(answer.unknown_movie_ids)) == ([7, 1], STRANGERS)
    assert table_of(answer).shape == (2, 3)
    nothing = await rig.users.Explain(asking(ADA, STRANGERS))
    assert (nothing.scores, nothing.contributions, len(nothing.events.movie_ids)) == (b"", b"", 3)


async def test_events_of_unknown_movies_and_of_later_are_not_among_those_left_out(rig: EncoderRig) -> None:
    stranger, later = Row(STRANGERS[0], LIKED, 0, AS_OF - 1), Row(10, LIKED, 0, AS_OF + 1)
    answer = await rig.users.Explain(asking([*ADA, stranger, later], [1]))
    assert rows_of(answer.events) == ADA[::-1]
    blind = await rig.users.Explain(asking([stranger], [1]))
    assert (blind.source, blind.events_used) == (user_encoder_pb2.FEATURE_SOURCE_COLD_START, 0)
    assert (len(blind.scores), blind.contributions) == (4, b"")


async def test_another_space_has_other_reasons(rig: EncoderRig, bundles: tuple[Path, Bundle, Bundle]) -> None:
    _, active, standby = bundles
    one, other = [await rig.users.Explain(asking(ADA, [1, 4], space=each.space)) for each in (active, standby)]
    assert (one.space, other.space) == (active.space, standby.space)
    model = rig.spaces.get(standby.space).model
    np.testing.assert_allclose(np.frombuffer(other.scores, "<f4"), score(model, standby, ADA, [1, 4]), atol=1e-6)
    assert one.contributions != other.contributions


async def test_nobody_and_unknown_spaces_are_refused(rig: EncoderRig) -> None:
    assert isinstance(await refused(rig.users.Explain(asking([], [1], user_id="nobody"))), UserUnknown)
    assert isinstance(await refused(rig.users.Explain(asking(ADA, [1], space="mars"))), SpaceNotLoaded)


REFUSED = {
    "no movies": ({"movie_ids": []}, "movie_ids", "has 0 entries; send 1 to 100"),
    "101 movies": ({"movie_ids": list(range(1, 102))}, "movie_ids", "has 101 entries; send 1 to 100"),
    "movie 0": ({"movie_ids": [1, 0]}, "movie_ids[1]", "is 0; movie ids are positive"),
    "negative movie": ({"movie_ids": [-3]}, "movie_ids[0]", "is -3; movie ids are positive"),
    "a movie twice": ({"movie_ids": [1, 4, 1]}, "movie_ids[2]", "is 1 as movie_ids[0] is; send each movie once"),
    "negative count": ({"max_events": -1}, "max_events", "send 1 to 1,000, or 0 for 50"),
    "1,001 events": ({"max_events": 1001}, "max_events", "is 1001; send 1 to 1,000"),
    "bad moment": ({"as_of_ms": -1}, "as_of_ms", "is -1"),
    "bad person": ({"user_id": "a\tb"}, "user_id", "has a control character"),
    "bad event": ({"rows": [Row(0, LIKED, 0, 1)]}, "events.movie_ids[0]", "is 0; movie ids are positive"),
    "bad request id": ({"request_id": "a" * 129}, "request_id", "at most 128"),
}


@pytest.mark.parametrize(("changes", "field", "says"), REFUSED.values(), ids=REFUSED)
async def test_explain_refuses(rig: EncoderRig, changes: dict[str, object], field: str, says: str) -> None:
    good: dict[str, object] = {"rows": ADA, "movie_ids": [1]}
    error = await refused(rig.users.Explain(asking(**(good | changes))))  # type: ignore[arg-type]
    assert isinstance(error, InvalidRequest)
    assert (error.field, says in error.message) == (field, True), error.message


class Held:
    """Holds the explainer's tower runs until `go`, and notes the size of each; other runs go through."""

    def __init__(self, model: Encoder) -> None:
        self._run = model.run_whole
        self.entered, self.go = threading.Event(), threading.Event()
        self.runs: list[int] = []
        self.inside = self.most = 0

    def __call__(self, tower: TowerInput) -> Floats:
        if not threading.current_thread().name.startswith("explainer"):
            return self._run(tower)
        self.runs.append(len(tower.rows))
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.entered.set()
        assert self.go.wait(DEADLINE_S)
        self.inside -= 1
        return self._run(tower)


@pytest.fixture
def held(rig: EncoderRig, monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held(rig.model)
    monkeypatch.setattr(rig.model, "run_whole", held)
    return held


async def explaining(rig: EncoderRig, held: Held, rows: list[Row]) -> asyncio.Task[user_encoder_pb2.ExplainResponse]:
    """Starts a call and waits until its first run has begun."""

    async def call() -> user_encoder_pb2.ExplainResponse:
        return await rig.users.Explain(asking(rows, [1]))

    started = asyncio.ensure_future(call())
    assert await asyncio.to_thread(held.entered.wait, DEADLINE_S)
    return started


async def test_one_call_at_a_time_and_others_are_answered_meanwhile(rig: EncoderRig, held: Held) -> None:
    first = await explaining(rig, held, ADA)
    second = await explaining(rig, held, ADA[:2])
    encoded = await rig.users.Encode(user_encoder_pb2.EncodeRequest(events=columns(*ADA), as_of_ms=AS_OF))
    assert (encoded.events_used, first.done(), second.done(), held.runs) == (3, False, False, [1])
    held.go.set()
    assert [(await call).events_used for call in (first, second)] == [3, 2]
    assert (held.runs, held.most) == ([1, 3, 1, 2], 1)


async def test_a_call_waits_no_longer_than_its_deadline(rig: EncoderRig, held: Held) -> None:
    first = await explaining(rig, held, ADA)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await rig.users.Explain(asking(ADA[:2], [1]), timeout=0.2)
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    held.go.set()
    assert (await first).events_used == 3
    assert (await rig.users.Explain(asking(ADA[:1], [1]))).events_used == 1
    assert held.runs == [1, 3, 1, 1]


async def test_a_caller_that_gives_up_ends_after_the_run_that_is_going_on(rig: EncoderRig, held: Held) -> None:
    # Not on the wire: when a server hears of it is up to the sockets.
    moment = Moment(AS_OF, live=False, allow_cold_start=False)
    explainer, movie_ids = Explainer(), np.array([1], np.int64)

    def explain(rows: list[Row]) -> asyncio.Task[Explanation]:
        prepared = prepare(rig.model, Person("", events(*rows)), NOTHING, moment)
        return asyncio.create_task(explainer.explain(rig.model, prepared, movie_ids, 50))

    first, second = explain(ADA), explain(ADA[:2])
    assert await asyncio.to_thread(held.entered.wait, DEADLINE_S)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    held.go.set()
    assert (await second).events.size == 2
    assert (held.runs, held.most) == ([1, 1, 2], 1)


async def test_50_events_are_one_run_and_more_are_runs_of_bounded_size(
    rig: EncoderRig, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.go.set()
    history = random_rows(7, 140)
    whole = await rig.users.Explain(asking(history, [1, 4], max_events=1000))
    assert whole.events_used == MAX_HISTORY
    # So little that no run would hold a person.
    monkeypatch.setattr(explaining_module, "_RUN_FLOATS", 1)
    cut = await rig.users.Explain(asking(history, [1, 4], max_events=1000))
    await rig.users.Explain(asking(history, [1]))
    assert held.runs == [1, MAX_HISTORY, 1, 50, MAX_HISTORY - 50, 1, 50]
    np.testing.assert_allclose(table_of(cut), table_of(whole), atol=1e-6)
