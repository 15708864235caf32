"""Calls at a fixed rate through the SDK while something is broken, and checks every answer against what it must be.

Half of what the rows of docs/reliability.md say is counted here: answers, failures by class, lists that are not the
right ones, likes that were confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, NamedTuple

import numpy as np

from marquee.bundle.format import ITEM_VECTORS, MOVIE_IDS, Bundle
from marquee.client import AsyncRecommender, Event, EventKind, FeatureSource, MarqueeError, Recommendations
from marquee.engine.encoder import Encoder
from tests.bundles import movie_record
from tests.encoder_rigs import Row, events
from tests.rigs import DEADLINE_S

K = 5
PEOPLE = 8
AS_OF = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_HOUR_MS = 3_600_000
# The SDK's default.
DEADLINE_OF_CALLS_S = 1.0
# How much later a busy machine may notice it: what is later hung.
_LATE_S = 2.0

# What may come of a call beside an error: the list that the person must get, the most watched, or one that is flagged
# because nothing was known of the person.
RIGHT, TOP, BLIND, WRONG = "right", "most watched", "blind", "wrong"


class Outcome(NamedTuple):
    """Is what came of a call: one of the four above, or the error's class; `about` is its text.

    Times are of the monotonic clock.
    """

    began: float
    ended: float
    said: str
    about: str = ""


class Expected(NamedTuple):
    """Holds what each person must get, computed without a service, and what everybody gets without the encoder."""

    bundle: Bundle
    lists: dict[str, tuple[int, ...]]
    top: tuple[int, ...]
    known: frozenset[int]


def history_of(number: int) -> list[Row]:
    """Makes up what a person likes, oldest first."""
    at_ms = round(AS_OF.timestamp() * 1000) - 10 * _HOUR_MS
    return [
        Row(movie_record((5 * number + 3 * at) % 40).movie_id, EventKind.LIKED.value, 0, at_ms + at * _HOUR_MS)
        for at in range(4)
    ]


def expect(bundle: Bundle, movies: int) -> Expected:
    """Computes the answers by comparing with every vector."""
    encoder = Encoder(bundle)
    ids_N, vectors_ND = np.load(bundle.file(MOVIE_IDS)), np.load(bundle.file(ITEM_VECTORS))
    lists = {}
    for number in range(PEOPLE):
        history = events(*history_of(number))
        scores_N = np.round(vectors_ND @ encoder.encode(history, round(AS_OF.timestamp() * 1000))[0], 6)
        scores_N[np.isin(ids_N, history.movie_ids)] = -2
        lists[f"person-{number}"] = tuple(ids_N[np.lexsort((ids_N, -scores_N))][:K].tolist())
    rated = sorted(
        (movie_record(number) for number in range(movies)), key=lambda one: (-one.rating_count, one.movie_id)
    )
    return Expected(bundle, lists, tuple(one.movie_id for one in rated[:K]), frozenset(ids_N.tolist()))


async def record_people(sdk: AsyncRecommender) -> None:
    """Records everybody's history."""
    for number in range(PEOPLE):
        told = [
            Event(row.movie, EventKind.LIKED, time=dt.datetime.fromtimestamp(row.time / 1000, dt.UTC))
            for row in history_of(number)
        ]
        assert (await sdk.record(f"person-{number}", told, deadline_s=DEADLINE_S)).recorded == len(told)


