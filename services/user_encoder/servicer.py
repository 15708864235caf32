"""The rpcs: each method turns its request into a domain call and the result into its answer."""

from __future__ import annotations

from collections.abc import Iterator

import grpc.aio

from marquee.bundle.format import Bundle
from marquee.engine.encoder import Encoder
from marquee.errors import InvalidRequest, MarqueeError, to_status
from marquee.features import Floats
from marquee.v1 import live_features_pb2_grpc, types_pb2, user_encoder_pb2, user_encoder_pb2_grpc
from services.common.requests import request_id_of
from services.common.spaces import Loaded, Spaces
from services.user_encoder.checks import check_user_id, read_as_of, read_events, read_max_events, read_movie_ids
from services.user_encoder.encoding import Batch, Moment, Person, Prepared, encode_batch, encode_one, prepare_one
from services.user_encoder.explaining import Explainer
from services.user_encoder.live_features import LiveFeaturesServicer
from services.user_encoder.stores.base import FeatureStore
from services.user_encoder.wire import Context, check_count, clock_ms, columns

MAX_BATCH = 1024


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


class UserEncoderServicer(user_encoder_pb2_grpc.UserEncoderServiceServicer):
    """Answers marquee.v1.UserEncoderService."""

    def __init__(self, spaces: Spaces[Encoder], store: FeatureStore) -> None:
        self._spaces = spaces
        self._store = store
        self._explainer = Explainer()

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
        check_count(len(request.items), MAX_BATCH, "items")
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

    async def Explain(  # noqa: N802
        self, request: user_encoder_pb2.ExplainRequest, context: Context
    ) -> user_encoder_pb2.ExplainResponse:
        """Says which of a person's events speak for and against movies."""
        now_ms = clock_ms()
        request_id = request_id_of(request.request_id)
        movie_ids, most = read_movie_ids(request.movie_ids), read_max_events(request.max_events)
        moment = Moment(read_as_of(request.as_of_ms, now_ms), request.as_of_ms == 0, allow_cold_start=False)
        person = _read_person(request, now_ms, "")
        loaded = self._spaces.get(request.space)
        prepared = await prepare_one(loaded.model, self._store, person, moment)
        explained = await self._explainer.explain(loaded.model, prepared, movie_ids, most)
        return user_encoder_pb2.ExplainResponse(
            movie_ids=movie_ids[explained.known].tolist(),
            unknown_movie_ids=movie_ids[~explained.known].tolist(),
            events=columns(explained.events),
            scores=_pack(explained.scores_N),
            contributions=_pack(explained.contributions_NK),
            space=loaded.bundle.space,
            bundle_id=loaded.bundle.id,
            request_id=request_id,
            as_of_ms=prepared.as_of_ms,
            source=prepared.source,
            events_used=prepared.encoded.used,
        )

    async def GetModel(  # noqa: N802
        self, request: user_encoder_pb2.GetModelRequest, context: Context
    ) -> user_encoder_pb2.GetModelResponse:
        """Says what this replica has loaded."""
        state = self._spaces.replica_state(_describe)
        return user_encoder_pb2.GetModelResponse(state=state, request_id=request_id_of(""))


def _moment(request: user_encoder_pb2.EncodeRequest | user_encoder_pb2.BatchEncodeRequest, now_ms: int) -> Moment:
    return Moment(read_as_of(request.as_of_ms, now_ms), request.as_of_ms == 0, request.allow_cold_start)


def _read_person(
    message: user_encoder_pb2.EncodeRequest | user_encoder_pb2.BatchEncodeItem | user_encoder_pb2.ExplainRequest,
    now_ms: int,
    prefix: str,
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


def _pack(vectors: Floats) -> bytes:
    return vectors.astype("<f4", copy=False).tobytes()
