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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from marquee.bundle.registry import Registry
from marquee.engine.encoder import Encoder
from marquee.features import TowerInput, merge, seen_ids, user_hash
from marquee.histories import Pair, merge_many, seen_many
from marquee.v1 import user_encoder_pb2
from services.user_encoder.checks import Sent, read_events, read_many
from services.user_encoder.encoding import Ask, Moment, encode_alone, encode_response, pack_ids, prepare_many

T = TypeVar("T")
_REPEATS = 100


class Clock:
    """Times stages, each several times, by the CPU that they take: everything runs on one thread."""

    def __init__(self, people: int) -> None:
        self._people = people
        self.us: dict[str, list[float]] = {}

    def __call__(self, stage: str, work: Callable[[], T]) -> T:
        """Runs a stage and notes how long it took a person."""
        started = time.thread_time_ns()
        done = work()
        self.us.setdefault(stage, []).append((time.thread_time_ns() - started) / self._people / 1000)
        return done

    def medians(self) -> dict[str, float]:
        """Says how long each stage took, as a rule."""
        return {stage: statistics.median(taken) for stage, taken in self.us.items()}


def measure(encoder: Encoder, requests: list[bytes], people: int) -> dict[str, float]:
    """Takes people through the stages, others at each time, one by the code for one; returns medians."""
    clock = Clock(people)
    for at in range(_REPEATS):
        first = at * people % max(1, len(requests) - people)
        encode = _encode_one if people == 1 else _encode_many
        encode(encoder, requests[first : first + people], clock)
    return clock.medians()


def _parsed(requests: list[bytes], now_ms: int, clock: Clock) -> list[Ask]:
    moment, parse = Moment(now_ms, live=True, allow_cold_start=True), user_encoder_pb2.EncodeRequest.FromString
    messages = clock("parsing", lambda: [parse(request) for request in requests])
    return [Ask("", Sent(message.events, now_ms, "events"), moment) for message in messages]


def _encode_one(encoder: Encoder, requests: list[bytes], clock: Clock) -> None:
    now_ms = time.time_ns() // 1_000_000
    (ask,) = _parsed(requests, now_ms, clock)
    events = clock("reading columns", lambda: read_events(*ask.sent))
    merged = clock("merging", lambda: merge(ask.known.events, events, user_hash("")))
    encoded = clock("encoding", lambda: encoder.prepare(merged, now_ms))
    clock("what was seen", lambda: pack_ids(seen_ids(merged)))
    _finish(encoder, encoded.tower, [encode_alone(encoder, ask)[1]], clock)


def _encode_many(encoder: Encoder, requests: list[bytes], clock: Clock) -> None:
    now_ms = time.time_ns() // 1_000_000
    asks = _parsed(requests, now_ms, clock)
    read: list[Any] = clock("reading columns", lambda: read_many([ask.sent for ask in asks]))
    pairs = [Pair("", ask.known.events, events) for ask, events in zip(asks, read, strict=True)]
    histories = clock("merging", lambda: merge_many(pairs))
    as_of_ms = np.full(len(requests), now_ms)
    encoded = clock("encoding", lambda: encoder.prepare_many(histories, as_of_ms))
    clock("what was seen", lambda: [pack_ids(ids) for ids in seen_many(histories)])
    _finish(encoder, encoded.tower, prepare_many(encoder, asks)[1], clock)


def _finish(encoder: Encoder, tower: TowerInput, accounts: Sequence[Any], clock: Clock) -> None:
    feeds = clock("gathering rows", lambda: encoder.feeds(tower))
    vectors: Any = clock("ONNX Runtime", lambda: encoder.session.run(None, feeds)[0])
    clock("writing the answer", lambda: [_answer(*one) for one in zip(vectors, accounts, strict=True)])


def _answer(vector: Any, account: Any) -> bytes:
    return encode_response(vector, account, "0" * 64, "0" * 64, "0" * 32).SerializeToString()


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
