"""The operator's page, and who may see it."""

from __future__ import annotations

import dataclasses
import hmac
from ipaddress import ip_address
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from clients.web.observing import Meter, Replicas, tables
from clients.web.site import Site
from clients.web.visitor import posted
from marquee.client import BundleRole

_PASS: Final = "marquee_operator"
# How long a browser is let in again, in seconds: a working day.
_PASS_S: Final = 36_000
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclasses.dataclass(frozen=True, slots=True)
class Desk:
    """Is what the operator's page is made with. With an empty token, only this machine may see the page."""

    replicas: Replicas
    meter: Meter
    token: str


def routes() -> list[Route]:
    """Lists the operator's pages."""
    return [
        Route("/operator", operator),
        Route("/operator", enter, methods=["POST"]),
        Route("/parts/operator", operator_part),
    ]


async def operator(request: Request) -> Response:
    """Shows replicas, rates and the evaluation, or asks for the token."""
    site: Site = request.app.state.site
    desk: Desk = request.app.state.desk
    visitor = site.visitor(request)
    if _may_see(request, site, desk):
        return site.page("operator.html", visitor, **await _seen(desk))
    if desk.token:
        return site.page("enter.html", visitor, 401, wrong=False)
    text = (
        "This page is for the machine it runs on: open it there, under http://localhost or http://127.0.0.1, or start "
        "the page with --operator-token."
    )
    return site.message(visitor, 403, "For the operator only", text)


async def operator_part(request: Request) -> Response:
    """Writes the part of the page that changes."""
    site: Site = request.app.state.site
    desk: Desk = request.app.state.desk
    if not _may_see(request, site, desk):
        return HTMLResponse("", 403)
    return HTMLResponse(site.part("parts/operator.html", site.visitor(request), **await _seen(desk)))


async def enter(request: Request) -> Response:
    """Lets a browser in that knows the token."""
    site: Site = request.app.state.site
    desk: Desk = request.app.state.desk
    visitor, form = site.visitor(request), await posted(request)
    if not site.keys.is_token(visitor.user_id, form.text("token")) or not _is_token(desk, form.text("operator_token")):
        return site.page("enter.html", visitor, 401, wrong=True)
    response = RedirectResponse("/operator", 303)
    # Signed together with the token: whoever changes the token shuts everybody out.
    signed = site.keys.sign(f"operator {desk.token}", visitor.user_id)
    response.set_cookie(_PASS, signed, _PASS_S, "/", secure=site.https, httponly=True, samesite="strict")
    return response


def _may_see(request: Request, site: Site, desk: Desk) -> bool:
    if not desk.token:
        # Behind a proxy everybody comes from this machine, whatever headers it sends along.
        return not site.https and _is_local(request)
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and _is_token(desk, given.strip()):
        return True
    return site.keys.read(f"operator {desk.token}", request.cookies.get(_PASS, "")) is not None


def _is_token(desk: Desk, given: str) -> bool:
    return bool(desk.token) and hmac.compare_digest(given.encode("utf-8", "replace"), desk.token.encode())


def _is_local(request: Request) -> bool:
    """Says whether a request is from this machine and was meant for it.

    Another site's name may be made to lead here (DNS rebinding), so the name in the address counts, too; and what a
    proxy passes on is from elsewhere.
    """
    name = request.headers.get("host", "").rpartition(":")
    host = name[0] if name[2].isdigit() else request.headers.get("host", "")
    client = request.client.host if request.client else ""
    passed_on = any(header in request.headers for header in ("forwarded", "x-forwarded-for", "x-real-ip"))
    return host in _LOCAL_NAMES and _is_loopback(client) and not passed_on


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def _seen(desk: Desk) -> dict[str, Any]:
    replicas, rates = await desk.replicas.states(), await desk.meter.rates()
    bundles = [bundle for replica in replicas if replica.state for bundle in replica.state.bundles]
    active = next((bundle for bundle in bundles if bundle.role is BundleRole.ACTIVE), None)
    return {
        "replicas": replicas,
        "rates": rates,
        "metered": desk.meter.used,
        "active": active,
        "tables": tables(active.metrics) if active else (),
    }
