"""The user encoder without interceptors: `python -m benchmarks.bare` takes the settings of the service."""

from __future__ import annotations

import sys
from contextlib import aclosing
from functools import partial
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.floor import run_server
from marquee.bundle.registry import Registry
from services.common.server import spare_the_collector
from services.common.server_options import server_options
from services.common.settings import load_settings
from services.common.spaces import Spaces
from services.user_encoder.ladder import Ladder
from services.user_encoder.servicer import add_servicers, load_encoder
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.opening import open_store


async def serve(settings: UserEncoderSettings) -> None:
    """Serves until a signal comes."""
    async with aclosing(open_store(settings)) as store:
        spaces = Spaces(Registry(settings.registry), partial(load_encoder, threads=settings.threads), settings)
        await spaces.start()
        server = grpc.aio.server(options=server_options(settings))
        add_servicers(spaces, Ladder(store, settings), server)
        await run_server(server, settings.listen, settings.port_file or Path())


if __name__ == "__main__":
    spare_the_collector()
    uvloop.run(serve(load_settings(UserEncoderSettings, sys.argv[1:], {})))
