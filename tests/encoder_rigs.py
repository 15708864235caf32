"""Runs the user encoder for tests, in this process on a real socket, and writes its requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import grpc.aio
import numpy as np
import pytest

from marquee.bundle.registry import Registry
from marquee.engine.encoder import Encoder
from marquee.errors import MarqueeError
from marquee.features import RATED, Events
from marquee.v1 import live_features_pb2, live_features_pb2_grpc, types_pb2, user_encoder_pb2_grpc
from services.common.server import Life
from services.common.spaces import Spaces
from services.user_encoder.ladder import Ladder
from services.user_encoder.servicer import SERVICES, add_servicers, load_encoder
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.base import FeatureStore
from services.user_encoder.stores.sqlite import SqliteStore
from tests.rigs import error_of


class Row(NamedTuple):
    """Is one event; its time is in milliseconds."""

    movie: int
    kind: types_pb2.EventKind
    value: float
    time: int


class Stubs(NamedTuple):
    """Calls an encoder."""

    users: user_encoder_pb2_grpc.UserEncoderServiceAsyncStub
    features: live_features_pb2_grpc.LiveFeaturesServiceAsyncStub


class EncoderRig(NamedTuple):
    """Is an encoder that serves in this process. Nobody watches the registry: tests call `spaces.poll`."""

    users: user_encoder_pb2_grpc.UserEncoderServiceAsyncStub
    features: live_features_pb2_grpc.LiveFeaturesServiceAsyncStub
    spaces: Spaces[Encoder]
    store: FeatureStore
    port: int

    @property
    def model(self) -> Encoder:
        """Is the active bundle's tower."""
        return self.spaces.get("").model


def stubs(channel: grpc.aio.Channel) -> Stubs:
    """Makes the stubs of both services of the encoder."""
    users = user_encoder_pb2_grpc.UserEncoderServiceStub(channel)
    features = live_features_pb2_grpc.LiveFeaturesServiceStub(channel)
    return Stubs(
        cast("user_encoder_pb2_grpc.UserEncoderServiceAsyncStub", users),
        cast("live_features_pb2_grpc.LiveFeaturesServiceAsyncStub", features),
    )


@contextlib.asynccontextmanager
async def encoder(registry: Path, store_path: Path) -> AsyncIterator[EncoderRig]:
    """Serves a registry and a SQLite store on a free port."""
    async with encoder_on(SqliteStore(store_path, write_timeout_s=0.05), registry) as rig:
        yield rig


@contextlib.asynccontextmanager
async def encoder_on(
    store: FeatureStore, registry: Path, credentials: grpc.ChannelCredentials | None = None, **settings: Any
) -> AsyncIterator[EncoderRig]:
    """Serves a registry and a store, which it closes, on a free port; over TLS where it has credentials for that."""
    told = UserEncoderSettings(listen="127.0.0.1:0", registry=registry, drain_s=0.0, grace_s=5.0, **settings)
    async with contextlib.aclosing(store), Life(told, SERVICES) as life:
        spaces = Spaces(Registry(registry), partial(load_encoder, threads=1), told)
        await spaces.start()
        ladder = Ladder(store, told)
        add_servicers(spaces, ladder, life.server)
        running = asyncio.ensure_future(life.run(ladder.watch()))
        async with _channel(f"127.0.0.1:{life.port}", credentials) as channel:
            await channel.channel_ready()
            yield EncoderRig(*stubs(channel), spaces, store, life.port)
        life.stop()
        await running


def _channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(address, credentials) if credentials else grpc.aio.insecure_channel(address)


async def refused(call: Awaitable[Any]) -> MarqueeError:
    """Waits for a call that must fail; returns the error that came in its details."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return error_of(failure.value)


def columns(*rows: Row) -> types_pb2.EventColumns:
    """Writes events as a request has them."""
    return types_pb2.EventColumns(
        movie_ids=[row.movie for row in rows],
        kinds=[row.kind for row in rows],
        values=[row.value for row in rows],
        times_ms=[row.time for row in rows],
    )


def rows_of(message: types_pb2.EventColumns) -> list[Row]:
    """Reads events as an answer has them."""
    values = message.values or [0.0] * len(message.movie_ids)
    return [Row(*row) for row in zip(message.movie_ids, message.kinds, values, message.times_ms, strict=True)]


def events(*rows: Row) -> Events:
    """Writes events as the domain has them."""
    movie_ids, kinds, values, times_ms = zip(*rows, strict=True)
    return Events(
        np.array(movie_ids, np.int64),
        np.array(kinds, np.int64),
        np.array(values, np.float32),
        np.array(times_ms, np.int64),
    )


def recording(user_id: str, *rows: Row) -> live_features_pb2.RecordEventsRequest:
    """Writes a RecordEvents request of one person."""
    request = live_features_pb2.RecordEventsRequest()
    for row in rows:
        event = request.events.add(user_id=user_id, movie_id=row.movie, kind=row.kind, time_ms=row.time)
        if row.kind == RATED:
            event.value = row.value
    return request
