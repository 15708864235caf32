"""The feature store in a Redis, single or Cluster, which any number of replicas may share.

A person has up to three keys, in one slot: the packed history, the request ids that led to its events, and the
tombstone. Their names are made of the person's tag, so that they tell nobody's id; the id stands in the history.
A read is one GET. A write reads, adds and writes only where nobody else has meanwhile, which a script checks by the
history's version, and by the tombstone: nothing is lost between replicas, and nothing returns that was deleted.

Memory a person, as MEMORY USAGE tells it: 1,176 bytes with 50 events, 213,072 with 10,000, the most that are kept: 21
bytes an event. Request ids of 32 characters take up to 50 bytes an event more, a tombstone 96.
Nothing may be evicted: `maxmemory-policy` must be `noeviction`, or a `volatile` one, since no key expires.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from redis.exceptions import RedisError

from marquee.errors import StoreUnavailable
from marquee.features import NO_EVENTS, Events
from services.common.deadlines import time_left
from services.user_encoder.stores.base import (
    ScanPage,
    UserWrite,
    Written,
    add,
    after_deletion,
    attribute,
    damaged,
    pack_person,
    unpack_person,
)
from services.user_encoder.stores.redis_channel import watch
from services.user_encoder.stores.redis_files import FileCleaner
from services.user_encoder.stores.redis_keys import CHANNEL, KEY_CHECK, Keys, keys_of
from services.user_encoder.stores.redis_scan import scan_keys
from services.user_encoder.stores.redis_servers import Call, Reply, Servers
from services.user_encoder.stores.redis_url import RedisUrl
from services.user_encoder.stores.redis_words import what_to_do
from services.user_encoder.stores.tags import Tags

_log = logging.getLogger(__name__)

T = TypeVar("T")

_VERSION_BYTES = 8

# KEYS: history, tombstone, request ids. ARGV: the version and the tombstone that were read, empty where there was none;
# the new history; the new request ids, empty to leave them.
_WRITE = b"""
if redis.call('GETRANGE', KEYS[1], -8, -1) ~= ARGV[1] or (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[3])
if ARGV[4] ~= '' then redis.call('SET', KEYS[3], ARGV[4]) end
return 1
"""
# KEYS as above. ARGV: the time, the channel, the tag. It frees first: so a full Redis takes the tombstone, too. Times
# are compared as text, since a number of Lua holds no 64 bits.
_DELETE = b"""
local existed = redis.call('DEL', KEYS[1])
redis.call('DEL', KEYS[3])
local before = redis.call('GET', KEYS[2])
if not before or #before < #ARGV[1] or (#before == #ARGV[1] and before < ARGV[1]) then
    redis.call('SET', KEYS[2], ARGV[1])
