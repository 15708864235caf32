"""The floor: `python -m benchmarks.floor`, the least that any rpc of grpc.aio on uvloop costs here.

Its handler is empty: it parses nothing and answers every method with the same bytes, those of the last call of
REMEMBER. So a stub of any service can be pointed at it, and the SDK, which watches the health of what it calls.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2

REMEMBER = "/benchmarks.Floor/Remember"
_WATCH = "/grpc.health.v1.Health/Watch"
_SERVING: bytes = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()

# Quoted: only the stubs know these as generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Floor(grpc.GenericRpcHandler):
    """Answers every method with the same bytes."""

    def __init__(self) -> None:
        self._response = b""
        self._answering: Handler = grpc.unary_unary_rpc_method_handler(self._answer)
        self._others: dict[str, Handler] = {
            REMEMBER: grpc.unary_unary_rpc_method_handler(self._remember),
            _WATCH: grpc.unary_stream_rpc_method_handler(_watch),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Finds the handler of a method."""
        return self._others.get(handler_call_details.method, self._answering)

    async def _answer(self, request: bytes, context: Context) -> bytes:
        return self._response

    async def _remember(self, request: bytes, context: Context) -> bytes:
        self._response = request
        return b""


async def _watch(request: bytes, context: Context) -> AsyncIterator[bytes]:
    yield _SERVING
    await asyncio.Event().wait()


async def serve(listen: str, port_file: Path) -> None:
    """Serves until a signal comes."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Floor(),))
    await run_server(server, listen, port_file)


async def run_server(server: grpc.aio.Server, listen: str, port_file: Path) -> None:
    """Starts a server, writes its port, and stops it when a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    port = server.add_insecure_port(listen)
    await server.start()
    scratch = port_file.with_suffix(".new")
    scratch.write_text(str(port))
    os.replace(scratch, port_file)
    await stop.wait()
    await server.stop(None)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0", help="address to listen on (%(default)s)")
    parser.add_argument("--port-file", type=Path, required=True, help="file that gets the bound port")
    options = parser.parse_args(arguments)
    uvloop.run(serve(options.listen, options.port_file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
