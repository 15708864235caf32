"""Where the time of an Encode goes: `python -m benchmarks.stages` times its stages in this process, and prints JSON.

Stages of people who are encoded together, microseconds a person. A tight loop keeps everything in the core's caches: in
a server, between other calls, each takes about twice as long, and so does the call itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from marquee.bundle.registry import Registry
from marquee.engine.encoder import Encoder
from marquee.histories import Pair, merge_many, seen_many
from marquee.v1 import user_encoder_pb2
from services.user_encoder.checks import Sent, read_many
from services.user_encoder.encoding import Ask, Moment, pack_ids, prepare_many

T = TypeVar("T")
_REPEATS = 30


class Clock:
    """Times stages, each several times."""

    def __init__(self, people: int) -> None:
        self._people = people
        self.us: dict[str, list[float]] = {}

    def __call__(self, stage: str, work: Callable[[], T]) -> T:
        """Runs a stage and notes how long it took a person."""
        started = time.perf_counter()
        done = work()
        self.us.setdefault(stage, []).append((time.perf_counter() - started) / self._people * 1e6)
        return done


def measure(encoder: Encoder, requests: list[bytes], people: int) -> dict[str, float]:
    """Takes people through the stages, others at each time; returns medians."""
    clock = Clock(people)
    for at in range(_REPEATS):
        first = at * people % max(1, len(requests) - people)
        _encode(encoder, requests[first : first + people], clock)
    return {stage: statistics.median(taken) for stage, taken in clock.us.items()}


def _encode(encoder: Encoder, requests: list[bytes], clock: Clock) -> None:
    now_ms = time.time_ns() // 1_000_000
    moment = Moment(now_ms, live=True, allow_cold_start=True)
    parse = user_encoder_pb2.EncodeRequest.FromString
    messages = clock("parsing the message", lambda: [parse(request) for request in requests])
    sent = [Sent(message.events, now_ms, "events") for message in messages]
    asks = [Ask("", one, moment) for one in sent]
    read: list[Any] = clock("reading and checking its columns", lambda: read_many(sent))
    pairs = [Pair("", ask.known.events, events) for ask, events in zip(asks, read, strict=True)]
    histories = clock("merging", lambda: merge_many(pairs))
    as_of_ms = np.full(len(requests), now_ms)
    encoded = clock("encoding histories", lambda: encoder.prepare_many(histories, as_of_ms))
    clock("what was seen", lambda: [pack_ids(ids) for ids in seen_many(histories)])
    feeds = clock("gathering history rows", lambda: encoder.feeds(encoded.tower))
    vectors: Any = clock("ONNX Runtime", lambda: encoder.session.run(None, feeds)[0])
    _, accounts = prepare_many(encoder, asks)
    clock("writing the answer", lambda: [_answer(*one) for one in zip(vectors, accounts, strict=True)])


def _answer(vector: Any, account: Any) -> bytes:
    return user_encoder_pb2.EncodeResponse(
        vector=vector.tobytes(),
        space="0" * 64,
        bundle_id="0" * 64,
        request_id="0" * 32,
        as_of_ms=account.as_of_ms,
        source=account.source,
        events_used=account.used,
        events_unknown=account.unknown,
        events_truncated=account.truncated,
        newest_event_ms=account.newest_ms,
        seen=account.seen,
    ).SerializeToString()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--registry", type=Path, required=True, help="registry whose active bundle encodes")
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of EncodeRequests, hex")
    options = parser.parse_args(arguments)
    registry = Registry(options.registry)
    encoder = Encoder(registry.open(registry.read().active))
    requests = [bytes.fromhex(each) for each in json.loads(options.requests.read_text())]
    print(json.dumps({people: measure(encoder, requests, people) for people in (1, 32)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
