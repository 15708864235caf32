"""From a person's stored and sent events to their vector and the account of it. B people, D dimension."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from marquee.engine.encoder import Encoder
from marquee.errors import MarqueeError, UserUnknown
from marquee.features import Encoded, Events, Floats, current, merge, seen_ids, user_hash
from marquee.v1 import user_encoder_pb2
from services.user_encoder.ladder import NOTHING, Known, Ladder

STORE = user_encoder_pb2.FEATURE_SOURCE_STORE
REQUEST = user_encoder_pb2.FEATURE_SOURCE_REQUEST
COLD_START = user_encoder_pb2.FEATURE_SOURCE_COLD_START
STALE = user_encoder_pb2.FEATURE_SOURCE_STALE

# People of a batch that are read, and prepared, before other calls get their turn: about a millisecond with 50 events
# each.
_SLICE = 16


class Person(NamedTuple):
    """Holds one person to encode: an id, "" for an anonymous one, and events to merge with the stored ones."""

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
    """Holds a person's tower input, what it is of, and the account of it; `seen` is packed as Search takes it.

    `age_ms` and `degraded` are as in `Known`.
    """

    encoded: Encoded
    merged: Events
    as_of_ms: int
    source: user_encoder_pb2.FeatureSource
    seen: bytes
    age_ms: int
    degraded: bool


class Batch(NamedTuple):
    """Holds a batch's vectors [B, D], zeros where a person failed, and each person's account or error."""

    vectors_BD: Floats
    people: list[Prepared | MarqueeError]


async def encode_one(
    encoder: Encoder, ladder: Ladder, person: Person, moment: Moment, left_s: float | None
) -> tuple[Floats, Prepared]:
    """Encodes one person; returns their vector [D] and the account of it."""
    prepared = await prepare_one(encoder, ladder, person, moment, left_s)
    # On the event loop: a pooled tower takes less than a thread hop.
    return encoder.run(prepared.encoded.tower)[0], prepared


async def prepare_one(
    encoder: Encoder, ladder: Ladder, person: Person, moment: Moment, left_s: float | None
) -> Prepared:
    """Looks one person up and prepares them; raises UserUnknown where there are no events.

    `left_s` is what is left of the call's deadline, None for ever.
    """
    known = await ladder.look_up(person.user_id, left_s) if person.user_id else NOTHING
    return _counted(ladder, prepare(encoder, person, known, moment))


async def encode_batch(
    encoder: Encoder,
    ladder: Ladder,
    people: Iterable[Person | MarqueeError],
    moment: Moment,
    left: Callable[[], float | None],
) -> Batch:
    """Encodes B people in one tower run; one who cannot be encoded, or comes as an error, fails nobody else.

    Draws from `people` a slice at a time, so that a generator's work is spread between other calls. `left` says what is
    left of the call's deadline.
    """
    drawn = await _draw(people)
    known = await _look_up(ladder, drawn, left())
    prepared: list[Prepared | MarqueeError] = []
    for start in range(0, len(drawn), _SLICE):
        prepared += [_try_prepare(encoder, ladder, one, known, moment) for one in drawn[start : start + _SLICE]]
        await asyncio.sleep(0)
    vectors_BD = np.zeros((len(prepared), encoder.spec.dimension), np.float32)
    good = {at: one.encoded for at, one in enumerate(prepared) if isinstance(one, Prepared)}
    if good:
        vectors_BD[list(good)] = await asyncio.to_thread(encoder.encode_batch, list(good.values()))
    return Batch(vectors_BD, prepared)


async def _draw(people: Iterable[Person | MarqueeError]) -> list[Person | MarqueeError]:
    people = iter(people)
    drawn: list[Person | MarqueeError] = []
    while slice_ := list(itertools.islice(people, _SLICE)):
        drawn += slice_
        await asyncio.sleep(0)
    return drawn


async def _look_up(ladder: Ladder, people: Sequence[Person | MarqueeError], left_s: float | None) -> dict[str, Known]:
    user_ids = list(dict.fromkeys(one.user_id for one in people if isinstance(one, Person) and one.user_id))
    return dict(zip(user_ids, await ladder.look_up_many(user_ids, left_s), strict=True)) if user_ids else {}


def _try_prepare(
    encoder: Encoder, ladder: Ladder, one: Person | MarqueeError, known: dict[str, Known], moment: Moment
) -> Prepared | MarqueeError:
    if isinstance(one, MarqueeError):
        return one
    try:
        return _counted(ladder, prepare(encoder, one, known.get(one.user_id, NOTHING), moment))
    except UserUnknown as error:
        return error


def _counted(ladder: Ladder, prepared: Prepared) -> Prepared:
    if prepared.degraded:
        ladder.count_degraded(stale=prepared.source == STALE)
    return prepared


def prepare(encoder: Encoder, person: Person, known: Known, moment: Moment) -> Prepared:
    """Merges a person's events and makes the tower's input; raises UserUnknown where there are none.

    Where the store could not be read, nobody is unknown: without events they are a cold start.
    """
    merged, source = _merge(person, known)
    if merged.size == 0 and not (moment.allow_cold_start or known.degraded):
        raise _unknown(person)
    as_of_ms = moment.as_of_ms
    if moment.live and merged.size:
        as_of_ms = max(as_of_ms, int(merged.times_ms[-1]))
    encoded = encoder.prepare(merged, as_of_ms)
    if not encoded.used:
        source = COLD_START
    return Prepared(encoded, merged, as_of_ms, source, pack_seen(merged), known.age_ms, known.degraded)


def _merge(person: Person, known: Known) -> tuple[Events, user_encoder_pb2.FeatureSource]:
    held, source = current(known.events), STALE if known.degraded else STORE
    if person.events.size == 0:
        return held, source
    return merge(known.events, person.events, user_hash(person.user_id)), source if held.size else REQUEST


def _unknown(person: Person) -> UserUnknown:
    who = f"user {person.user_id!r} has no stored events" if person.user_id else "the request names no user"
    return UserUnknown(f"{who}, and it holds no events that count; record or send some, or set allow_cold_start")


def pack_seen(merged: Events) -> bytes:
    """Packs everything a person has seen: int64 movie ids, little-endian, ascending."""
    return seen_ids(merged).astype("<i8", copy=False).tobytes()
