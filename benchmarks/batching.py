"""What BatchEncode costs beside its parts: `python -m benchmarks.batching` times both in this process, and prints JSON.

Whole: the request's bytes in, the answer's bytes out. Parts: reading the request and its columns into arrays, and ONNX
Runtime on the batch as it is then. Both on uvloop and one thread of ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from marquee.bundle.registry import Registry
from marquee.engine.encoder import Encoder
from marquee.features import TowerInput, pad_batch
from marquee.v1 import types_pb2, user_encoder_pb2
from services.common.spaces import Spaces
from services.user_encoder.checks import read_events
from services.user_encoder.encoding import Moment, Person, prepare
from services.user_encoder.ladder import NOTHING, Ladder
from services.user_encoder.servicer import UserEncoderServicer, load_encoder
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.opening import open_store

PAIRS = 7
REPEATS = 8
_COLUMNS = {"movie_ids": np.int64, "kinds": np.int64, "values": np.float32, "times_ms": np.int64}


async def measure(settings: UserEncoderSettings, request: bytes, space: str) -> dict[str, Any]:
    """Times the whole and its parts in turn, in seconds."""
    async with aclosing(open_store(settings)) as store:
        spaces = Spaces(Registry(settings.registry), partial(load_encoder, threads=1), settings)
        await spaces.start()
        message = user_encoder_pb2.BatchEncodeRequest.FromString(request)
        message.space = space
        request = message.SerializeToString()
        servicer = UserEncoderServicer(spaces, Ladder(store, settings))
        encoder = spaces.get(space).model
        feeds = encoder.feeds(_tower(encoder, request))
        unread: Any = None

        async def whole() -> None:
            message = user_encoder_pb2.BatchEncodeRequest.FromString(request)
            (await servicer.BatchEncode(message, unread)).SerializeToString()

        pairs = []
        for _ in range(PAIRS):
            started = time.perf_counter()
            for _ in range(REPEATS):
                await whole()
            ours_s = (time.perf_counter() - started) / REPEATS
            pairs.append((ours_s, _timed(partial(_read, request)), _timed(partial(encoder.session.run, None, feeds))))
        return {"pairs": pairs, "bytes": len(request)}


def _timed(call: Any) -> float:
    started = time.perf_counter()
    for _ in range(REPEATS):
        call()
    return (time.perf_counter() - started) / REPEATS


def _read(request: bytes) -> None:
    for item in user_encoder_pb2.BatchEncodeRequest.FromString(request).items:
        for name, kind in _COLUMNS.items():
            np.array(getattr(item.events, name)[:], kind)


def _tower(encoder: Encoder, request: bytes) -> TowerInput:
    message = user_encoder_pb2.BatchEncodeRequest.FromString(request)
    now_ms = time.time_ns() // 1_000_000
    moment = Moment(now_ms, live=True, allow_cold_start=True)

    def prepared(events: types_pb2.EventColumns) -> TowerInput:
        person = Person("", read_events(events, now_ms, "events"))
        return prepare(encoder, person, NOTHING, moment).encoded.tower

    return pad_batch([prepared(item.events) for item in message.items])


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--registry", type=Path, required=True, help="registry with the space")
    parser.add_argument("--store", required=True, help="feature store")
    parser.add_argument("--request", type=Path, required=True, help="file of a BatchEncodeRequest")
    parser.add_argument("--space", default="", help="space to encode in (the active one)")
    options = parser.parse_args(arguments)
    settings = UserEncoderSettings(registry=options.registry, store=options.store)
    print(json.dumps(uvloop.run(measure(settings, options.request.read_bytes(), options.space))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
