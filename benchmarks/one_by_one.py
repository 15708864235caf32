"""One call at a time: `python -m benchmarks.one_by_one` calls a server with bytes made beforehand, and prints JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import grpc
import numpy as np

WARM_UP, CALLS = 100, 1000
_DEADLINE_S = 10.0


def measure(address: str, method: str, requests: Sequence[bytes], calls: int) -> list[float]:
    """Makes so many calls; returns the percentiles 0 to 100 of their milliseconds."""
    taken_ms = []
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(method)
        for number, request in enumerate(islice(cycle(requests), WARM_UP + calls)):
            started = time.perf_counter()
            call(request, timeout=_DEADLINE_S)
            if number >= WARM_UP:
                taken_ms.append(1e3 * (time.perf_counter() - started))
    percentiles: list[float] = np.percentile(taken_ms, range(101)).tolist()
    return percentiles


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_by_one", description=__doc__)
    parser.add_argument("--address", required=True, help="server to call")
    parser.add_argument("--method", required=True, help="path of the method")
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests, hex")
    parser.add_argument("--calls", type=int, default=CALLS, help="how many to time (%(default)s)")
    options = parser.parse_args(arguments)
    requests = [bytes.fromhex(each) for each in json.loads(options.requests.read_text())]
    try:
        print(json.dumps(measure(options.address, options.method, requests, options.calls)))
    except grpc.RpcError as error:
        status: Any = error
        print(f"one_by_one: a call ended with {status.code().name}: {status.details()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
