"""The one caller: `python -m benchmarks.caller` times calls to running services and to the floors, and prints JSON.

Every case is measured in pairs: a block of calls to the services, then the same block to the floors, which answer with
what the services answered to the request of median size. The two differ by what the services do, and by nothing else.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from benchmarks.floor import REMEMBER
from marquee.client import Recommender
from marquee.errors import DataError, MarqueeError
from marquee.v1 import live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2
from marquee.v1.live_features_pb2_grpc import LiveFeaturesServiceStub
from marquee.v1.retriever_pb2_grpc import RetrieverServiceStub
from marquee.v1.user_encoder_pb2_grpc import UserEncoderServiceStub

WARM_UP = 200
PAIRS = 7
BLOCK = 300
EVENTS = 50
_SEED = 0
# Long, so that a hiccup is measured and not refused.
_DEADLINE_S = 10.0

Encode = user_encoder_pb2.EncodeRequest
Search = retriever_pb2.SearchRequest
Milliseconds = npt.NDArray[np.float64]


class Side(NamedTuple):
    """Is what a case calls: the services, or the floors in their place."""

    encoder: grpc.Channel
    sdk: Recommender
    encode: Callable[[Encode], user_encoder_pb2.EncodeResponse]
    search: Callable[[Search], retriever_pb2.SearchResponse]
    remember: tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]


class Case(NamedTuple):
    """Is one thing to time: `call` makes its nth call; it sends the requests of `encodes` and `searches`."""

    name: str
    call: Callable[[Side, int], object]
    encodes: Sequence[Encode] = ()
    searches: Sequence[Search] = ()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        print(json.dumps(measure(options.data, options.services, options.floors)))
    except MarqueeError as error:
        print(f"caller: {error.message}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        status: Any = error
        print(f"caller: a call ended with {status.code().name}: {status.details()}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caller", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the ratings.csv that is in the store")
    addresses = ("ENCODER", "RETRIEVER")
    parser.add_argument("--services", nargs=2, required=True, metavar=addresses, help="addresses of the services")
    parser.add_argument("--floors", nargs=2, required=True, metavar=addresses, help="addresses of the floors")
    return parser


def measure(data: Path, services: tuple[str, str], floors: tuple[str, str]) -> list[dict[str, Any]]:
    """Measures all cases, one after the other."""
    with ExitStack() as stack:
        live, floor = (_connect(stack, *addresses) for addresses in (services, floors))
        return [_measure_case(case, live, floor) for case in _cases(live, draw_users(data))]


def _connect(stack: ExitStack, encoder: str, retriever: str) -> Side:
    to_encoder, to_retriever = (stack.enter_context(grpc.insecure_channel(each)) for each in (encoder, retriever))
    return Side(
        encoder=to_encoder,
        sdk=stack.enter_context(Recommender(encoder, retriever, deadline_s=_DEADLINE_S)),
        encode=partial(UserEncoderServiceStub(to_encoder).Encode, timeout=_DEADLINE_S),
        search=partial(RetrieverServiceStub(to_retriever).Search, timeout=_DEADLINE_S),
        remember=(_remember(to_encoder), _remember(to_retriever)),
    )


def _remember(channel: grpc.Channel) -> Callable[[bytes], bytes]:
    call: Any = channel.unary_unary(REMEMBER)
    remember: Callable[[bytes], bytes] = partial(call, timeout=_DEADLINE_S)
    return remember


def draw_users(data: Path) -> list[str]:
    """Draws the people of a block, the same at every run; one comes again only where there are fewer."""
    with (data / "ratings.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream)
        place = next(rows, []).index("userId")
        users = sorted({row[place] for row in rows if row})
    if not users:
        raise DataError(f"{data / 'ratings.csv'} has no rows: name other data with --data")
    drawn = random.Random(_SEED).sample(users, min(BLOCK, len(users)))
    return list(islice(cycle(drawn), BLOCK))


def _cases(live: Side, users: list[str]) -> list[Case]:
    by_id = [Encode(user_id=user, allow_cold_start=True) for user in users]
    vectors = [live.encode(request) for request in by_id]
    ten, detailed = (_searches(vectors, 10, details) for details in ((), ("*",)))
    events, hundred = _events(live, users), _searches(vectors, 100, ())
    return [
        Case(
            "`recommend(user_id, k=10)` of the SDK",
            lambda side, at: side.sdk.recommend(users[at], k=10),
            by_id,
            detailed,
        ),
        Case("the same without details, on bare stubs", lambda side, at: _compose(side, by_id[at]), by_id, ten),
        Case("Encode by id", lambda side, at: side.encode(by_id[at]), by_id),
        Case(
            f"Encode of {len(events[0].events.movie_ids)} events in the request",
            lambda side, at: side.encode(events[at]),
            events,
        ),
        Case("Search, k=100, without details", lambda side, at: side.search(hundred[at]), (), hundred),
    ]


def _searches(
    vectors: Sequence[user_encoder_pb2.EncodeResponse], k: int, details: Sequence[str]
) -> list[retriever_pb2.SearchRequest]:
    return [_search(encoded, k, details) for encoded in vectors]


def _search(encoded: user_encoder_pb2.EncodeResponse, k: int, details: Sequence[str]) -> Search:
    mask = FieldMask(paths=details)
    return Search(vector=encoded.vector, space=encoded.space, k=k, exclude_packed=encoded.seen, details=mask)


def _compose(side: Side, request: Encode) -> retriever_pb2.SearchResponse:
    return side.search(_search(side.encode(request), 10, ()))


def _events(live: Side, users: list[str]) -> list[Encode]:
    """Sends the newest events of those who have the most, up to EVENTS, as if nothing of them were stored."""
    stub = LiveFeaturesServiceStub(live.encoder)
    histories = [newest_events(stub, user) for user in users]
    most = max(len(events.movie_ids) for events in histories)
    full = [Encode(events=events) for events in histories if len(events.movie_ids) == most]
    return list(islice(cycle(full), BLOCK))


def newest_events(stub: LiveFeaturesServiceStub, user: str) -> types_pb2.EventColumns:
    """Reads a person's newest events, up to EVENTS."""
    request = live_features_pb2.GetHistoryRequest(user_id=user, page_size=EVENTS)
    return stub.GetHistory(request, timeout=_DEADLINE_S).events