class Load:
    """Recommends to people in turn at a fixed rate, answered or not; some calls record a like of a made-up fan's.

    `confirmed` are the likes that were acknowledged, `refused` counts the classes of the errors of those that were not.
    `bugs` are errors of any other kind than the SDK's.
    """

    def __init__(self, sdk: AsyncRecommender, expected: Expected, rate: float, likes: bool) -> None:
        self._sdk, self._expected = sdk, expected
        self._rate, self._likes = rate, likes
        self._calls: set[asyncio.Task[None]] = set()
        self.outcomes: list[Outcome] = []
        self.confirmed: list[tuple[str, int]] = []
        self.refused: Counter[str] = Counter()
        self.bugs: list[BaseException] = []
        # Nobody else's, so that what is confirmed here was not in the store before.
        self._fan = f"fan-{time.monotonic_ns()}"

    async def run(self) -> None:
        """Begins calls until cancelled."""
        due = time.monotonic()
        for number in itertools.count():
            due += 1 / self._rate
            await asyncio.sleep(due - time.monotonic())
            self._begin(self._recommend(f"person-{number % PEOPLE}"))
            if self._likes and number % 4 == 0:
                self._begin(self._like(f"{self._fan}-{number // 160}", movie_record(number // 4 % 40).movie_id))

    async def burst(self) -> None:
        """Begins many calls at once, and returns when they are on their way."""
        for person in 3 * list(self._expected.lists):
            self._begin(self._recommend(person))
        # Any of them takes longer than that.
        await asyncio.sleep(0.002)

    def _begin(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._end)

    def _end(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if error := call.exception():
            self.bugs.append(error)

    async def _recommend(self, person: str) -> None:
        began = time.monotonic()
        try:
            said, about = self._judge(person, await self._sdk.recommend(person, k=K, as_of=AS_OF))
        except MarqueeError as error:
            said, about = type(error).__name__, error.message
        self.outcomes.append(Outcome(began, time.monotonic(), said, about))

    def _judge(self, person: str, found: Recommendations) -> tuple[str, str]:
        ids, wrong = found.movie_ids, (WRONG, f"{person}: {found!r}")
        if found.source is FeatureSource.TOP_MOVIES:
            return (TOP, str(found.away)) if found.degraded and ids == self._expected.top else wrong
        if (found.space, found.bundle_id) != (self._expected.bundle.space, self._expected.bundle.id):
            return wrong
        if found.degraded and found.source is not FeatureSource.STALE:
            return (BLIND, "") if len(set(ids)) == K and self._expected.known.issuperset(ids) else wrong
        return (RIGHT, "") if ids == self._expected.lists[person] else wrong

    async def _like(self, fan: str, movie_id: int) -> None:
        try:
            await self._sdk.like(fan, movie_id)
        except MarqueeError as error:
            self.refused[type(error).__name__] += 1
        else:
            self.confirmed.append((fan, movie_id))

    async def finish(self) -> None:
        """Waits for the calls in flight."""
        while self._calls:
            await asyncio.wait(list(self._calls))

    async def until(self, *said: str, times: int = 3 * PEOPLE) -> float:
        """Waits until so many calls in a row that begin from now on have come to one of these.

        Returns how many seconds passed from now to the beginning of the first of the row.
        """
        now = time.monotonic()
        async with asyncio.timeout(DEADLINE_S):
            while True:
                row = list(itertools.takewhile(lambda one: one.said in said, self._newest(now)))
                if len(row) >= times:
                    return row[-1].began - now
                await asyncio.sleep(0.02)

    def _newest(self, since: float) -> Sequence[Outcome]:
        """Lists the calls that began since then and have ended, the one that began last first."""
        return sorted((one for one in self.outcomes if one.began >= since), key=lambda one: -one.began)

    def count(self) -> Counter[str]:
        """Counts what came of the calls."""
        return Counter(one.said for one in self.outcomes)

    def others(self) -> list[Outcome]:
        """Lists the calls that brought another than the right list, or none."""
        return [one for one in self.outcomes if one.said != RIGHT]

    def summary(self) -> str:
        """Says it all in a few words, with figures."""
        counts = self.count()
        other = ", ".join(f"{times} {said}" for said, times in sorted(counts.items()) if said != RIGHT)
        slowest = max(one.ended - one.began for one in self.outcomes)
        return f"{counts.total()} calls: {counts[RIGHT]} right{', ' + other if other else ''}; slowest {slowest:.2f} s"


@contextlib.asynccontextmanager
async def loading(
    sdk: AsyncRecommender, expected: Expected, *, rate: float = 40, likes: bool = False
) -> AsyncIterator[Load]:
    """Loads what answers rightly now, to the end of the block; no list is wrong, and no call outlives its deadline."""
    for person in expected.lists:
        # A worker that just started may take longer for its first calls.
        await sdk.recommend(person, k=K, deadline_s=DEADLINE_S)
    load = Load(sdk, expected, rate, likes)
    running = asyncio.ensure_future(load.run())
    try:
        await load.until(RIGHT, times=PEOPLE)
        yield load
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await load.finish()
    assert not load.bugs
    assert not [one for one in load.outcomes if one.said == WRONG]
    assert not [one for one in load.outcomes if one.ended - one.began > DEADLINE_OF_CALLS_S + _LATE_S]


async def check_confirmed(sdk: AsyncRecommender, load: Load) -> None:
    """Checks that every like that was confirmed is in the store."""
    kept = {
        (fan, event.movie_id)
        for fan in {fan for fan, _ in load.confirmed}
        async for event in sdk.history(fan, deadline_s=DEADLINE_S)
    }
    assert kept.issuperset(load.confirmed)
