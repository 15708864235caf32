"""The life of a service: bind → load → ready → SIGTERM → NOT_SERVING → announced wait → stop → exit.

A service's main is

    def main() -> int:
        return run_service("retriever", "Finds the nearest movies.", RetrieverSettings, serve)

    async def serve(settings: RetrieverSettings) -> None:
        async with Life(settings, SERVICES) as life:
            ...                                        # load, add servicers to life.server
            await life.run(spaces.watch())             # ready, until a signal comes
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from marquee.errors import BundleError, ConfigError, MarqueeError, RegistryError, Unavailable
from services.common.health import Health
from services.common.interceptors import Chain, Guard, errors, guarding
from services.common.logs import configure_logs
from services.common.server_options import server_options
from services.common.settings import CommonSettings, S, help_text, load_settings, split_address

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

HEALTH_SERVICE = "grpc.health.v1.Health"

EXIT_CONFIG, EXIT_BUNDLE, EXIT_ADDRESS = 2, 3, 4


class AddressUnavailable(Unavailable):
    """Says that the service cannot listen where it was told to."""

    reason = "ADDRESS_UNAVAILABLE"


class Life:
    """Is one service process from binding its address to its last answer; an async context manager.

    Entering binds the address, so that a taken one is told before anything is loaded, and catches SIGTERM and SIGINT.
    Leaving stops the server, whatever came between.
    """

    def __init__(
        self,
        settings: CommonSettings,
        services: Sequence[str],
        *,
        guard: Guard | None = None,
    ) -> None:
        self._settings = settings
        self._services = tuple(services)
        self._chain = Chain([errors, *([guarding(guard)] if guard else [])], guard)
        self._serving = False
        self._stop = asyncio.Event()
        self.health = Health(services)
        self.port = 0

    async def __aenter__(self) -> Life:
        # Made here and not in __init__: a grpc.aio server belongs to the loop that runs.
        self.server = grpc.aio.server(interceptors=[self._chain], options=server_options(self._settings))
        self.port = _bind(self.server, self._settings.listen)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        if self._settings.reflection:
            reflection.enable_server_reflection((*self._services, HEALTH_SERVICE, reflection.SERVICE_NAME), self.server)
        if self._settings.port_file:
            self._settings.port_file.unlink(missing_ok=True)
        self._starter = asyncio.current_task()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        return self

    def _on_signal(self, number: int) -> None:
        _log.info("stopping on %s", signal.Signals(number).name)
        self.stop()

    def stop(self) -> None:
        """Begins the end, as SIGTERM does."""
        first = not self._stop.is_set()
        self._stop.set()
        # Whoever is still loading has no calls to finish.
        if first and not self._serving and self._starter is not None:
            self._starter.cancel()

    async def run(self, *background: Coroutine[Any, Any, None]) -> None:
        """Serves until a signal comes, then drains and stops; where the background work fails, so does this."""
        tasks = [asyncio.ensure_future(work) for work in background]
        waiter = asyncio.ensure_future(self._stop.wait())
        try:
            await self._ready()
            done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self._announce()
            await self._end_calls()
        finally:
            await _cancel([waiter, *tasks])

    async def _ready(self) -> None:
        await self.server.start()
        self._serving = True
        self.health.set_serving(True)
        host, _ = split_address(self._settings.listen)
        _log.info("serving on %s:%d", host, self.port, extra={"port": self.port})
        if self._settings.port_file:
            _write_atomically(self._settings.port_file, f"{self.port}\n")

    async def _announce(self) -> None:
        # Callers that watch or probe the health stop sending; the server still answers who does not know yet.
        self.health.set_serving(False)
        await asyncio.sleep(self._settings.drain_s)

    async def _end_calls(self) -> None:
        self.health.set_serving(False)
        self.health.close()
        await self.server.stop(self._settings.grace_s if self._serving else None)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._end_calls()
        if self._settings.port_file:
            self._settings.port_file.unlink(missing_ok=True)
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        _log.info("stopped")


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _bind(server: grpc.aio.Server, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressUnavailable(
            f"cannot listen on {address} ({_why_not(address)}); stop the program that does, or choose another address "
            "with --listen"
        ) from error


def _why_not(address: str) -> str:
    """Asks the operating system what the core does not tell."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(where)
            probe.listen()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return "it was taken a moment ago"


def _write_atomically(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as stream:
        stream.write(text)
    os.replace(stream.name, path)


def run_service(
    name: str,
    summary: str,
    cls: type[S],
    serve: Callable[[S], Awaitable[None]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs a service from its settings to its end; returns the exit code.

    0: stopped by a signal; 2: a setting is wrong; 3: no bundle to serve; 4: the address cannot be had. Each with one
    sentence that says what to do. The environment is read here and nowhere else.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    program = f"python -m services.{name}"
    if "--help" in arguments or "-h" in arguments:
        print(help_text(cls, program, summary))
        return 0
    try:
        settings = load_settings(cls, arguments, os.environ)
    except ConfigError as error:
        print(f"{program}: {error.message}", file=sys.stderr)
        return EXIT_CONFIG
    configure_logs(name, settings)
    spare_the_collector()
    return _run(serve(settings))


def spare_the_collector() -> None:
    """Keeps the garbage collector from looking at what stays as long as the process, and from looking all the time.

    Calls leave hardly any cycles, but by default every 700 new objects set it off, and now and then it looks at all
    there are: that took 3 to 5 % of a full load, and tens of milliseconds of a call now and then.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _run(work: Awaitable[None]) -> int:
    async def main() -> None:
        await work

    try:
        uvloop.run(main())
    except (RegistryError, BundleError) as error:
        return _refuse(error, EXIT_BUNDLE)
    except AddressUnavailable as error:
        return _refuse(error, EXIT_ADDRESS)
    except ConfigError as error:
        return _refuse(error, EXIT_CONFIG)
    except asyncio.CancelledError:
        # A signal came while the service was loading.
        return 0
    return 0


def _refuse(error: MarqueeError, code: int) -> int:
    _log.error("%s", error.message)
    return code
