"""The rpcs: each method turns its request into a domain call and the result into its answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc.aio
import numpy as np
from google.rpc import status_pb2

from marquee.bundle.format import Bundle
from marquee.engine.encoder import Encoder
from marquee.errors import InvalidRequest, MarqueeError, to_status
from marquee.features import Events, Floats
from marquee.v1 import live_features_pb2, live_features_pb2_grpc, types_pb2, user_encoder_pb2, user_encoder_pb2_grpc
from services.common.requests import request_id_of
from services.common.spaces import Loaded, Spaces
from services.user_encoder.checks import check_user_id, read_as_of, read_events
from services.user_encoder.encoding import Batch, Moment, Person, Prepared, encode_batch, encode_one
from services.user_encoder.history import page_of
from services.user_encoder.recording import record
from services.user_encoder.stores.base import FeatureStore

Context = grpc.aio.ServicerContext[Any, Any]

MAX_BATCH = 1024
MAX_RECORDED = 1000


SERVICES = ("marquee.v1.UserEncoderService", "marquee.v1.LiveFeaturesService")


def add_servicers(spaces: Spaces[Encoder], store: FeatureStore, server: grpc.aio.Server) -> None:
    """Adds the services of SERVICES to a server."""
    encoder, features = UserEncoderServicer(spaces, store), LiveFeaturesServicer(store)
    user_encoder_pb2_grpc.add_UserEncoderServiceServicer_to_server(encoder, server)
    live_features_pb2_grpc.add_LiveFeaturesServiceServicer_to_server(features, server)


def load_encoder(bundle: Bundle, *, threads: int) -> Encoder:
    """Loads a bundle's user tower and replays its probes, which also warms it."""
    encoder = Encoder(bundle, threads=threads)
    encoder.probe(bundle)
    return encoder


def clock_ms() -> int:
    """Reads the server's clock: UTC milliseconds."""
    return time.time_ns() // 1_000_000


class UserEncoderServicer(user_encoder_pb2_grpc.UserEncoderServiceServicer):
    """Answers marquee.v1.UserEncoderService."""

    def __init__(self, spaces: Spaces[Encoder], store: FeatureStore) -> None:
        self._spaces = spaces
        self._store = store

    async def Encode(  # noqa: N802
        self, request: user_encoder_pb2.EncodeRequest, context: Context
    ) -> user_encoder_pb2.EncodeResponse:
        """Encodes one person."""
        now_ms = clock_ms()
        request_id = request_id_of(request.request_id)
        moment = _moment(request, now_ms)
        person = _read_person(request, now_ms, "")
        loaded = self._spaces.get(request.space)
        vector, prepared = await encode_one(loaded.model, self._store, person, moment)
        encoded = prepared.encoded
        return user_encoder_pb2.EncodeResponse(
            vector=_pack(vector),
            space=loaded.bundle.space,
            bundle_id=loaded.bundle.id,
            request_id=request_id,
            as_of_ms=prepared.as_of_ms,
            source=prepared.source,
            events_used=encoded.used,
            events_unknown=encoded.unknown,
            events_truncated=encoded.truncated,
            newest_event_ms=encoded.newest_ms,
            seen=prepared.seen,
        )

    async def BatchEncode(  # noqa: N802
        self, request: user_encoder_pb2.BatchEncodeRequest, context: Context
    ) -> user_encoder_pb2.BatchEncodeResponse:
        """Encodes up to 1,024 people."""
        now_ms = clock_ms()
        request_id = request_id_of(request.request_id)
        _check_count(len(request.items), MAX_BATCH, "items")
        moment = _moment(request, now_ms)
        loaded = self._spaces.get(request.space)
        batch = await encode_batch(loaded.model, self._store, _read_people(request, now_ms), moment)
        return user_encoder_pb2.BatchEncodeResponse(
            vectors=_pack(batch.vectors_BD),
            results=_results(batch),
            space=loaded.bundle.space,
            bundle_id=loaded.bundle.id,
            request_id=request_id,
            as_of_ms=moment.as_of_ms,
        )

    async def GetModel(  # noqa: N802
        self, request: user_encoder_pb2.GetModelRequest, context: Context
    ) -> user_encoder_pb2.GetModelResponse:
        """Says what this replica has loaded."""
        state = self._spaces.replica_state(_describe)
        return user_encoder_pb2.GetModelResponse(state=state, request_id=request_id_of(""))