def _measure_case(case: Case, live: Side, floor: Side) -> dict[str, Any]:
    sizes = _prime(case, live, floor)
    for side in (live, floor):
        _time_block(case, side, WARM_UP)
    pairs = [(_time_block(case, live, BLOCK), _time_block(case, floor, BLOCK)) for _ in range(PAIRS)]
    live_ms, floor_ms = (np.concatenate(blocks) for blocks in zip(*pairs, strict=True))
    ratios = [float(np.median(ours) / np.median(theirs)) for ours, theirs in pairs]
    return {
        "name": case.name,
        "calls": live_ms.size,
        "ms": _percentiles(live_ms),
        "floor_ms": _percentiles(floor_ms),
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "response_bytes": sizes,
    }


def _prime(case: Case, live: Side, floor: Side) -> list[int]:
    """Gives the floors the services' answers of median size; returns their sizes."""
    answers = [
        _median_answer([live.encode(request) for request in case.encodes]),
        _median_answer([live.search(request) for request in case.searches]),
    ]
    for remember, answer in zip(floor.remember, answers, strict=True):
        remember(answer)
    return [len(answer) for answer in answers if answer]


def _median_answer(answers: Sequence[Message]) -> bytes:
    ordered = sorted((answer.SerializeToString() for answer in answers), key=len)
    return ordered[len(ordered) // 2] if ordered else b""


def _time_block(case: Case, side: Side, calls: int) -> Milliseconds:
    taken = np.empty(calls)
    for at in range(calls):
        started = perf_counter_ns()
        case.call(side, at)
        taken[at] = perf_counter_ns() - started
    return taken / 1e6


def _percentiles(taken: Milliseconds) -> dict[str, float]:
    return {f"p{at}": float(np.percentile(taken, at)) for at in (50, 95, 99)}


if __name__ == "__main__":
    sys.exit(main())
