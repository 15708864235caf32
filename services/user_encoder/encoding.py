"""From people's stored and sent events to their vectors and the account of each. B people, D dimension."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from marquee.engine.encoder import Encoder
from marquee.errors import InvalidRequest, MarqueeError, UserUnknown
from marquee.features import (
    NO_EVENTS,
    Encoded,
    Events,
    Floats,
    Int64s,
    TowerInput,
    current,
    merge,
    pad_batch,
    seen_ids,
    user_hash,
)
from marquee.histories import Pair, merge_many, newest_ms, seen_many
from marquee.v1 import user_encoder_pb2
from services.common.measures import stage
from services.user_encoder.checks import Sent, read_events, read_many
from services.user_encoder.ladder import NOTHING, Known, Ladder
from services.user_encoder.measures import NEWEST_EVENT_AGE, REMEMBERED_AGE, SOURCES

STORE = user_encoder_pb2.FEATURE_SOURCE_STORE
REQUEST = user_encoder_pb2.FEATURE_SOURCE_REQUEST
COLD_START = user_encoder_pb2.FEATURE_SOURCE_COLD_START
STALE = user_encoder_pb2.FEATURE_SOURCE_STALE
_SOURCE_NAMES = {STORE: "store", REQUEST: "request", COLD_START: "cold_start", STALE: "stale"}

# People of a batch that are prepared before other calls get their turn: about a millisecond with 50 events each.
_SLICE = 32


class Person(NamedTuple):
    """Holds one person to prepare alone: an id, "" for an anonymous one, and events to merge with the stored ones."""

    user_id: str
    events: Events


class Moment(NamedTuple):
    """Holds what all people of a call share.

    `live`: nobody asked for a moment, it is the clock's. Then events that a faster clock dated up to five minutes ahead
    count as well, or what somebody just did would be missing from the next answer.
    """

    as_of_ms: int
    live: bool
    allow_cold_start: bool


class Prepared(NamedTuple):
    """Holds one person's tower input, what it is of, and the account of it; `age_ms` and `degraded` as in `Known`."""

    encoded: Encoded
    merged: Events
    as_of_ms: int
    source: user_encoder_pb2.FeatureSource
    age_ms: int
    degraded: bool

    @property
    def newest_ms(self) -> int:
        """Says when the newest event is dated that the tower reads; 0 without events."""
        return self.encoded.newest_ms


class Ask(NamedTuple):
    """Holds one of many people to encode: an id or "", what was sent with the request, and what is known of them."""

    user_id: str
    sent: Sent
    moment: Moment
    known: Known = NOTHING


class Account(NamedTuple):
    """Holds what an answer says beside the vector, as EncodeResponse explains it."""

    as_of_ms: int
    source: user_encoder_pb2.FeatureSource
    used: int
    unknown: int
    truncated: int
    newest_ms: int
    seen: bytes
    age_ms: int
    degraded: bool


class Batch(NamedTuple):
    """Holds a batch's vectors [B, D], zeros where a person failed, and each person's account or error."""

    vectors_BD: Floats
    people: list[Account | MarqueeError]


async def look_up(ladder: Ladder, user_id: str) -> Known:
    """Looks a person up, "" being nobody."""
    return await ladder.look_up(user_id) if user_id else NOTHING


async def encode_batch(encoder: Encoder, ladder: Ladder, people: Iterable[Ask | MarqueeError]) -> Batch:
    """Looks B people up and encodes them together; who fails, or comes as an error, fails nobody else.

    Draws from `people` a slice at a time, so that a generator's work is spread between other calls.
    """
    drawn = await _draw(people)
    asks = {at: one for at, one in enumerate(drawn) if isinstance(one, Ask)}
    failed = {at: one for at, one in enumerate(drawn) if isinstance(one, MarqueeError)}
    vectors_BD = np.zeros((len(drawn), encoder.spec.dimension), np.float32)
    accounts: list[Account | MarqueeError] = []
    if asks:
        with stage("store"):
            known = await _look_up(ladder, list(asks.values()))
        with stage("encode"):
            tower, accounts = await _prepare_slices(encoder, known)
            vectors_BD[list(asks)] = await asyncio.to_thread(encoder.run, tower)
        tell(ladder, accounts)
    told = failed | dict(zip(asks, accounts, strict=True))
    results = [told[at] for at in range(len(drawn))]
    vectors_BD[[isinstance(one, MarqueeError) for one in results]] = 0
    return Batch(vectors_BD, results)


async def _draw(people: Iterable[Ask | MarqueeError]) -> list[Ask | MarqueeError]:
    people = iter(people)
    drawn: list[Ask | MarqueeError] = []
    while slice_ := list(itertools.islice(people, _SLICE)):
        drawn += slice_
        await asyncio.sleep(0)
    return drawn


async def _look_up(ladder: Ladder, asks: Sequence[Ask]) -> list[Ask]:
    user_ids = list(dict.fromkeys(one.user_id for one in asks if one.user_id))
    if not user_ids:
        return list(asks)
    known = dict(zip(user_ids, await ladder.look_up_many(user_ids), strict=True))
    return [one._replace(known=known.get(one.user_id, NOTHING)) for one in asks]


async def _prepare_slices(encoder: Encoder, asks: Sequence[Ask]) -> tuple[TowerInput, list[Account | MarqueeError]]:
    towers: list[TowerInput] = []
    accounts: list[Account | MarqueeError] = []
    for start in range(0, len(asks), _SLICE):
        tower, told = prepare_many(encoder, asks[start : start + _SLICE])
        towers.append(tower)
        accounts += told
        await asyncio.sleep(0)
    return pad_batch(towers), accounts


