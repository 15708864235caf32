"""The open loop of SDK clients: `python -m benchmarks.sdkloop` encodes at a fixed rate, answered or not; prints JSON.

As `benchmarks.openloop`, but by what callers have: the SDK's connections, its retries, and its throttling. It costs the
caller's core several times as much, so that it can ask a cheap rpc for hardly more than its peak.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from marquee.client import AsyncRecommender, MarqueeError
from marquee.client.rpcs import ENCODE, call
from marquee.v1 import user_encoder_pb2

CLIENTS = 8


class _Encoding(AsyncRecommender):
    """Makes the first of the two calls of `recommend`, as that does."""

    async def encode(self, request: user_encoder_pb2.EncodeRequest) -> None:
        await self._run(call(ENCODE, request), None)


async def measure(
    address: str, requests: Sequence[bytes], rate: float, seconds: float, deadline_s: float
) -> dict[str, int]:
    """Begins `rate` calls a second for some seconds; counts how they ended: OK, or the error's reason."""
    read = [user_encoder_pb2.EncodeRequest.FromString(request) for request in requests]
    clients = [_Encoding(address, address, deadline_s=deadline_s) for _ in range(CLIENTS)]
    ended: Counter[str] = Counter()
    try:
        await asyncio.gather(*(client.encode(read[0]) for client in clients))
        async with asyncio.TaskGroup() as tasks:
            turns = zip(cycle(clients), cycle(read))
            began, total = time.perf_counter(), int(rate * seconds)
            for number in range(total):
                # A sleep lasts a millisecond at least: what is due meanwhile begins together.
                if (early_s := began + number / rate - time.perf_counter()) > 0:
                    await asyncio.sleep(early_s)
                due = began + number / rate
                tasks.create_task(_count(*next(turns), due + deadline_s, ended))
                if number % 16 == 0:
                    await asyncio.sleep(0)
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    return {**ended, "sent": total}


async def _count(client: _Encoding, request: user_encoder_pb2.EncodeRequest, until: float, ended: Counter[str]) -> None:
    """Counts how a call ended; one that is answered after its time, counted from when it was due, is late."""
    try:
        await client.encode(request)
    except MarqueeError as error:
        ended[error.reason] += 1
    else:
        ended["OK" if time.perf_counter() <= until else "late"] += 1


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdkloop", description=__doc__)
    parser.add_argument("--address", required=True, help="encoder to call")
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests, hex")
    parser.add_argument("--rate", type=float, required=True, help="calls a second, of all clients together")
    parser.add_argument("--seconds", type=float, required=True, help="how long to call")
    parser.add_argument("--deadline-s", type=float, default=0.25, help="seconds that a call waits (%(default)s)")
    options = parser.parse_args(arguments)
    requests = [bytes.fromhex(each) for each in json.loads(options.requests.read_text())]
    try:
        counts = asyncio.run(measure(options.address, requests, options.rate, options.seconds, options.deadline_s))
    except MarqueeError as error:
        print(f"sdkloop: {error.message}", file=sys.stderr)
        return 1
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
