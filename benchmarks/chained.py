"""A server with an empty handler behind stages of the chain: `python -m benchmarks.chained --stages errors limiter`.

Takes no stages for a server without an interceptor, `nothing` for the interceptor without a stage, and `tracing` alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from benchmarks.floor import run_server
from services.common.auth import KEYS, Auth
from services.common.deadlines import capping
from services.common.interceptors import Chain, Guard, Stage, errors, guarding
from services.common.limiter import Limiter
from services.common.server import spare_the_collector
from services.common.server_options import server_options
from services.common.settings import CommonSettings
from services.common.telemetry import Telemetry
from services.common.tracing import Tracing

METHOD = "/marquee.v1.RetrieverService/Search"
# From outside in, as `Life` has them; tracing, which is off by default, comes before them.
STAGES = ("telemetry", "errors", "guard", "deadline", "limiter")
TRACING = "tracing"
NOTHING = "nothing"


async def _answer(request: bytes, context: object) -> bytes:
    return request


def _chain(names: Sequence[str], callers: Path, settings: CommonSettings) -> list[grpc.aio.ServerInterceptor]:
    if not names:
        return []
    if TRACING in names:
        return [Chain([Tracing("chained", settings).stage])]
    guard: Guard = Auth(KEYS, callers).guard
    stages: dict[str, Stage] = {
        "telemetry": Telemetry("chained").stage,
        "errors": errors,
        "guard": guarding(guard),
        "deadline": capping(settings.max_deadline_s),
        "limiter": Limiter(settings),
    }
    return [Chain([stages[name] for name in STAGES if name in names])]


async def serve(stages: Sequence[str], callers: Path, settings: CommonSettings, listen: str, port_file: Path) -> None:
    """Serves until a signal comes."""
    server = grpc.aio.server(interceptors=_chain(stages, callers, settings), options=server_options(settings))
    _, service, name = METHOD.split("/")
    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(_answer)}
    server.add_registered_method_handlers(service, handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    await run_server(server, listen, port_file)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chained", description=__doc__)
    choices = (NOTHING, TRACING, *STAGES)
    parser.add_argument("--stages", nargs="*", default=[], choices=choices, help="stages before the handler")
    parser.add_argument("--otlp-endpoint", default="", help="where tracing sends spans")
    parser.add_argument("--trace-share", type=float, default=1.0, help="of how many calls (%(default)s)")
    parser.add_argument("--callers", type=Path, required=True, help="file of callers")
    parser.add_argument("--listen", default="127.0.0.1:0", help="address to listen on (%(default)s)")
    parser.add_argument("--port-file", type=Path, required=True, help="file that gets the bound port")
    options = parser.parse_args(arguments)
    spare_the_collector()
    settings = CommonSettings(otlp_endpoint=options.otlp_endpoint, trace_share=options.trace_share)
    uvloop.run(serve(options.stages, options.callers, settings, options.listen, options.port_file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