def prepare_many(encoder: Encoder, asks: Sequence[Ask]) -> tuple[TowerInput, list[Account | MarqueeError]]:
    """Reads, merges and encodes what B people sent and is known of them, as `prepare` does for one.

    Who fails has an error for an account, and a row all the same.
    """
    read = read_many([ask.sent for ask in asks])
    histories = merge_many([_pair(ask, events) for ask, events in zip(asks, read, strict=True)])
    newest = newest_ms(histories).tolist()
    as_of_ms = [_as_of_ms(ask.moment, at) for ask, at in zip(asks, newest, strict=True)]
    encoded = encoder.prepare_many(histories, np.array(as_of_ms, np.int64))
    seen = [pack_ids(ids) for ids in seen_many(histories)]
    counts = zip(*(column.tolist() for column in encoded[1:]), strict=True)
    told = zip(asks, read, histories.sizes_B.tolist(), as_of_ms, counts, seen, strict=True)
    return encoded.tower, [_account(*one) for one in told]


def _pair(ask: Ask, read: Events | InvalidRequest) -> Pair:
    return (
        Pair("", NO_EVENTS, NO_EVENTS)
        if isinstance(read, InvalidRequest)
        else Pair(ask.user_id, ask.known.events, read)
    )


def _account(
    ask: Ask,
    read: Events | InvalidRequest,
    merged: int,
    as_of_ms: int,
    counts: tuple[int, int, int, int],
    seen: bytes,
) -> Account | MarqueeError:
    if isinstance(read, InvalidRequest):
        return read
    if merged == 0 and not _may_be_cold(ask.moment, ask.known):
        return _unknown(ask.user_id)
    source = _source(ask.known, sent=read.size > 0) if counts[0] else COLD_START
    return Account(as_of_ms, source, *counts, seen, ask.known.age_ms, ask.known.degraded)


def prepare(encoder: Encoder, person: Person, known: Known, moment: Moment) -> Prepared:
    """Merges a person's events and makes the tower's input; raises UserUnknown where there are none.

    Where the store could not be read, nobody is unknown: without events they are a cold start.
    """
    merged = (
        merge(known.events, person.events, user_hash(person.user_id)) if person.events.size else current(known.events)
    )
    if merged.size == 0 and not _may_be_cold(moment, known):
        raise _unknown(person.user_id)
    as_of_ms = _as_of_ms(moment, int(merged.times_ms[-1]) if merged.size else 0)
    encoded = encoder.prepare(merged, as_of_ms)
    source = _source(known, sent=person.events.size > 0) if encoded.used else COLD_START
    return Prepared(encoded, merged, as_of_ms, source, known.age_ms, known.degraded)


def encode_alone(encoder: Encoder, ask: Ask) -> tuple[Floats, Account]:
    """Encodes one person by the code for one, which takes half as long for one; returns their vector [D] and account.

    Raises InvalidRequest or UserUnknown.
    """
    prepared = prepare(encoder, Person(ask.user_id, read_events(*ask.sent)), ask.known, ask.moment)
    encoded = prepared.encoded
    account = Account(
        prepared.as_of_ms,
        prepared.source,
        encoded.used,
        encoded.unknown,
        encoded.truncated,
        encoded.newest_ms,
        pack_ids(seen_ids(prepared.merged)),
        prepared.age_ms,
        prepared.degraded,
    )
    return encoder.run_whole(encoded.tower)[0], account


def _may_be_cold(moment: Moment, known: Known) -> bool:
    return moment.allow_cold_start or known.degraded


def _as_of_ms(moment: Moment, newest_ms: int) -> int:
    return max(moment.as_of_ms, newest_ms) if moment.live else moment.as_of_ms


def _source(known: Known, *, sent: bool) -> user_encoder_pb2.FeatureSource:
    if sent and not (known.events.kinds.size and current(known.events).size):
        return REQUEST
    return STALE if known.degraded else STORE


def _unknown(user_id: str) -> UserUnknown:
    who = f"user {user_id!r} has no stored events" if user_id else "the request names no user"
    return UserUnknown(f"{who}, and it holds no events that count; record or send some, or set allow_cold_start")


def tell(ladder: Ladder, people: Iterable[Prepared | Account | MarqueeError]) -> None:
    """Says of answers what they were made of, and how old that was; counts those that were made without the store."""
    for one in people:
        if isinstance(one, MarqueeError):
            continue
        SOURCES.count(_SOURCE_NAMES[one.source])
        if one.newest_ms:
            NEWEST_EVENT_AGE.observe(max(0, one.as_of_ms - one.newest_ms) / 1000)
        if one.degraded:
            ladder.count_degraded(stale=one.source == STALE)
        if one.source == STALE:
            REMEMBERED_AGE.observe(one.age_ms / 1000)


def pack_ids(movie_ids: Int64s) -> bytes:
    """Packs movie ids as Search takes them: int64, little-endian."""
    return movie_ids.astype("<i8", copy=False).tobytes()


def encode_response(
    vector_D: Floats, account: Account, space: str, bundle_id: str, request_id: str
) -> user_encoder_pb2.EncodeResponse:
    """Writes the answer of Encode."""
    return user_encoder_pb2.EncodeResponse(
        vector=vector_D.astype("<f4", copy=False).tobytes(),
        space=space,
        bundle_id=bundle_id,
        request_id=request_id,
        as_of_ms=account.as_of_ms,
        **account_fields(account),
    )


def account_fields(account: Account) -> dict[str, Any]:
    """Lists the fields that the answer of Encode and a result of BatchEncode have in common."""
    return {
        "source": account.source,
        "events_used": account.used,
        "events_unknown": account.unknown,
        "events_truncated": account.truncated,
        "newest_event_ms": account.newest_ms,
        "seen": account.seen,
        "features_age_ms": account.age_ms,
        "degraded": account.degraded,
    }
