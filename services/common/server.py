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
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from marquee.errors import BundleError, ConfigError, MarqueeError, RegistryError, Unavailable
from services.common.auth import auth_of
from services.common.core import calls_reached, newest_server
from services.common.deadlines import capping
from services.common.health import Health
from services.common.interceptors import Chain, Guard, Stage, access_log, access_log_wanted, errors, guarding
from services.common.limiter import Limiter
from services.common.logs import configure_logs
from services.common.server_options import probe_options, server_options
from services.common.settings import (
    CHECK_CONFIG,
    CommonSettings,
    S,
    effective,
    help_text,
    join_address,
    load_settings,
    split_address,
)
from services.common.telemetry import Telemetry
from services.common.tls import Certificates, certificates_of

if TYPE_CHECKING:
    from services.common.tracing import Tracing

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Nobody calls any more where no call has begun for this long.
_QUIET_S = 0.05

HEALTH_SERVICE = "grpc.health.v1.Health"

EXIT_CONFIG, EXIT_BUNDLE, EXIT_ADDRESS = 2, 3, 4


class AddressUnavailable(Unavailable):
    """Says that the service cannot listen where it was told to."""

    reason = "ADDRESS_UNAVAILABLE"


class Life:
    """Is one service process from binding its address to its last answer; an async context manager.

    Entering binds the address, so that a taken one is told before anything is loaded, and catches SIGTERM and SIGINT.
    Leaving stops the server, whatever came between. `name` is the middle of its metrics' names.
    """

    def __init__(
        self,
        settings: CommonSettings,
        services: Sequence[str],
        *,
        name: str = "service",
    ) -> None:
        self._settings = settings
        self._services = tuple(services)
        self._auth = auth_of(settings)
        self._certificates = certificates_of(settings)
        self._limiter = Limiter(settings)
        self.telemetry = Telemetry(name)
        self._tracing = _tracing_of(name, settings)
        guard = self._auth.guard if self._auth is not None else None
        self._chain = Chain(self._stages(guard), guard)
        self._grace_s = settings.grace_s
        self._serving = False
        self._stop = asyncio.Event()
        self.health = Health(services)
        self.port = self.health_port = self.metrics_port = 0

    def _stages(self, guard: Guard | None) -> list[Stage]:
        """Lists the stages of the chain, outermost first."""
        measured = self._settings.metrics_port is not None
        return [
            *([self._tracing.stage] if self._tracing is not None else []),
            *([access_log] if access_log_wanted() else []),
            *([self.telemetry.stage] if measured else []),
            errors,
            *([guarding(guard)] if guard is not None else []),
            capping(self._settings.max_deadline_s),
            self._limiter,
        ]

    async def __aenter__(self) -> Life:
        async with contextlib.AsyncExitStack() as stack:
            # Made here and not in __init__: a grpc.aio server belongs to the loop that runs.
            self.server = grpc.aio.server(interceptors=[self._chain], options=server_options(self._settings))
            server_number = newest_server()
            self.port = _bind(self.server, self._settings.listen, "--listen", self._certificates)
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
            if self._tracing is not None:
                stack.push_async_callback(asyncio.to_thread, self._tracing.close)
            await self._serve_probes(stack)
            await self._serve_metrics(stack, server_number)
            self._stack = stack.pop_all()
        if self._settings.reflection:
            reflection.enable_server_reflection((*self._services, HEALTH_SERVICE, reflection.SERVICE_NAME), self.server)
        if self._settings.port_file:
            self._settings.port_file.unlink(missing_ok=True)
        self._starter = asyncio.current_task()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        return self

    async def _serve_probes(self, stack: contextlib.AsyncExitStack) -> None:
        """Serves the health on a port of its own, from now to the very end: a process that loads is alive, too."""
        if self._settings.health_port is None:
            return
        host, _ = split_address(self._settings.listen)
        server = grpc.aio.server(interceptors=[Chain(())], options=probe_options())
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        self.health_port = _bind(server, join_address(host, self._settings.health_port), "--health-port")
        await server.start()
        stack.push_async_callback(server.stop, None)

    async def _serve_metrics(self, stack: contextlib.AsyncExitStack, server_number: int) -> None:
        if self._settings.metrics_port is None:
            return
        self.telemetry.watch_lanes(self._limiter.lanes.values())
        self.telemetry.counter(
            "calls_turned_away",
            "Calls that gRPC's core ended before they began: too many waited, or the caller had gone.",
            lambda: max(0, calls_reached(server_number) - self._chain.begun),
        )
        self.telemetry.counter("calls_retried", "Calls that are not the first attempt.", lambda: self._chain.retried)
        certificates = self._certificates
        if certificates is not None:
            about = "When the certificate that is served expires, since the epoch."
            self.telemetry.gauge("certificate_expires_timestamp_seconds", about, lambda: certificates.expires_at)
        host, _ = split_address(self._settings.listen)
        try:
            serving = self.telemetry.served(host, self._settings.metrics_port)
            self.metrics_port = await stack.enter_async_context(serving)
        except OSError as error:
            address = join_address(host, self._settings.metrics_port)
            raise AddressUnavailable(_taken(address, "--metrics-port", error.strerror or str(error))) from error

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
        followed = [files.watch() for files in (self._auth, self._certificates) if files is not None]
        tasks = [asyncio.ensure_future(work) for work in (*background, *followed, self.telemetry.watch_loop())]
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
        ports = {"port": self.port, "health_port": self.health_port, "metrics_port": self.metrics_port}
        _log.info("serving on %s:%d", host, self.port, extra=ports)
        if self._settings.port_file:
            _write_atomically(self._settings.port_file, f"{self.port}\n")

    async def _announce(self) -> None:
        # Callers that watch or probe the health stop sending; the server still answers who does not know yet.
        self.health.set_serving(False)
        await asyncio.sleep(self._settings.drain_s)
        await self._quiet()

    async def _quiet(self) -> None:
        """Waits until nobody calls any more, for half of the grace at most.

        What has reached the core and not begun when the server stops is CANCELLED, and some callers are slow to notice.
        """
        quiet_s, began = min(self._settings.drain_s, _QUIET_S), time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.grace_s / 2):
                begun = -1
                while begun != self._chain.begun:
                    begun = self._chain.begun
                    await asyncio.sleep(quiet_s)
        self._grace_s -= time.monotonic() - began

    async def _end_calls(self) -> None:
        self.health.set_serving(False)
        self.health.close()
        await self.server.stop(max(0.0, self._grace_s) if self._serving else None)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._end_calls()
        await self._stack.aclose()
        if self._settings.port_file:
            self._settings.port_file.unlink(missing_ok=True)
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        _log.info("stopped")


