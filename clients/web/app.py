"""The application: pages, limits and headers around them, and its life."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from clients.web import operating, pages
from clients.web.headers import Headers
from clients.web.limits import Limits
from clients.web.operating import Desk
from clients.web.site import Site
from clients.web.visitor import SESSION

# A form of this page takes less than 4 KiB.
_MOST_BODY: Final = 16_384
_FREE: Final = ("/static/", "/healthz")
_TITLES: Final = {
    404: ("Nothing is here", "There is no page at this address."),
    405: ("Nothing is here", "There is no page at this address."),
    413: ("Too much", "What was sent is larger than any form of this page."),
}


def make_app(site: Site, desk: Desk, limits: Limits, close: Callable[[], Awaitable[None]]) -> ASGIApp:
    """Makes the application; `close` is awaited when it ends."""

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        await close()

    handlers = {HTTPException: _refused, Exception: _failed}
    app = Starlette(
        routes=[
            *pages.routes(),
            *operating.routes(),
            Route("/static/{name}", site.statics.serve),
            Route("/healthz", _alive),
        ],
        exception_handlers=handlers,
        lifespan=life,
        max_body_size=_MOST_BODY,
    )
    app.state.site, app.state.desk = site, desk
    return Headers(_Limited(app, site, limits), site.https)


async def _alive(request: Request) -> Response:
    return PlainTextResponse("ok")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    site: Site = request.app.state.site
    title, text = _TITLES.get(error.status_code, ("That cannot be done", error.detail))
    return site.message(site.visitor(request), error.status_code, title, text)


async def _failed(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this answer, and uvicorn logs it with its traceback.
    site: Site = request.app.state.site
    text = "This page has failed. It is in the log; try again, or tell who runs it."
    return site.message(site.visitor(request), 500, "Something is broken here", text)


class _Limited:
    """Refuses whoever asks too often: a person by their session, and everybody behind an address together."""

    def __init__(self, app: ASGIApp, site: Site, limits: Limits) -> None:
        self._app, self._site, self._limits = app, site, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_FREE):
            await self._app(scope, receive, send)
            return
        seconds = self._wait_s(Request(scope))
        if seconds == 0:
            await self._app(scope, receive, send)
            return
        text = "That was too much at once. Wait a second, and go on."
        response = PlainTextResponse(text, 429, {"Retry-After": str(int(seconds) + 1)})
        await response(scope, receive, send)

    def _wait_s(self, request: Request) -> float:
        seconds = self._limits.addresses.wait_s(request.client.host if request.client else "")
        session = self._site.keys.read("session", request.cookies.get(SESSION, ""))
        if seconds == 0 and session:
            seconds = self._limits.people.wait_s(session)
        return seconds
