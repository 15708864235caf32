"""Makes a scenario's calls and looks at every answer: a status of OK around a wrong answer is no good answer."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from google.rpc import code_pb2

from clients.loadtest.scenarios import METHODS, Pools, search_request
from clients.loadtest.tally import BAD_ANSWER, OK
from clients.loadtest.target import ENCODE, RECORD, SEARCH, Link, Method
from marquee.v1 import live_features_pb2, retriever_pb2, user_encoder_pb2

T = TypeVar("T")
_NORM = 1e-3


class BadAnswer(Exception):
    """Says what is wrong with an answer whose status is OK."""


class Expected(NamedTuple):
    """Is what answers must be like."""

    dimension: int
    k: int
    details: bool


class Ended(NamedTuple):
    """Says how a scenario's calls ended; `told` is what a failure said, "" where there was none."""

    code: str = OK
    told: str = ""
    degraded: bool = False
    cold_start: bool = False


class Caller:
    """Makes calls of one process: requests come in turn, from a place of its own."""

    def __init__(self, link: Link, scenarios: Sequence[str], pools: Pools, expected: Expected, seed: int) -> None:
        rng = random.Random(seed)
        called = {method for name in scenarios for method in METHODS[name]}
        self._methods = {path: itertools.cycle(link.methods(path)) for path in called}
        self._encodes = _in_turn(pools.encodes, rng)
        self._searches = _in_turn(pools.searches, rng)
        self._records = _in_turn(pools.records, rng)
        self._rest = pools.search_rest
        self._expected = expected
        self._scenarios: dict[str, Callable[[float], Awaitable[Ended]]] = {
            "encode": self._encode,
            "search": self._search,
            "recommend": self._recommend,
            "record": self._record,
        }

    async def call(self, scenario: str, deadline_s: float) -> Ended:
        """Makes a scenario's calls, all within the deadline; never raises for what a server did."""
        try:
            return await self._scenarios[scenario](deadline_s)
        except grpc.aio.AioRpcError as error:
            return Ended(error.code().name, error.details() or "")
        except BadAnswer as error:
            return Ended(BAD_ANSWER, str(error))
        except DecodeError as error:
            return Ended(BAD_ANSWER, f"the answer is no message of the contract: {error}")

    def _next(self, path: str) -> Method:
        return next(self._methods[path])

    async def _encode(self, deadline_s: float) -> Ended:
        return _encode_ended(read_encoded(await self._next(ENCODE)(next(self._encodes), deadline_s), self._expected))

    async def _search(self, deadline_s: float) -> Ended:
        check_found(await self._next(SEARCH)(next(self._searches), deadline_s), self._expected)
        return Ended()

    async def _recommend(self, deadline_s: float) -> Ended:
        end = time.monotonic() + deadline_s
        encoded = read_encoded(await self._next(ENCODE)(next(self._encodes), deadline_s), self._expected)
        request = search_request(encoded, self._rest)
        check_found(await self._next(SEARCH)(request, end - time.monotonic()), self._expected)
        return _encode_ended(encoded)

    async def _record(self, deadline_s: float) -> Ended:
        check_recorded(await self._next(RECORD)(next(self._records), deadline_s))
        return Ended()


def read_encoded(answer: bytes, expected: Expected) -> user_encoder_pb2.EncodeResponse:
    """Reads an Encode's answer; raises BadAnswer where it has no vector of L2 norm 1 and of the space's length."""
    encoded = user_encoder_pb2.EncodeResponse.FromString(answer)
    if len(encoded.vector) != 4 * expected.dimension:
        raise BadAnswer(f"a vector has {len(encoded.vector)} bytes, not {4 * expected.dimension}")
    vector = np.frombuffer(encoded.vector, "<f4")
    # Written so that NaN is refused as well.
    if not abs(float(vector @ vector) - 1.0) < _NORM:
        raise BadAnswer(f"a vector's squared length is {float(vector @ vector):g}, not 1")
    if not encoded.space:
        raise BadAnswer("a vector came without its space")
    return encoded


def check_found(answer: bytes, expected: Expected) -> None:
    """Reads a Search's answer; raises BadAnswer where it has not k movies and does not say why."""
    found = retriever_pb2.SearchResponse.FromString(answer)
    count = len(found.movie_ids)
    if count > expected.k or (count < expected.k and not found.short_reason):
        raise BadAnswer(f"{count} movies came for k = {expected.k}, without a reason")
    if len(found.scores) != count or len(found.movies) != (count if expected.details else 0):
        raise BadAnswer(f"{count} movies came with {len(found.scores)} scores and {len(found.movies)} details")


def check_recorded(answer: bytes) -> None:
    """Reads a RecordEvents' answer; raises BadAnswer where its event was not stored."""
    recorded = live_features_pb2.RecordEventsResponse.FromString(answer)
    if recorded.recorded != 1:
        status = next(iter(recorded.statuses), None)
        code = code_pb2.Code.Name(status.code) if status else "no status"
        raise BadAnswer(f"an event was not stored: {code}: {status.message if status else ''}")


def _encode_ended(encoded: user_encoder_pb2.EncodeResponse) -> Ended:
    cold = encoded.source == user_encoder_pb2.FEATURE_SOURCE_COLD_START
    return Ended(degraded=encoded.degraded, cold_start=cold)


def _in_turn(pool: Sequence[T], rng: random.Random) -> Iterator[T]:
    return itertools.cycle(rng.sample(pool, len(pool)))
