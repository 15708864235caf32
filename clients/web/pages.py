"""The pages for people. Each works without the script; the script asks for parts of them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from clients.presenter import Choice, Home, Mood, Notice, Told, changes
from clients.web.site import Site, for_script
from clients.web.visitor import SESSION, Form, Visitor, film_of, form_of, path_of, posted, query_of
from marquee.client import InvalidRequest

_OLD_PAGE = "This page is too old, or was opened without cookies. Load it again, and repeat what you did."
_RESULTS = 24


def routes() -> list[Route]:
    """Lists the pages and their parts."""
    return [
        Route("/", home),
        Route("/parts/home", home_part),
        Route("/search", search),
        Route("/parts/search", search_part),
        Route("/films/{movie_id}", film),
        Route("/films/{movie_id}/opinion", opinion, methods=["POST"]),
        Route("/yours", yours),
        Route("/forget", forget, methods=["POST"]),
    ]


async def home(request: Request) -> Response:
    """Shows the list, the filters, and what is like the films that were liked."""
    site, form = _site(request), form_of(request.url.query)
    visitor = site.visitor(request)
    seen = await _home(site, visitor, form)
    return site.page("home.html", visitor, form=form, offer=await site.presenter.offer(), **_shown(seen))


async def home_part(request: Request) -> Response:
    """Writes the part of the first page that filters and clicks change."""
    site, form = _site(request), form_of(request.url.query)
    visitor = site.visitor(request)
    return HTMLResponse(site.part("parts/home.html", visitor, **_shown(await _home(site, visitor, form))))


async def search(request: Request) -> Response:
    """Shows what is found for a title."""
    site, text = _site(request), form_of(request.url.query).text("q")
    visitor = site.visitor(request)
    found = await site.presenter.typed(text, visitor.user_id, _RESULTS)
    return site.page("search.html", visitor, found=found, back=f"/search?{request.url.query}", new=frozenset())


async def search_part(request: Request) -> Response:
    """Writes what is found for a title that is being typed."""
    site, text = _site(request), form_of(request.url.query).text("q")
    found = await site.presenter.typed(text)
    return HTMLResponse(site.part("parts/found.html", site.visitor(request), found=found))


async def film(request: Request) -> Response:
    """Shows one film."""
    site = _site(request)
    visitor = site.visitor(request)
    movie_id = film_of(request)
    shown = await site.presenter.film(visitor.user_id, movie_id)
    if shown.card is not None:
        return site.page("film.html", visitor, film=shown, card=shown.card, back=f"/films/{movie_id}", new=frozenset())
    notice = shown.notices[0]
    if notice.mood is Mood.AWAY:
        return site.message(visitor, 503, "Just a moment", notice.text)
    return site.message(visitor, 404, "No such film", notice.text)


async def yours(request: Request) -> Response:
    """Shows what the visitor said, and how to have it deleted."""
    site = _site(request)
    visitor = site.visitor(request)
    return site.page("yours.html", visitor, history=await site.presenter.history(visitor.user_id))


async def opinion(request: Request) -> Response:
    """Notes what the visitor says about a film, and shows what that changed."""
    site, form = _site(request), await posted(request)
    visitor = site.visitor(request)
    if not site.keys.is_token(visitor.user_id, form.text("token")):
        return _too_old(request, site, visitor)
    told = await _say(site, visitor, film_of(request), form)
    if not _by_script(request):
        return site.after(form.back(), told.notice.text)
    if not form.text("part") or not told.done:
        return for_script(told.notice.text, told.done)
    return await _changed_list(site, visitor, form, told)


async def forget(request: Request) -> Response:
    """Deletes what the visitor said, and makes them somebody new."""
    site, form = _site(request), await posted(request)
    visitor = site.visitor(request)
    if not site.keys.is_token(visitor.user_id, form.text("token")):
        return _too_old(request, site, visitor)
    told = await site.presenter.forget(visitor.user_id)
    response = site.after("/" if told.done else "/yours", told.notice.text)
    if told.done:
        response.delete_cookie(SESSION, secure=site.https, httponly=True, samesite="lax")
    return response


async def _say(site: Site, visitor: Visitor, movie_id: int, form: Form) -> Told:
    presenter, led_by = site.presenter, form.text("led_by")[:64]
    match form.text("verdict"):
        case "like":
            return await presenter.like(visitor.user_id, movie_id, led_by)
        case "dislike":
            return await presenter.dislike(visitor.user_id, movie_id, led_by)
        case "rate":
            return await presenter.rate(visitor.user_id, movie_id, form.stars(), led_by)
        case "take_back":
            return await presenter.take_back(visitor.user_id, movie_id, led_by)
    return Told(False, Notice(Mood.REFUSED, "Say like, dislike, rate or take back."))


async def _changed_list(site: Site, visitor: Visitor, form: Form, told: Told) -> Response:
    asked = query_of(form.back())
    seen = await _home(site, visitor, asked)
    moved = changes(form.numbers("shown"), seen.cards)
    html = site.part("parts/home.html", visitor, **_shown(seen) | {"new": moved.new})
    return for_script(f"{told.notice.text} {moved}", told.done, html)


async def _home(site: Site, visitor: Visitor, form: Form) -> Home:
    try:
        return await site.presenter.home(visitor.user_id, form.choice())
    except InvalidRequest as error:
        refused = Notice(Mood.REFUSED, error.message)
        return Home(Choice(), (), (), (refused,), personal=False, whole=True, request_id="", opinions=0)


def _shown(seen: Home) -> dict[str, Any]:
    return {"home": seen, "back": path_of(seen.choice), "new": frozenset()}


def _too_old(request: Request, site: Site, visitor: Visitor) -> Response:
    if _by_script(request):
        return for_script(_OLD_PAGE, False, status=403)
    return site.message(visitor, 403, "Load this page again", _OLD_PAGE)


def _by_script(request: Request) -> bool:
    return request.headers.get("x-requested-with") == "marquee"


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site
