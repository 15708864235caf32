"""Recommends by the services' batch rpcs, some hundred people a call and some calls at once."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message
from pyarrow import parquet

from clients.batch.arguments import PEOPLE_PER_CALL
from clients.batch.lists import Lists, Origin, Wanted, join
from clients.cli.connection import Connection
from marquee.client.batches import parts
from marquee.client.channels import Links, Transport, settings
from marquee.client.failures import Peer, translate
from marquee.client.rpcs import BATCH_ENCODE, BATCH_SEARCH, GET_INDEX, GET_MODEL, Rpc, Service
from marquee.errors import Overloaded, RegistryError, StoreUnavailable, UserUnknown, from_status
from marquee.v1 import live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2
from marquee.v1.live_features_pb2_grpc import LiveFeaturesServiceStub

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

# People a page of ExportEvents.
_PAGE = 1000
# A service that is busy is left alone for so long at least, and for so long where it does not say.
_LEAST_WAIT_S, _WAIT_S = 0.1, 1.0


class Remote:
    """Recommends by the services; `calls` are made at once, each within the connection's deadline."""

    def __init__(self, connection: Connection, *, calls: int) -> None:
        self._settings = settings(
            connection.encoder, connection.retriever, connection.deadline_s, 1, connection.api_key, connection.tls
        )
        self._links = Links(Transport(grpc.insecure_channel, grpc.secure_channel), self._settings)
        self._pool = ThreadPoolExecutor(calls, "calls")

    def close(self) -> None:
        """Closes the connections; who still waits for an answer gets an error, so that no thread is left."""
        for channel in self._links.take_all():
            channel.close()
        self._pool.shutdown(cancel_futures=True)

    def origin(self, bundle_id: str) -> Origin:
        """Finds the bundle among those that both services have loaded."""
        encoder = self._call(GET_MODEL, user_encoder_pb2.GetModelRequest()).state
        retriever = self._call(GET_INDEX, retriever_pb2.GetIndexRequest()).state
        wanted = bundle_id or encoder.bundles[0].bundle_id
        spaces = [bundle.space for bundle in retriever.bundles if bundle.bundle_id == wanted]
        if not spaces or not _has(encoder, wanted):
            raise RegistryError(
                f"bundle {wanted[:12]} is not loaded by both services: the encoder has {_listed(encoder)}, the "
                f"retriever {_listed(retriever)}; where a roll-out is on its way, wait for its end"
            )
        return Origin(wanted, spaces[0])

    def source(self) -> str:
        """Names the store as the encoder's, wherever that is now."""
        return "the encoder's store"

    def people(self) -> list[str]:
        """Lists everybody in the encoder's store, from its export."""
        return list(dict.fromkeys(self._exported()))

    def _exported(self) -> Iterator[str]:
        request = live_features_pb2.ExportEventsRequest(page_size=_PAGE)
        while True:
            # Anew for each page: the links are others once the certificates were renewed.
            export = LiveFeaturesServiceStub(self._links.next().channels[0]).ExportEvents
            page = self._asked(Service.USER_ENCODER, export, request)
            if page.parquet:
                column = parquet.read_table(io.BytesIO(page.parquet), columns=["user_id"])["user_id"]
                yield from column.unique().to_pylist()
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def recommend(self, user_ids: Sequence[str], wanted: Wanted, origin: Origin, done: Callable[[int], None]) -> Lists:
        """Makes people's lists; raises RegistryError where the services answer from another bundle."""
        calls = [user_ids[start : start + PEOPLE_PER_CALL] for start in range(0, len(user_ids), PEOPLE_PER_CALL)]
        made = self._pool.map(lambda some: self._lists(some, wanted, origin), calls)
        lists = []
        for part, some in zip(made, calls, strict=True):
            lists.append(part)
            done(len(some))
        return join(lists)

    def _lists(self, user_ids: Sequence[str], wanted: Wanted, origin: Origin) -> Lists:
        encode = user_encoder_pb2.BatchEncodeRequest(
            items=[user_encoder_pb2.BatchEncodeItem(user_id=user_id) for user_id in user_ids],
            as_of_ms=wanted.as_of_ms,
            space=origin.space,
        )
        encoded = self._call(BATCH_ENCODE, encode)
        _check_origin("encoder", encoded.bundle_id, origin)
        known = [at for at, result in enumerate(encoded.results) if _has_events(result)]
        if not known:
            return join([])
        # Each query says again what is wanted: with many ids to exclude, not all of them fit into one message.
        calls = parts(_queries(encoded, known, wanted), PEOPLE_PER_CALL, retriever_pb2.BatchSearchQuery.ByteSize)
        found = [result for queries in calls for result in self._found(queries, origin)]
        return _told([user_ids[at] for at in known], found)

    def _found(
        self, queries: Sequence[retriever_pb2.BatchSearchQuery], origin: Origin
    ) -> Sequence[retriever_pb2.BatchSearchResult]:
        answer = self._call(BATCH_SEARCH, retriever_pb2.BatchSearchRequest(queries=queries, space=origin.space))
        _check_origin("retriever", answer.bundle_id, origin)
        return answer.results

    def _call(self, rpc: Rpc[Q, A], request: Q) -> A:
        answer: A = self._asked(rpc.service, self._links.next().methods[rpc], request)
        return answer

    def _asked(self, service: Service, method: Callable[..., Any], request: Message) -> Any:
        """Makes a call; where the service has too many, again when it says, until the deadline."""
        deadline_s = self._settings.deadline_s
        peer = Peer(service, self._settings.addresses[service], deadline_s, self._settings.credentials is not None)
        until = time.monotonic() + deadline_s
        while True:
            left_s = until - time.monotonic()
            try:
                return method(request, timeout=max(0.0, left_s), metadata=self._settings.metadata)
            except grpc.RpcError as error:
                refused = translate(error, peer)
                if not isinstance(refused, Overloaded) or left_s <= _LEAST_WAIT_S:
                    raise refused from error
                wait_s = _WAIT_S if refused.retry_after_s is None else refused.retry_after_s
                time.sleep(min(max(wait_s, _LEAST_WAIT_S), left_s))


