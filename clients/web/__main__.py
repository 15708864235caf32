"""Serves the page: `python -m clients.web`; Ctrl-C or SIGTERM ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from clients.presenter import Presenter
from clients.web.app import make_app
from clients.web.limits import Limiter, Limits
from clients.web.observing import Meter, Replicas
from clients.web.operating import Desk
from clients.web.sessions import Keys, load_key
from clients.web.settings import WebSettings, read_settings
from clients.web.site import make_site
from marquee.client import AsyncRecommender, ConfigError

# Requests of one address, compared with those of one person: a household, a school.
_PEOPLE_OF_AN_ADDRESS = 10
_GRACE_S = 5
_MOST_AT_ONCE = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until a signal ends it; returns the exit code."""
    try:
        settings = read_settings(arguments, os.environ)
        app = build(settings)
    except ConfigError as error:
        print(f"python -m clients.web: {error.message}", file=sys.stderr)
        return 2
    # uvicorn stops at a signal and, once it has stopped, lets the signal do what it did before.
    signal.signal(signal.SIGTERM, _end)
    try:
        _Server(_config(settings, app), settings.port_file).run()
    except KeyboardInterrupt:
        return 130
    except SystemExit as error:
        # uvicorn has logged why the address cannot be had.
        return 4 if error.code == STARTUP_FAILURE else 0
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def build(settings: WebSettings) -> ASGIApp:
    """Makes the application of these settings; raises ConfigError."""
    at = settings.connection
    client = AsyncRecommender(at.encoder, at.retriever, deadline_s=at.deadline_s, api_key=at.api_key, tls=at.tls)
    replicas = Replicas(at)
    site = make_site(Presenter(client), Keys(load_key(settings.key)), settings.behind_proxy)
    desk = Desk(replicas, Meter(settings.metrics), settings.operator_token)
    limits = Limits(
        people=Limiter(settings.rate, settings.burst),
        addresses=Limiter(_PEOPLE_OF_AN_ADDRESS * settings.rate, _PEOPLE_OF_AN_ADDRESS * settings.burst),
    )

    async def close() -> None:
        await client.close()
        await replicas.close()

    return make_app(site, desk, limits, close)


def _config(settings: WebSettings, app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="h11",
        ws="none",
        lifespan="on",
        log_level="info",
        access_log=False,
        server_header=False,
        proxy_headers=settings.behind_proxy,
        limit_concurrency=_MOST_AT_ONCE,
        timeout_graceful_shutdown=_GRACE_S,
    )


class _Server(uvicorn.Server):
    """Writes the port to a file once it listens, and removes the file at the end."""

    def __init__(self, config: uvicorn.Config, port_file: Path | None) -> None:
        super().__init__(config)
        self._port_file = port_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            print(f"Marquee is at http://{host}:{port}", flush=True)
            await asyncio.to_thread(self._tell, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._port_file is not None:
            self._port_file.unlink(missing_ok=True)
        await super().shutdown(sockets)

    def _tell(self, port: int) -> None:
        if self._port_file is not None:
            draft = self._port_file.with_name(f"{self._port_file.name}.part")
            draft.write_text(str(port))
            draft.replace(self._port_file)


if __name__ == "__main__":
    sys.exit(main())
