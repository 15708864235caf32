"""A floor that the load tester takes for the services, as every method has bytes of its own: `benchmarks.canned`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.floor import Context, Handler, run_server
from tests.loadtest.rig import canned_answers


class Canned(grpc.GenericRpcHandler):
    """Answers a method with bytes that were made before, and parses nothing."""

    def __init__(self) -> None:
        self._handlers = {path: _handler(answer) for path, answer in canned_answers().items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Finds the handler of a method."""
        return self._handlers.get(handler_call_details.method)


def _handler(answer: bytes) -> Handler:
    async def give(request: bytes, context: Context) -> bytes:
        return answer

    return grpc.unary_unary_rpc_method_handler(give)


async def serve(listen: str, port_file: Path) -> None:
    """Serves until a signal comes."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Canned(),))
    await run_server(server, listen, port_file)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canned", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0", help="address to listen on (%(default)s)")
    parser.add_argument("--port-file", type=Path, required=True, help="file that gets the bound port")
    options = parser.parse_args(arguments)
    uvloop.run(serve(options.listen, options.port_file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
