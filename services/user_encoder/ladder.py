"""The feature store as the encoder uses it: a read that fails is answered from memory, or from nothing, and says so.

Fresh from the store, then the last known, then what the request brings, then the cold start: `look_up` goes down the
first two steps and `encoding` the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from marquee.errors import DeadlineExceeded, StoreUnavailable
from marquee.features import NO_EVENTS, Events
from services.common.breaker import Breaker
from services.common.deadlines import time_left
from services.user_encoder.last_known import LastKnown
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.base import MEANWHILE, FeatureStore, ScanPage, UserWrite, Written

T = TypeVar("T")

# A read gets this part of what is left of its call's deadline; the rest is for what comes after it.
_PART_OF_DEADLINE = 0.5
# A write, or a page of everybody, gets this part: after it comes hardly more than the answer.
_MOST_OF_DEADLINE = 0.9
# A store that a caller did not wait for as long as this has not failed.
_FAIR_WAIT_S = 0.02
# People whom a store that does not wait reads before other calls get their turn: about a millisecond.
_SLICE = 64


class Known(NamedTuple):
    """Holds what is known of a person's stored events.

    `age_ms`: how long ago they were read, 0 being now. `degraded`: the store could not be read; they are from memory,
    or nothing is known.
    """

    events: Events
    age_ms: int = 0
    degraded: bool = False


NOTHING = Known(NO_EVENTS)
_BLIND = Known(NO_EVENTS, degraded=True)


class Ladder:
    """Is a FeatureStore on top of another, with a memory of its own for when that one fails.

    As a FeatureStore it fails like one, but a read never takes longer than the setting `store_timeout_s`, and nothing
    longer than the call that runs has time left: then it raises DeadlineExceeded. `look_up` and `look_up_many` never
    fail but by that. Belongs to one event loop.
    """

    def __init__(self, store: FeatureStore, settings: UserEncoderSettings) -> None:
        self.kind, self.waits, self.digest = store.kind, store.waits, store.digest
        self._store = store
        self._timeout_s = settings.store_timeout_s
        self.last_known = LastKnown(
            store.digest,
            max_bytes=settings.store_cache_mb << 20,
            max_age_s=settings.store_stale_s,
            longest_read_s=settings.store_timeout_s + 1.0,
        )
        self.breaker = Breaker("the feature store", MEANWHILE)
        self.stale_answers = self.blind_answers = self.refused_writes = 0

    async def look_up(self, user_id: str) -> Known:
        """Reads a person's history, or recalls it."""
        try:
            return Known(await self.read(user_id))
        except StoreUnavailable:
            return self._recall(user_id)

    async def look_up_many(self, user_ids: Sequence[str]) -> list[Known]:
        """Reads or recalls several people's histories, in their order."""
        try:
            found = await self.read_many(user_ids)
        except StoreUnavailable:
            return [self._recall(user_id) for user_id in user_ids]
        return [
            self._recall(user_id) if isinstance(one, StoreUnavailable) else Known(one)
            for user_id, one in zip(user_ids, found, strict=True)
        ]

    def _recall(self, user_id: str) -> Known:
        now = time.monotonic()
        recalled = self.last_known.get(user_id, now)
        if recalled is None:
            return _BLIND
        history, read_at = recalled
        return Known(history, max(1, round((now - read_at) * 1000)), degraded=True)

    def count_degraded(self, *, stale: bool) -> None:
        """Counts an answer that was made without the store: from memory, or from what is left."""
        if stale:
            self.stale_answers += 1
        else:
            self.blind_answers += 1

    async def read(self, user_id: str) -> Events:
        """Reads a person's history, with its retractions; empty where there is none."""
        left_s, began = time_left(), self._begin()
        history = await self._told(self._store.read(user_id), left_s)
        self.last_known.put(user_id, history, began)
        return history

    async def read_many(self, user_ids: Sequence[str]) -> list[Events | StoreUnavailable]:
        """Reads several people's histories, in their order; says which could not be read where others could."""
        left_s, began = time_left(), self._begin()
        found = await self._told(self._store.read_many(user_ids) if self.waits else self._read_slices(user_ids), left_s)
        for user_id, one in zip(user_ids, found, strict=True):
            if isinstance(one, StoreUnavailable):
                self.breaker.last_error = one.message
            else:
                self.last_known.put(user_id, one, began)
        return found

    async def _read_slices(self, user_ids: Sequence[str]) -> list[Events | StoreUnavailable]:
        found: list[Events | StoreUnavailable] = []
        for start in range(0, len(user_ids), _SLICE):
            found += await self._store.read_many(user_ids[start : start + _SLICE])
            await asyncio.sleep(0)
        return found

    def _begin(self) -> float:
        now = time.monotonic()
        if not self.breaker.lets_through(now):
            raise StoreUnavailable(
                f"{self.breaker.last_error}; it is asked again in a moment: send the call again then"
            )
        return now

    async def _told(self, reading: Awaitable[T], left_s: float | None) -> T:
        """Waits for a read as long as it may take, and tells the breaker how it went."""
        try:
            found = await (self._in_time(reading, left_s) if self.waits else reading)
        except _Impatient:
            raise
        except StoreUnavailable as error:
            self.breaker.failed(error.message, time.monotonic())
            raise
        self.breaker.succeeded()
        return found

    async def _in_time(self, reading: Awaitable[T], left_s: float | None) -> T:
        bound_s = self._timeout_s if left_s is None else min(self._timeout_s, left_s * _PART_OF_DEADLINE)
        try:
            async with asyncio.timeout(bound_s):
                return await reading
        except TimeoutError:
            failure = StoreUnavailable if bound_s >= min(self._timeout_s, _FAIR_WAIT_S) else _Impatient
            raise failure(
                f"the feature store ({self.kind}) did not answer within {bound_s:.3g} s; see that it runs, can be "
                "reached and is not overloaded"
            ) from None

    async def write(self, writes: Sequence[UserWrite]) -> list[Written | StoreUnavailable]:
        """Adds events; says for each write what became of it. What was added is remembered, too."""
        left_s = time_left()
        try:
            results = await self._before_the_end(self._store.write(writes), left_s, _MAY_STILL)
        except StoreUnavailable:
            self.refused_writes += sum(write.events.size for write in writes)
            raise
        now = time.monotonic()
        for write, result in zip(writes, results, strict=True):
            if isinstance(result, StoreUnavailable):
                self.refused_writes += write.events.size
            elif result.deleted_at_ms:
                # The store may have refused some of these events: it alone knows what is left.
                self.last_known.forget_person(write.user_id, now)
            else:
                self.last_known.record(write, now)
        return results

    async def delete(self, user_id: str, at_ms: int) -> bool:
        """Deletes everything about a person, here and in the store; says whether there was a history."""
        left_s = time_left()
        try:
            return await self._before_the_end(self._store.delete(user_id, at_ms), left_s, _MAY_STILL)
        finally:
            self.last_known.forget_person(user_id, time.monotonic())

    async def scan(self, cursor: str, limit: int) -> ScanPage:
        """Reads about `limit` people from a cursor on, as the store does."""
        left_s = time_left()
        return await self._before_the_end(self._store.scan(cursor, limit), left_s, _ASK_LESS)

    async def _before_the_end(self, work: Awaitable[T], left_s: float | None, cure: str) -> T:
        """Waits for the store while the call has time for its answer."""
        if left_s is None:
            return await work
        bound_s = left_s * _MOST_OF_DEADLINE
        try:
            async with asyncio.timeout(bound_s):
                return await work
        except TimeoutError:
            raise DeadlineExceeded(
                f"the feature store ({self.kind}) was not done within {bound_s:.3g} s, which the call's deadline left "
                f"it; {cure}"
            ) from None

    async def watch_deletions(self, forget: Callable[[bytes | None], None]) -> None:
        """Tells of deletions until cancelled, as the store does."""
        await self._store.watch_deletions(forget)

    async def watch(self) -> None:
        """Forgets people whom other processes delete, until cancelled."""
        await self._store.watch_deletions(lambda digest: self.last_known.forget(digest, time.monotonic()))

    async def aclose(self) -> None:
        """Closes the store."""
        await self._store.aclose()


_MAY_STILL = "what was asked may be done all the same: send the call again, with a longer deadline"
_ASK_LESS = "ask for fewer people at a time (page_size), or give it a longer deadline"


class _Impatient(StoreUnavailable):
    """Says that a caller could not wait long enough to tell whether the store would have answered."""
