"""The rpcs: each method turns its request into a domain call and the result into its answer."""

from __future__ import annotations

from collections.abc import Iterator

import grpc.aio

from marquee.bundle.format import Bundle
from marquee.engine.encoder import Encoder
from marquee.errors import InvalidRequest, MarqueeError, to_status
from marquee.features import Floats
from marquee.v1 import live_features_pb2_grpc, types_pb2, user_encoder_pb2, user_encoder_pb2_grpc
from services.common.measures import BATCH_SIZE, stage
from services.common.requests import request_id_of
from services.common.spaces import Loaded, Spaces
from services.user_encoder.checks import (
    DEFAULT_LEFT_OUT,
    MAX_LEFT_OUT,
    Sent,
    check_count,
    check_user_id,
    read_as_of,
    read_events,
    read_movie_ids,
    read_size,
)
from services.user_encoder.encoding import (
    Account,
    Ask,
    Batch,
    Moment,
    Person,
    account_fields,
    encode_batch,
    encode_response,
    look_up,
    prepare,
    tell,
)
from services.user_encoder.explaining import Explainer
from services.user_encoder.ladder import Ladder
from services.user_encoder.live_features import LiveFeaturesServicer
from services.user_encoder.served import ServedPeople
from services.user_encoder.together import Together
from services.user_encoder.wire import Context, clock_ms, columns

MAX_BATCH = 1024


SERVICES = ("marquee.v1.UserEncoderService", "marquee.v1.LiveFeaturesService")


def add_servicers(
    spaces: Spaces[Encoder], ladder: Ladder, server: grpc.aio.Server, people: ServedPeople | None = None
) -> None:
    """Adds the services of SERVICES to a server; `people` gets whose the requests are, where that is written."""
    encoder, features = UserEncoderServicer(spaces, ladder, people), LiveFeaturesServicer(ladder)
    user_encoder_pb2_grpc.add_UserEncoderServiceServicer_to_server(encoder, server)
    live_features_pb2_grpc.add_LiveFeaturesServiceServicer_to_server(features, server)


def load_encoder(bundle: Bundle, *, threads: int) -> Encoder:
    """Loads a bundle's user tower and replays its probes, which also warms it."""
    encoder = Encoder(bundle, threads=threads)
    encoder.probe(bundle)
    return encoder


class UserEncoderServicer(user_encoder_pb2_grpc.UserEncoderServiceServicer):
    """Answers marquee.v1.UserEncoderService."""

    def __init__(self, spaces: Spaces[Encoder], ladder: Ladder, people: ServedPeople | None = None) -> None:
        self._spaces = spaces
        self._ladder = ladder
        self._people = people
        self._together = Together()
        self._explainer = Explainer()

    async def Encode(  # noqa: N802
        self, request: user_encoder_pb2.EncodeRequest, context: Context
    ) -> user_encoder_pb2.EncodeResponse:
        """Encodes one person."""
        now_ms = clock_ms()
        request_id = request_id_of(request.request_id)
        ask = _ask(request, _moment(request, now_ms), now_ms, "")
        loaded = self._spaces.get(request.space)
        with stage("store"):
            known = await look_up(self._ladder, ask.user_id)
        with stage("encode"):
            vector, account = await self._together.encode(loaded.model, ask._replace(known=known))
        tell(self._ladder, [account])
        if self._people is not None:
            self._people.add(ask.user_id, request_id)
        return encode_response(vector, account, loaded.bundle.space, loaded.bundle.id, request_id)

    async def BatchEncode(  # noqa: N802
        self, request: user_encoder_pb2.BatchEncodeRequest, context: Context
    ) -> user_encoder_pb2.BatchEncodeResponse:
        """Encodes up to 1,024 people."""
        now_ms = clock_ms()
        request_id = request_id_of(request.request_id)
        check_count(len(request.items), MAX_BATCH, "items")
        BATCH_SIZE.observe(len(request.items))
        moment = _moment(request, now_ms)
        loaded = self._spaces.get(request.space)
        people = _asks(request, moment, now_ms)
        batch = await encode_batch(loaded.model, self._ladder, people)
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
        movie_ids = read_movie_ids(request.movie_ids)
        most = read_size(request.max_events, DEFAULT_LEFT_OUT, MAX_LEFT_OUT, "max_events")
        moment = Moment(read_as_of(request.as_of_ms, now_ms), request.as_of_ms == 0, allow_cold_start=False)
        ask = _ask(request, moment, now_ms, "")
        events = read_events(*ask.sent)
        loaded = self._spaces.get(request.space)
        with stage("store"):
            known = await look_up(self._ladder, ask.user_id)
        prepared = prepare(loaded.model, Person(ask.user_id, events), known, moment)
        with stage("encode"):
            explained = await self._explainer.explain(loaded.model, prepared, movie_ids, most)
        tell(self._ladder, [prepared])
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
            features_age_ms=prepared.age_ms,
            degraded=prepared.degraded,
        )

    async def GetModel(  # noqa: N802
        self, request: user_encoder_pb2.GetModelRequest, context: Context
    ) -> user_encoder_pb2.GetModelResponse:
        """Says what this replica has loaded, and how its store is."""
        return user_encoder_pb2.GetModelResponse(
            state=self._spaces.replica_state(_describe), request_id=request_id_of(""), store=_store_state(self._ladder)
        )


def _moment(request: user_encoder_pb2.EncodeRequest | user_encoder_pb2.BatchEncodeRequest, now_ms: int) -> Moment:
    return Moment(read_as_of(request.as_of_ms, now_ms), request.as_of_ms == 0, request.allow_cold_start)


def _ask(
    message: user_encoder_pb2.EncodeRequest | user_encoder_pb2.BatchEncodeItem | user_encoder_pb2.ExplainRequest,
    moment: Moment,
    now_ms: int,
    prefix: str,
) -> Ask:
    if message.user_id:
        check_user_id(message.user_id, f"{prefix}user_id")
    return Ask(message.user_id, Sent(message.events, now_ms, f"{prefix}events"), moment)


def _asks(request: user_encoder_pb2.BatchEncodeRequest, moment: Moment, now_ms: int) -> Iterator[Ask | MarqueeError]:
    for number, item in enumerate(request.items):
        try:
            ask = _ask(item, moment, now_ms, f"items[{number}].")
        except InvalidRequest as error:
            yield error
        else:
            yield ask


def _results(batch: Batch) -> Iterator[user_encoder_pb2.BatchEncodeResult]:
    for one in batch.people:
        if isinstance(one, Account):
            yield user_encoder_pb2.BatchEncodeResult(**account_fields(one))
        else:
            yield user_encoder_pb2.BatchEncodeResult(status=to_status(one))


def _describe(loaded: Loaded[Encoder], message: types_pb2.LoadedBundle) -> None:
    message.feature_spec.CopyFrom(loaded.bundle.manifest.features)


def _store_state(ladder: Ladder) -> user_encoder_pb2.StoreState:
    return user_encoder_pb2.StoreState(
        kind=ladder.kind,
        reachable=ladder.breaker.reachable,
        last_error=ladder.breaker.last_error,
        stale_answers=ladder.stale_answers,
        blind_answers=ladder.blind_answers,
        refused_writes=ladder.refused_writes,
    )


def _pack(vectors: Floats) -> bytes:
    return vectors.astype("<f4", copy=False).tobytes()
