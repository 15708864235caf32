"""What callers notice of a hot reload: `python -m benchmarks.swap` calls at a steady pace, and prints JSON.

It publishes a bundle and activates it meanwhile. A call's latency is counted from when it was due, so that a server
that stands still is not spared the calls that it kept from being made.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio
import numpy as np
import uvloop

from marquee.bundle.registry import Registry
from marquee.v1 import retriever_pb2, user_encoder_pb2

RATE = 150.0
STEADY_S = 8.0
_AFTER_S = 1.0
_DEADLINE_S = 10.0


class Service(NamedTuple):
    """Names a service's method to call, and the one that says what is loaded, with its answer's type."""

    method: str
    asks: str
    state: type[user_encoder_pb2.GetModelResponse] | type[retriever_pb2.GetIndexResponse]


SERVICES = {
    "user_encoder": Service(
        "/marquee.v1.UserEncoderService/Encode",
        "/marquee.v1.UserEncoderService/GetModel",
        user_encoder_pb2.GetModelResponse,
    ),
    "retriever": Service(
        "/marquee.v1.RetrieverService/Search",
        "/marquee.v1.RetrieverService/GetIndex",
        retriever_pb2.GetIndexResponse,
    ),
}


class Call(NamedTuple):
    """Is one call: when it was due, seconds it took from then, and whether it was answered."""

    due: float
    seconds: float
    answered: bool


async def measure(
    service: Service, address: str, registry: Path, bundle: Path, requests: Sequence[bytes]
) -> dict[str, Any]:
    """Calls steadily, then goes on while the bundle is published, loaded and activated. No call is made twice."""
    async with grpc.aio.insecure_channel(address) as channel:
        stop = asyncio.Event()
        calling = asyncio.ensure_future(_call(channel.unary_unary(service.method), requests, stop))
        await asyncio.sleep(STEADY_S)
        pointer = await asyncio.to_thread(Registry(registry).publish, bundle, check=None)
        published = time.perf_counter()
        await _until(channel, service, lambda loaded: pointer.standby in loaded)
        await asyncio.to_thread(Registry(registry).activate, pointer.standby, confirm=None)
        await _until(channel, service, lambda loaded: next(iter(loaded), "") == pointer.standby)
        swapped = time.perf_counter()
        await asyncio.sleep(_AFTER_S)
        stop.set()
        calls = await calling
    first = calls[0].due
    steady = [call for call in calls if first + 1.0 < call.due < first + STEADY_S]
    during = [call for call in calls if published <= call.due <= swapped + _AFTER_S]
    return {
        "steady_ms": _percentiles(steady),
        "during_ms": _percentiles(during),
        "calls": len(calls),
        "during": len(during),
        "failed": sum(not call.answered for call in calls),
        "swap_s": swapped - published,
    }


async def _call(call: Any, requests: Sequence[bytes], stop: asyncio.Event) -> list[Call]:
    started = time.perf_counter()
    tasks: list[asyncio.Future[Call]] = []
    while not stop.is_set():
        due = started + len(tasks) / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(_one(call, requests[len(tasks) % len(requests)], due)))
    return await asyncio.gather(*tasks)


async def _one(call: Any, request: bytes, due: float) -> Call:
    try:
        await call(request, timeout=_DEADLINE_S)
    except grpc.aio.AioRpcError:
        return Call(due, time.perf_counter() - due, answered=False)
    return Call(due, time.perf_counter() - due, answered=True)


async def _until(channel: grpc.aio.Channel, service: Service, holds: Callable[[list[str]], bool]) -> None:
    ask: Any = channel.unary_unary(service.asks, response_deserializer=service.state.FromString)
    while not holds([one.bundle_id for one in (await ask(b"")).state.bundles]):
        await asyncio.sleep(0.05)


def _percentiles(calls: list[Call]) -> dict[str, float]:
    taken = [call.seconds * 1e3 for call in calls]
    return {f"p{at}": float(np.percentile(taken, at)) for at in (50, 95, 99)}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swap", description=__doc__)
    parser.add_argument("--service", choices=SERVICES, required=True, help="what to call")
    parser.add_argument("--address", required=True, help="where it listens")
    parser.add_argument("--registry", type=Path, required=True, help="registry that it reads")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle of another space to swap in")
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests, hex")
    options = parser.parse_args(arguments)
    requests = [bytes.fromhex(each) for each in json.loads(options.requests.read_text())]
    service = SERVICES[options.service]
    print(json.dumps(uvloop.run(measure(service, options.address, options.registry, options.bundle, requests))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
