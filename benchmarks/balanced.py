"""The open loop behind the SDK's round robin: `python -m benchmarks.balanced --addresses A B ...` prints JSON.

Calls begin when they are due, on channels with the SDK's options and its service config, each a client of its own. Bare
stubs: what the SDK adds, coming back once after a refusal, would be another arrival.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc.aio

from marquee.client.channels import OPTIONS
from marquee.v1.user_encoder_pb2 import EncodeResponse

_METHOD = "/marquee.v1.UserEncoderService/Encode"
# gRPC does not tell which replica answered; on one machine they are all connected long before.
_WARM_UP_S = 1.0


async def measure(
    addresses: Sequence[str], requests: Sequence[bytes], arrive_s: Sequence[float], deadline_s: float, clients: int
) -> dict[str, Any]:
    """Begins calls at their moments; returns the seconds of those answered well, and counts of how the others ended."""
    seconds: list[float] = []
    ended: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        target = f"ipv4:{','.join(addresses)}"
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(target, options=OPTIONS)) for _ in range(clients)
        ]
        calls: list[Any] = [channel.unary_unary(_METHOD) for channel in channels]
        # Connections to replicas, and theirs to the store.
        warm = time.perf_counter() + _WARM_UP_S
        while time.perf_counter() < warm:
            await asyncio.gather(*(call(requests[0]) for call in calls))

        async def ask(call: Any, request: bytes, due: float) -> None:
            try:
                answer = await call(request, timeout=max(0.0, due + deadline_s - time.perf_counter()))
            except grpc.aio.AioRpcError as error:
                ended[error.code().name] += 1
            else:
                taken_s = time.perf_counter() - due
                if taken_s > deadline_s:
                    ended["late"] += 1
                elif EncodeResponse.FromString(answer).degraded:
                    # Made without the store, and so in another time.
                    ended["degraded"] += 1
                else:
                    seconds.append(taken_s)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for after_s, call, request in zip(arrive_s, cycle(calls), cycle(requests), strict=False):
                # Also where it is late: what has come must be read.
                await asyncio.sleep(max(0.0, began + after_s - time.perf_counter()))
                tasks.create_task(ask(call, request, began + after_s))
    return {"seconds": seconds, "ended": dict(ended)}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balanced", description=__doc__)
    parser.add_argument("--addresses", nargs="+", required=True, metavar="ADDRESS", help="replicas, by IP address")
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests, hex")
    parser.add_argument("--arrivals", type=Path, required=True, help="JSON list of when calls are due, in seconds")
    parser.add_argument("--deadline-s", type=float, required=True, help="seconds that a call waits")
    parser.add_argument("--clients", type=int, required=True, help="channels that take turns")
    options = parser.parse_args(arguments)
    requests = [bytes.fromhex(each) for each in json.loads(options.requests.read_text())]
    arrive_s = json.loads(options.arrivals.read_text())
    print(json.dumps(asyncio.run(measure(options.addresses, requests, arrive_s, options.deadline_s, options.clients))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
