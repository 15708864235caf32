"""Serves methods of a test's own behind the whole chain, in this process on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import grpc
import grpc.aio

from services.common.server import Life
from services.common.settings import CommonSettings

SERVICE = "test.v1.TestService"
Method: TypeAlias = "Callable[[bytes, grpc.aio.ServicerContext[Any, Any]], Awaitable[bytes]]"


class Served(NamedTuple):
    """Is a service that serves, and a channel to it."""

    life: Life
    channel: grpc.aio.Channel

    def call(self, method: str, request: bytes = b"", timeout: float | None = None) -> Any:
        """Calls a method."""
        return cast("Any", self.channel.unary_unary(f"/{SERVICE}/{method}"))(request, timeout=timeout)

    async def metrics(self) -> dict[str, float]:
        """Reads the metrics, by name and labels as they are written."""
        lines = (await asyncio.to_thread(read_metrics, self.life.metrics_port)).splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}


def read_metrics(port: int) -> str:
    """Reads what a service says of itself."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def settings_for(folder: Path, **fields: Any) -> CommonSettings:
    """Makes settings that take free ports and end without delay."""
    return dataclasses.replace(CommonSettings(listen="127.0.0.1:0", registry=folder, drain_s=0.0), **fields)


def add_methods(server: grpc.aio.Server, methods: Mapping[str, Method]) -> None:
    """Adds methods to a server, as the generated code does."""
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(cast("Any", method)) for name, method in methods.items()
    }
    server.add_registered_method_handlers(SERVICE, handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


@contextlib.asynccontextmanager
async def serving(folder: Path, methods: Mapping[str, Method], **settings: Any) -> AsyncIterator[Served]:
    """Serves methods under settings; port 0 is taken for whatever has a port."""
    life = Life(settings_for(folder, **settings), [SERVICE], name="test")
    async with life:
        add_methods(life.server, methods)
        run = asyncio.ensure_future(life.run())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{life.port}") as channel:
            await channel.channel_ready()
            yield Served(life, channel)
        life.stop()
        await run


async def ended(call: Awaitable[Any]) -> grpc.aio.AioRpcError | bytes:
    """Waits for a call; returns its answer or its failure."""
    try:
        return cast("bytes", await call)
    except grpc.aio.AioRpcError as failure:
        return failure
