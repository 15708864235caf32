"""A slow way to a port: `python -m benchmarks.delayed --listen HOST:PORT --port-file FILE --to PORT` until SIGINT.

Each piece that travels takes `--least-ms` and up to `--more-ms` more, drawn evenly, in either direction.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.chaos.proxy import Way, proxy_to


async def run(port: int, way: Way, port_file: Path) -> None:
    """Carries connections until a signal comes."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    async with proxy_to(port) as proxy:
        proxy.way = way
        port_file.write_text(str(proxy.port))
        await stop.wait()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delayed", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0", help="a free port of this machine is taken whatever it says")
    parser.add_argument("--port-file", type=Path, required=True, help="file that gets the port")
    parser.add_argument("--to", type=int, required=True, metavar="PORT", help="port of this machine to carry to")
    parser.add_argument("--least-ms", type=float, default=10.0, help="of a piece (%(default)g)")
    parser.add_argument("--more-ms", type=float, default=40.0, help="at most, beyond that (%(default)g)")
    options = parser.parse_args(arguments)
    way = Way(latency_s=options.least_ms / 1e3, jitter_s=options.more_ms / 1e3)
    asyncio.run(run(options.to, way, options.port_file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
