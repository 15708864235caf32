"""Marquee's serving, bare: grpc.aio on uvloop with the services' options and no interceptors, one call at a time."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import grpc.aio
import uvloop
from google.protobuf.wrappers_pb2 import BytesValue

from benchmarks.peers.served import rpc
from benchmarks.peers.served.model import Model, Settings, unpacked_tower
from services.common.server import spare_the_collector
from services.common.server_options import server_options
from services.common.settings import CommonSettings


class Tower:
    """Answers the bare rpc."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def Run(self, request: BytesValue, context: Any) -> BytesValue:  # noqa: N802
        """Runs the tower."""
        return BytesValue(value=self._model.run(unpacked_tower(request.value)).tobytes())


async def serve(settings: Settings) -> None:
    """Serves until a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = grpc.aio.server(options=server_options(CommonSettings()))
    rpc.add_to_server(Tower(Model(settings.bundle)), server)
    server.add_insecure_port(f"127.0.0.1:{settings.port}")
    await server.start()
    await stop.wait()
    await server.stop(None)


if __name__ == "__main__":
    spare_the_collector()
    uvloop.run(serve(Settings.read()))
