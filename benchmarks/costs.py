"""CPU that a call takes of its server: `python -m benchmarks.costs` calls servers in turn, and prints JSON.

One call at a time, in blocks A B C A B C …; microseconds a call of each server, block by block. The CPU is that of the
whole process, gRPC's threads and the system's part for its sockets included.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.flood import Connection
from benchmarks.http2 import Target
from benchmarks.machine import cpu_us
from marquee.errors import MarqueeError

ROUNDS = 7
BLOCK_S = 0.7
_WARM_UP_S = 0.5


def measure(targets: Sequence[Target], pids: Sequence[int]) -> list[list[float]]:
    """Measures the CPU of a call of all in turn."""
    with ExitStack() as stack:
        servers = [
            (stack.enter_context(Connection(target, in_flight=1)), pid)
            for target, pid in zip(targets, pids, strict=True)
        ]
        for connection, _ in servers:
            connection.run(_WARM_UP_S)
        return [[_block(*each) for each in servers] for _ in range(ROUNDS)]


def _block(connection: Connection, pid: int) -> float:
    answered, before = connection.answered, cpu_us(pid)
    connection.run(BLOCK_S)
    connection.finish()
    return (cpu_us(pid) - before) / (connection.answered - answered)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("--servers", nargs="+", required=True, metavar="ADDRESS,PID", help="servers to call in turn")
    parser.add_argument("--method", required=True, help="path of the method, the same for all")
    parser.add_argument("--request", type=Path, required=True, help="file of one request")
    options = parser.parse_args(arguments)
    servers = [server.split(",") for server in options.servers]
    requests = [options.request.read_bytes()]
    try:
        targets = [Target(address, options.method, requests) for address, _ in servers]
        print(json.dumps(measure(targets, [int(pid) for _, pid in servers])))
    except (MarqueeError, OSError) as error:
        print(f"costs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
