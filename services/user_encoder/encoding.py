"""From a person's stored and sent events to their vector and the account of it. B people, D dimension."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from marquee.engine.encoder import Encoder
from marquee.errors import MarqueeError, UserUnknown
from marquee.features import NO_EVENTS, Encoded, Events, Floats, current, merge, seen_ids, user_hash
from marquee.v1 import user_encoder_pb2
from services.user_encoder.stores.base import FeatureStore

STORE = user_encoder_pb2.FEATURE_SOURCE_STORE
REQUEST = user_encoder_pb2.FEATURE_SOURCE_REQUEST
COLD_START = user_encoder_pb2.FEATURE_SOURCE_COLD_START

# People of a batch that are prepared before other calls get their turn: about a millisecond with 50 events each.
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
    """Holds a person's tower input, what it is of, and the account of it; `seen` is packed as Search takes it."""

    encoded: Encoded
    merged: Events
    as_of_ms: int
    source: user_encoder_pb2.FeatureSource
    seen: bytes


class Batch(NamedTuple):
    """Holds a batch's vectors [B, D], zeros where a person failed, and each person's account or error."""

    vectors_BD: Floats
    people: list[Prepared | MarqueeError]


async def encode_one(encoder: Encoder, store: FeatureStore, person: Person, moment: Moment) -> tuple[Floats, Prepared]:
    """Encodes one person; returns their vector [D] and the account of it."""
    prepared = await prepare_one(encoder, store, person, moment)
    # On the event loop: a pooled tower takes less than a thread hop.
    return encoder.run(prepared.encoded.tower)[0], prepared


async def prepare_one(encoder: Encoder, store: FeatureStore, person: Person, moment: Moment) -> Prepared:
    """Reads one person's stored events and prepares them; raises UserUnknown where there are none."""
    stored = await store.read(person.user_id) if person.user_id else NO_EVENTS
    return prepare(encoder, person, stored, moment)


async def encode_batch(
    encoder: Encoder, store: FeatureStore, people: Iterable[Person | MarqueeError], moment: Moment
) -> Batch:
    """Encodes B people in one tower run; one who cannot be encoded, or comes as an error, fails nobody else.

    Draws from `people` a slice at a time, so that a generator's work is spread between other calls.
    """
    people = iter(people)
    prepared: list[Prepared | MarqueeError] = []
    while slice_ := list(itertools.islice(people, _SLICE)):
        prepared += await _prepare_slice(encoder, store, slice_, moment)
        await asyncio.sleep(0)
    vectors_BD = np.zeros((len(prepared), encoder.spec.dimension), np.float32)
    good = {at: one.encoded for at, one in enumerate(prepared) if isinstance(one, Prepared)}
    if good:
        vectors_BD[list(good)] = await asyncio.to_thread(encoder.encode_batch, list(good.values()))
    return Batch(vectors_BD, prepared)


async def _prepare_slice(
    encoder: Encoder, store: FeatureStore, people: list[Person | MarqueeError], moment: Moment
) -> list[Prepared | MarqueeError]:
    user_ids = [one.user_id for one in people if isinstance(one, Person) and one.user_id]
    stored = dict(zip(user_ids, await store.read_many(user_ids), strict=True))

    def prepare_one(one: Person | MarqueeError) -> Prepared | MarqueeError:
        if isinstance(one, MarqueeError):
            return one
        try:
            return prepare(encoder, one, stored.get(one.user_id, NO_EVENTS), moment)
        except UserUnknown as error:
            return error

    return [prepare_one(one) for one in people]


def prepare(encoder: Encoder, person: Person, stored: Events, moment: Moment) -> Prepared:
    """Merges a person's events and makes the tower's input; raises UserUnknown where there are none."""
    merged, source = _merge(person, stored)
    if merged.size == 0 and not moment.allow_cold_start:
        raise _unknown(person)
    as_of_ms = moment.as_of_ms
    if moment.live and merged.size:
        as_of_ms = max(as_of_ms, int(merged.times_ms[-1]))
    encoded = encoder.prepare(merged, as_of_ms)
    return Prepared(encoded, merged, as_of_ms, source if encoded.used else COLD_START, pack_seen(merged))


def _merge(person: Person, stored: Events) -> tuple[Events, user_encoder_pb2.FeatureSource]:
    held = current(stored)
    if person.events.size == 0:
        return held, STORE
    return merge(stored, person.events, user_hash(person.user_id)), STORE if held.size else REQUEST


def _unknown(person: Person) -> UserUnknown:
    who = f"user {person.user_id!r} has no stored events" if person.user_id else "the request names no user"
    return UserUnknown(f"{who}, and it holds no events that count; record or send some, or set allow_cold_start")


def pack_seen(merged: Events) -> bytes:
    """Packs everything a person has seen: int64 movie ids, little-endian, ascending."""
    return seen_ids(merged).astype("<i8", copy=False).tobytes()