end
redis.call('PUBLISH', ARGV[2], ARGV[3])
return existed
"""

# Writes of one person by several replicas at once: each round, one of them gets through.
_TRIES = 100
_LONGEST_PAUSE_S = 0.02
# People whose histories travel together: some megabytes at most, where all of them are full.
_SLICE = 64
# Per person, in the order of their writes.
_Outcomes = dict[str, Sequence[Written | StoreUnavailable]]


class _Change(NamedTuple):
    """Holds what writes make of a person; `call` writes it, None where nothing changed."""

    user_id: str
    outcomes: Sequence[Written | StoreUnavailable]
    call: Call | None


class _State(NamedTuple):
    packed: bytes
    request_ids: bytes


class RedisStore:
    """Keeps histories in a Redis; made and used in one event loop's thread. Nothing is asked before the first call.

    `read_timeout_s` bounds each answer to a read, `write_timeout_s` each one to anything else; a call that must open a
    connection first takes up to twice as long.
    """

    kind = "redis"
    waits = True

    def __init__(self, url: RedisUrl, tags: Tags, *, read_timeout_s: float = 1.0, write_timeout_s: float = 5.0) -> None:
        self._tags = tags
        self._where = ",".join(f"{host}:{port}" for host, port in url.nodes)
        self._cluster = url.cluster
        # Apart, so that reads neither wait for many writes nor as long.
        self._readers, self._writers = Servers(url, read_timeout_s), Servers(url, write_timeout_s)
        self._files = FileCleaner(self._writers, self._where)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[Any]] = set()
        self._read_checked = self._write_checked = False

    def digest(self, user_id: str) -> bytes:
        """Computes the keyed hash of an id, under which its tombstone stands; asks nobody."""
        return self._tags.of(user_id)

    async def read(self, user_id: str) -> Events:
        """Reads a person's history, with its retractions; empty where there is none."""
        if not self._read_checked:
            await self._check_before_reading()
        key = self._keys(user_id).history
        try:
            reply = await self._readers.run_one(Call(key, ("GET", key)))
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        history = self._history(user_id, self._unavailable(reply) if isinstance(reply, Exception) else reply)
        if isinstance(history, StoreUnavailable):
            raise history
        return history

    async def read_many(self, user_ids: Sequence[str]) -> list[Events | StoreUnavailable]:
        """Reads several people's histories, in their order; says which could not be read where others could."""
        if not self._read_checked:
            await self._check_before_reading()
        keys = [self._keys(user_id).history for user_id in user_ids]
        found = [
            self._history(user_id, reply)
            for user_id, reply in zip(user_ids, await self._run(self._readers, _gets(keys)), strict=True)
        ]
        failure = next((one for one in found if isinstance(one, StoreUnavailable)), None)
        if failure is not None and all(isinstance(one, StoreUnavailable) for one in found):
            raise failure
        return found

    def _history(self, user_id: str, reply: Reply | StoreUnavailable) -> Events | StoreUnavailable:
        if reply is None or isinstance(reply, StoreUnavailable):
            return NO_EVENTS if reply is None else reply
        try:
            owner, history = _unpack(reply)
        except StoreUnavailable as error:
            return error
        return history if owner == user_id else damaged("another person under this one's key")

    async def write(self, writes: Sequence[UserWrite]) -> list[Written | StoreUnavailable]:
        """Adds events; says for each write what became of it. One person's write is stored whole or not at all."""
        return await self._to_the_end(self._write(writes))

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Does what closing has to wait for, even where the caller gives up."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _write(self, writes: Sequence[UserWrite]) -> list[Written | StoreUnavailable]:
        await self._check_before_writing()
        outcomes: list[Written | StoreUnavailable] = []
        for start in range(0, len(writes), _SLICE):
            done = await self._write_slice(writes[start : start + _SLICE])
            outcomes += done
            if all(isinstance(one, StoreUnavailable) for one in done):
                # Each of the others would wait as long.
                outcomes += [done[0]] * (len(writes) - len(outcomes))
                break
        failure = next((one for one in outcomes if isinstance(one, StoreUnavailable)), None)
        if failure is not None and all(isinstance(one, StoreUnavailable) for one in outcomes):
            raise failure
        return outcomes

    async def _write_slice(self, writes: Sequence[UserWrite]) -> list[Written | StoreUnavailable]:
        by_user: dict[str, list[UserWrite]] = {}
        for write in writes:
            by_user.setdefault(write.user_id, []).append(write)
        async with self._alone(by_user):
            done = await self._write_people(by_user)
        # A person's outcomes stand in the order of their writes.
        following = {user_id: iter(outcomes) for user_id, outcomes in done.items()}
        return [next(following[write.user_id]) for write in writes]

    @contextlib.asynccontextmanager
    async def _alone(self, user_ids: dict[str, list[UserWrite]]) -> AsyncIterator[None]:
        """Lets this process's writes of one person pass one by one: they would only get in each other's way."""
        async with contextlib.AsyncExitStack() as stack:
            # In one order everywhere, so that no two of them wait for each other.
            for user_id in sorted(user_ids):
                await stack.enter_async_context(self._locks.setdefault(user_id, asyncio.Lock()))
            yield

    async def _write_people(self, by_user: dict[str, list[UserWrite]]) -> _Outcomes:
        done: _Outcomes = {}
        for attempt in range(_TRIES):
            await self._try_to_write({user_id: by_user[user_id] for user_id in by_user if user_id not in done}, done)
            if len(done) == len(by_user):
                return done
            await asyncio.sleep(random.uniform(0, min(0.001 * 2**attempt, _LONGEST_PAUSE_S)))
        busy = StoreUnavailable(
            f"Redis at {self._where}: others wrote the same person's events {_TRIES} times in between, nothing was "
            "recorded; send the call again"
        )
        return {user_id: done.get(user_id, [busy] * len(writes)) for user_id, writes in by_user.items()}

    async def _try_to_write(self, by_user: dict[str, list[UserWrite]], done: _Outcomes) -> None:
        """Reads people, adds to them, and writes those that changed; leaves out of `done` who was written meanwhile."""
        changes: list[_Change] = []
        reads = [Call(keys.history, ("MGET", *keys)) for keys in map(self._keys, by_user)]
        for (user_id, writes), reply in zip(by_user.items(), await self._run(self._writers, reads), strict=True):
            change = self._change(user_id, writes, reply)
            if isinstance(change, _Change) and change.call is not None:
                changes.append(change)
            else:
                done[user_id] = [change] * len(writes) if isinstance(change, StoreUnavailable) else change.outcomes
        # What was read may have come late, or waited for others: a write that nobody waits for is not begun.
        time_left()
        calls = [change.call for change in changes if change.call is not None]
        for change, reply in zip(changes, await self._run(self._writers, calls), strict=True):
            if isinstance(reply, StoreUnavailable):
                done[change.user_id] = [reply] * len(change.outcomes)
            elif reply:
                done[change.user_id] = change.outcomes

    def _keys(self, user_id: str) -> Keys:
        return keys_of(self._tags.of(user_id))

    def _change(
        self, user_id: str, writes: list[UserWrite], reply: Reply | StoreUnavailable
    ) -> _Change | StoreUnavailable:
        """Works out what writes make of a person."""
        if isinstance(reply, StoreUnavailable):
            return reply
        blob, tombstone, request_ids = reply
        history = self._history(user_id, blob)
        if isinstance(history, StoreUnavailable):
            return history
        before = _State(pack_person(user_id, history), request_ids or b"")
        now, outcomes = before, []
        for write in writes:
            write = after_deletion(write, int(tombstone or 0))
            history = add(history, write)
            ids = attribute(now.request_ids, write) if any(write.request_ids) else now.request_ids
            after = _State(pack_person(user_id, history), ids)
            outcomes.append(Written(after.packed != now.packed, int(tombstone or 0)))
            now = after
        if now == before:
            return _Change(user_id, outcomes, None)
        keys = self._keys(user_id)
        version = blob[-_VERSION_BYTES:] if blob else b""
        new_ids = b"" if now.request_ids == before.request_ids else now.request_ids
        arguments = (version, tombstone or b"", now.packed + os.urandom(_VERSION_BYTES), new_ids)
        return _Change(user_id, outcomes, Call(keys.history, ("EVAL", _WRITE, 3, *keys, *arguments)))

    async def delete(self, user_id: str, at_ms: int) -> bool:
        """Deletes everything about a person but a tombstone that refuses events dated at or before `at_ms`."""
        return await self._to_the_end(self._delete(user_id, at_ms))

    async def _delete(self, user_id: str, at_ms: int) -> bool:
        await self._check_before_writing()
        await self._files.announce()
        time_left()
        tag = self._tags.of(user_id)
        keys = keys_of(tag)
        [reply] = await self._run(self._writers, [Call(keys.history, ("EVAL", _DELETE, 3, *keys, at_ms, CHANNEL, tag))])
        if isinstance(reply, StoreUnavailable):
            raise reply
        self._files.clean()
        return bool(reply)

    async def _run(self, servers: Servers, calls: Sequence[Call]) -> list[Reply | StoreUnavailable]:
        try:
            replies = await servers.run(calls) if calls else []
        except (RedisError, OSError) as error:
            replies = [error] * len(calls)
        return [self._unavailable(reply) if isinstance(reply, Exception) else reply for reply in replies]

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"Redis at {self._where}: {what_to_do(error)}")

    async def _check_before_reading(self) -> None:
        """Sees once that the key is the store's own: with another, everybody would be unknown."""
        [kept] = await self._run(self._readers, _gets([KEY_CHECK]))
        self._check_key(kept, none_is_fine=True)
        self._read_checked = True

    async def _check_before_writing(self) -> None:
        if self._write_checked:
            return
        calls = [Call(KEY_CHECK, ("SET", KEY_CHECK, self._tags.check(), "NX")), *_gets([KEY_CHECK])]
        made, kept = await self._run(self._writers, calls)
        if isinstance(made, StoreUnavailable):
            raise made
        self._check_key(kept, none_is_fine=False)
        self._write_checked = True

    def _check_key(self, kept: Reply | StoreUnavailable, *, none_is_fine: bool) -> None:
        if isinstance(kept, StoreUnavailable):
            raise kept
        if kept != self._tags.check() and not (kept is None and none_is_fine):
            raise StoreUnavailable(
                f"Redis at {self._where}: the key of MARQUEE_STORE_KEY is not the one that its histories were written "
                "with; give every encoder the same key file"
            )

    async def scan(self, cursor: str, limit: int) -> ScanPage:
        """Reads about `limit` people from a cursor on, "" being the first; `scan_keys` says what may be missed."""
        try:
            found = await scan_keys(self._writers, self._cluster, cursor, limit)
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        people = []
        for start in range(0, len(found.keys), _SLICE):
            for reply in await self._run(self._writers, _gets(found.keys[start : start + _SLICE])):
                if isinstance(reply, StoreUnavailable):
                    raise reply
                if reply is not None:
                    people.append(_unpack(reply))
        return ScanPage(people, found.cursor, found.part)

    async def watch_deletions(self, forget: Callable[[bytes | None], None]) -> None:
        """Tells of deletions until cancelled; after each time the channel was lost, that some may have been missed."""
        await watch(self._writers, self._where, forget, self._files.go_on)

    async def aclose(self) -> None:
        """Finishes running writes and releases everything."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._files.aclose()
        await self._readers.aclose()
        await self._writers.aclose()


def _gets(keys: Sequence[bytes]) -> list[Call]:
    return [Call(key, ("GET", key)) for key in keys]


def _unpack(value: bytes) -> tuple[str, Events]:
    return unpack_person(memoryview(value)[:-_VERSION_BYTES])