class LiveFeaturesServicer(live_features_pb2_grpc.LiveFeaturesServiceServicer):
    """Answers marquee.v1.LiveFeaturesService."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    async def RecordEvents(  # noqa: N802
        self, request: live_features_pb2.RecordEventsRequest, context: Context
    ) -> live_features_pb2.RecordEventsResponse:
        """Records up to 1,000 events."""
        request_id = request_id_of(request.request_id)
        _check_count(len(request.events), MAX_RECORDED, "events")
        refusals = await record(self._store, request.events, clock_ms())
        return live_features_pb2.RecordEventsResponse(
            statuses=[_OK if refusal is None else to_status(refusal) for refusal in refusals],
            recorded=refusals.count(None),
            request_id=request_id,
        )

    async def GetHistory(  # noqa: N802
        self, request: live_features_pb2.GetHistoryRequest, context: Context
    ) -> live_features_pb2.GetHistoryResponse:
        """Reads a page of a person's events."""
        request_id = request_id_of(request.request_id)
        check_user_id(request.user_id, "user_id")
        history = await self._store.read(request.user_id)
        page = page_of(history, request.user_id, request.page_size, request.page_token)
        return live_features_pb2.GetHistoryResponse(
            events=_columns(page.events), next_page_token=page.next_token, total=page.total, request_id=request_id
        )


_OK = status_pb2.Status()


def _check_count(count: int, most: int, field: str) -> None:
    if not 1 <= count <= most:
        raise InvalidRequest(f"{field} has {count} entries; send 1 to {most:,}", field=field)


def _moment(request: user_encoder_pb2.EncodeRequest | user_encoder_pb2.BatchEncodeRequest, now_ms: int) -> Moment:
    return Moment(read_as_of(request.as_of_ms, now_ms), request.as_of_ms == 0, request.allow_cold_start)


def _read_person(
    message: user_encoder_pb2.EncodeRequest | user_encoder_pb2.BatchEncodeItem, now_ms: int, prefix: str
) -> Person:
    if message.user_id:
        check_user_id(message.user_id, f"{prefix}user_id")
    return Person(message.user_id, read_events(message.events, now_ms, f"{prefix}events"))


def _read_people(request: user_encoder_pb2.BatchEncodeRequest, now_ms: int) -> Iterator[Person | MarqueeError]:
    for number, item in enumerate(request.items):
        try:
            person = _read_person(item, now_ms, f"items[{number}].")
        except InvalidRequest as error:
            yield error
        else:
            yield person


def _results(batch: Batch) -> Iterator[user_encoder_pb2.BatchEncodeResult]:
    for one in batch.people:
        if isinstance(one, Prepared):
            yield user_encoder_pb2.BatchEncodeResult(
                source=one.source,
                events_used=one.encoded.used,
                events_unknown=one.encoded.unknown,
                events_truncated=one.encoded.truncated,
                newest_event_ms=one.encoded.newest_ms,
                seen=one.seen,
            )
        else:
            yield user_encoder_pb2.BatchEncodeResult(status=to_status(one))


def _describe(loaded: Loaded[Encoder], message: types_pb2.LoadedBundle) -> None:
    message.feature_spec.CopyFrom(loaded.bundle.manifest.features)


def _columns(events: Events) -> types_pb2.EventColumns:
    return types_pb2.EventColumns(
        movie_ids=events.movie_ids.tolist(),
        kinds=events.kinds.tolist(),
        values=events.values.tolist() if np.any(events.values) else (),
        times_ms=events.times_ms.tolist(),
    )


def _pack(vectors: Floats) -> bytes:
    return vectors.astype("<f4", copy=False).tobytes()
