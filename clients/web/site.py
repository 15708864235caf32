"""What every page is made with: the presenter, the templates, the keys; and how an answer is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from clients.presenter import Presenter
from clients.web.sessions import Keys
from clients.web.statics import Statics
from clients.web.visitor import SESSION, TOLD, Visitor, visitor_of

_TEMPLATES = Path(__file__).parent / "templates"
# A year, in seconds. Whoever stays away for longer begins anew.
_SESSION_S = 31_536_000
# Long enough for the page after a click, in seconds.
_TOLD_S = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """Holds what pages are made with; `https` says that browsers reach it that way."""

    presenter: Presenter
    keys: Keys
    statics: Statics
    templates: jinja2.Environment
    https: bool

    def visitor(self, request: Request) -> Visitor:
        """Reads who sent a request."""
        return visitor_of(request, self.keys)

    def part(self, template: str, visitor: Visitor, **values: Any) -> str:
        """Writes a template."""
        return self.templates.get_template(template).render(visitor=visitor, **values)

    def page(self, template: str, visitor: Visitor, status: int = 200, **values: Any) -> Response:
        """Answers with a page, the session's cookie where the visitor has none, and what there was to tell."""
        response = HTMLResponse(self.part(template, visitor, **values), status)
        if visitor.is_new:
            self.remember(response, visitor.user_id)
        if visitor.told:
            response.delete_cookie(TOLD, secure=self.https, httponly=True, samesite="lax")
        return response

    def message(self, visitor: Visitor, status: int, title: str, text: str) -> Response:
        """Answers with a page that says one thing; one that is about something away looks again by itself."""
        return self.page("message.html", visitor, status, title=title, text=text, away=status == 503)

    def after(self, path: str, told: str) -> Response:
        """Sends the browser to a page that tells what was done."""
        response = RedirectResponse(path, 303)
        signed = quote(self.keys.sign("told", told))
        response.set_cookie(TOLD, signed, _TOLD_S, secure=self.https, httponly=True, samesite="lax")
        return response

    def remember(self, response: Response, user_id: str) -> None:
        """Sets the session's cookie."""
        signed = self.keys.sign("session", user_id)
        response.set_cookie(SESSION, signed, _SESSION_S, secure=self.https, httponly=True, samesite="lax")


def make_site(presenter: Presenter, keys: Keys, https: bool) -> Site:
    """Makes a site; templates are read once."""
    statics = Statics()
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.globals["static"] = statics.urls
    return Site(presenter, keys, statics, templates, https)


def for_script(told: str, done: bool, html: str = "", status: int = 200) -> Response:
    """Answers the page's script: what to say, whether it was done, and what to show now."""
    return JSONResponse({"told": told, "done": done, "html": html}, status)