def _tracing_of(service: str, settings: CommonSettings) -> Tracing | None:
    if not settings.otlp_endpoint:
        return None
    try:
        from services.common.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--otlp-endpoint needs OpenTelemetry, and {error.name} is not installed: pip install 'marquee[tracing]'"
        ) from error
    return Tracing(service, settings)


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _bind(server: grpc.aio.Server, address: str, flag: str, certificates: Certificates | None = None) -> int:
    try:
        if certificates is not None:
            return server.add_secure_port(address, certificates.credentials())
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressUnavailable(_taken(address, flag, _why_not(address))) from error


def _taken(address: str, flag: str, why: str) -> str:
    return (
        f"cannot listen on {address} ({why.lower()}); stop the program that does, or choose another address with {flag}"
    )


def _why_not(address: str) -> str:
    """Asks the operating system what the core does not tell."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(where)
            probe.listen()
    except OSError as error:
        return error.strerror or str(error)
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
    told = [argument for argument in arguments if argument != CHECK_CONFIG]
    try:
        settings = load_settings(cls, told, os.environ)
    except ConfigError as error:
        print(f"{program}: {error.message}", file=sys.stderr)
        return EXIT_CONFIG
    if len(told) < len(arguments):
        print(json.dumps(effective(settings), indent=1, default=str))
        return 0
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
