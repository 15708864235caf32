"""Puts an encoder on a store that a test is about to break, and asks it for what it makes of that."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import numpy as np

from marquee.features import CLICKED, LIKED
from marquee.v1 import live_features_pb2, user_encoder_pb2
from services.user_encoder.stores.opening import READ_PART
from services.user_encoder.stores.redis_store import RedisStore
from services.user_encoder.stores.redis_url import parse_redis_url
from services.user_encoder.stores.tags import Tags
from tests.encoder_rigs import EncoderRig, Row, columns, encoder_on, recording
from tests.rigs import eventually

STORE = user_encoder_pb2.FEATURE_SOURCE_STORE
REQUEST = user_encoder_pb2.FEATURE_SOURCE_REQUEST
COLD_START = user_encoder_pb2.FEATURE_SOURCE_COLD_START
STALE = user_encoder_pb2.FEATURE_SOURCE_STALE

# The bundle's movies are 1, 4, 7, …
FIRST, SECOND, SENT = Row(1, LIKED, 0, 1000), Row(4, LIKED, 0, 2000), Row(7, CLICKED, 0, 3000)
# Of each call. What a test waits for is shorter; that is for a machine that does other things as well.
DEADLINE_S = 5.0
PATIENCE_S = 10.0

KEY = Tags(b"k" * 32)
STORE_TIMEOUT_S, WRITE_TIMEOUT_S = 0.2, 0.2


async def encode(rig: EncoderRig, user_id: str, *rows: Row) -> user_encoder_pb2.EncodeResponse:
    request = user_encoder_pb2.EncodeRequest(user_id=user_id, events=columns(*rows))
    return await rig.users.Encode(request, timeout=DEADLINE_S)


async def store_state(rig: EncoderRig) -> user_encoder_pb2.StoreState:
    return (await rig.users.GetModel(user_encoder_pb2.GetModelRequest(), timeout=DEADLINE_S)).store


async def total(rig: EncoderRig, user_id: str) -> int:
    request = live_features_pb2.GetHistoryRequest(user_id=user_id)
    return (await rig.features.GetHistory(request, timeout=DEADLINE_S)).total


def seen(answer: user_encoder_pb2.EncodeResponse | user_encoder_pb2.BatchEncodeResult) -> list[int]:
    return list(np.frombuffer(answer.seen, "<i8").tolist())


async def is_whole(rig: EncoderRig, user_id: str) -> bool:
    """Says whether a person's answer is made of all that there should be."""
    return not (await encode(rig, user_id)).degraded


async def remember(rig: EncoderRig) -> None:
    """Records ada's and bob's events, of which ada's alone are read."""
    await rig.features.RecordEvents(recording("ada", FIRST, SECOND), timeout=DEADLINE_S)
    await rig.features.RecordEvents(recording("bob", FIRST), timeout=DEADLINE_S)
    # A first read opens connections, which may take longer here than a read is waited for.
    await recovered(rig)


async def recovered(rig: EncoderRig) -> None:
    """Waits until answers are made of the store again, and checks that all of it is still there."""
    await eventually(partial(is_whole, rig, "ada"), PATIENCE_S)
    answer = await encode(rig, "ada")
    assert (answer.source, answer.features_age_ms, seen(answer)) == (STORE, 0, [1, 4])
    assert (await store_state(rig)).reachable


@contextlib.asynccontextmanager
async def encoder_on_redis(
    registry: Path, url: str, store_timeout_s: float = STORE_TIMEOUT_S
) -> AsyncIterator[EncoderRig]:
    """Serves an encoder on a Redis, as the service opens it but for its patience."""
    read_timeout_s = READ_PART * store_timeout_s
    store = RedisStore(parse_redis_url(url), KEY, read_timeout_s=read_timeout_s, write_timeout_s=WRITE_TIMEOUT_S)
    async with encoder_on(store, registry, store_timeout_s=store_timeout_s) as running:
        yield running