def _has(state: types_pb2.ReplicaState, bundle_id: str) -> bool:
    return any(bundle.bundle_id == bundle_id for bundle in state.bundles)


def _listed(state: types_pb2.ReplicaState) -> str:
    return ", ".join(bundle.bundle_id[:12] for bundle in state.bundles)


def _check_origin(service: str, bundle_id: str, origin: Origin) -> None:
    if bundle_id != origin.bundle_id:
        raise RegistryError(
            f"the {service} answers from bundle {bundle_id[:12]}, and these lists are made with "
            f"{origin.bundle_id[:12]}: they are not mixed. Begin anew with another --out"
        )


def _has_events(result: user_encoder_pb2.BatchEncodeResult) -> bool:
    """Says whether there is somebody to recommend for; raises what else went wrong with them."""
    if result.status.code:
        error = from_status(result.status)
        if not isinstance(error, UserUnknown):
            raise error
        return False
    if result.degraded:
        raise StoreUnavailable(
            "the encoder could not read its store for somebody, and their list would lack what they did; see to the "
            "store, then run this again: it goes on where it was"
        )
    return True


def _queries(
    encoded: user_encoder_pb2.BatchEncodeResponse, known: Sequence[int], wanted: Wanted
) -> Iterator[retriever_pb2.BatchSearchQuery]:
    size = len(encoded.vectors) // len(encoded.results)
    for at in known:
        yield retriever_pb2.BatchSearchQuery(
            vector=encoded.vectors[at * size : (at + 1) * size],
            k=wanted.k,
            filter=wanted.filter if wanted.filter.ByteSize() else None,
            exclude_packed=encoded.results[at].seen if wanted.exclude_seen else b"",
        )


def _told(user_ids: list[str], found: Sequence[retriever_pb2.BatchSearchResult]) -> Lists:
    for result in found:
        if result.status.code:
            raise from_status(result.status)
    return Lists(
        user_ids,
        np.array([len(result.movie_ids) for result in found], np.int64),
        np.array([movie_id for result in found for movie_id in result.movie_ids], np.int64),
        np.array([score for result in found for score in result.scores], np.float32),
    )
