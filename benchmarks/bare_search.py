"""The retriever without interceptors: `python -m benchmarks.bare_search` takes the settings of the service."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.floor import run_server
from marquee.bundle.registry import Registry
from marquee.engine.index import use_blas_threads, use_threads
from services.common.server import spare_the_collector
from services.common.server_options import server_options
from services.common.settings import load_settings
from services.common.spaces import Spaces
from services.retriever.retrieval import Retrieval
from services.retriever.servicer import add_servicers
from services.retriever.settings import RetrieverSettings


async def serve(settings: RetrieverSettings) -> None:
    """Serves until a signal comes."""
    use_threads(settings.threads)
    use_blas_threads(settings.threads)
    spaces = Spaces(Registry(settings.registry), partial(Retrieval, threads=settings.threads), settings)
    await spaces.start()
    server = grpc.aio.server(options=server_options(settings))
    add_servicers(spaces, server)
    await run_server(server, settings.listen, settings.port_file or Path())


if __name__ == "__main__":
    spare_the_collector()
    uvloop.run(serve(load_settings(RetrieverSettings, sys.argv[1:], {})))
