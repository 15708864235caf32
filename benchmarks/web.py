"""How long the web page keeps a person waiting: over its sockets, and in a browser where there is one."""

from __future__ import annotations

import http.client
import itertools
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from urllib.parse import quote, urlencode

from playwright.sync_api import Page, sync_playwright

from benchmarks.report import Row
from benchmarks.startup import SERVICES
from benchmarks.work import Work, say

_ROUNDS = 200
_CLICKS = 60
_TITLES = ("the matrix", "star wars", "toy story", "pulp fiction", "back to the future", "alien")
_FIRST_MS, _CLICK_MS, _TYPED_MS = 150.0, 100.0, 50.0
_TOKEN = re.compile(r'name="token" value="([^"]+)"')
_FILM = re.compile(r'data-film="(\d+)"')

# From the click to the second frame after the list has changed: by then it has been painted.
_CLICKED = """() => new Promise((done) => {
    const button = document.querySelectorAll("[data-list] .like")[3];
    const watch = new MutationObserver(() => {
        watch.disconnect();
        requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
    });
    watch.observe(document.getElementById("home"), { childList: true });
    const began = performance.now();
    button.click();
})"""
_TYPED = """(text) => new Promise((done) => {
    const box = document.getElementById("q");
    const watch = new MutationObserver(() => { watch.disconnect(); done(performance.now() - began); });
    watch.observe(document.getElementById("found"), { childList: true });
    const began = performance.now();
    box.value = text;
    box.dispatchEvent(new Event("input"));
})"""


def measure(work: Work) -> list[Row]:
    """Serves the page beside both services, and asks it as a person with a growing history does."""
    say("web page")
    with ExitStack() as stack:
        services = [work.processes.serve(f"services.{name}", *work.arguments(name)) for name in SERVICES]
        encoder, retriever = (stack.enter_context(service).address for service in services)
        told = ("--encoder", encoder, "--retriever", retriever, "--rate", "10000")
        page = stack.enter_context(work.processes.serve("clients.web", *told))
        rows = list(_over_sockets(page.port))
        chromium = shutil.which("chromium")
        return rows + (list(_in_a_browser(chromium, f"http://{page.address}")) if chromium else [])


def _over_sockets(port: int) -> Iterator[Row]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        person = _Person(connection)
        yield _row("first list", [person.look() for _ in range(_ROUNDS)], _FIRST_MS)
        yield _row("click to new list", [person.like() for _ in range(_CLICKS)], _CLICK_MS)
        yield _row(f"first list after {_CLICKS} likes", [person.look() for _ in range(_ROUNDS)], _FIRST_MS)
        yield _row("typed search", [person.type(text) for text in _prefixes(_ROUNDS)], _TYPED_MS)


def _in_a_browser(chromium: str, url: str) -> Iterator[Row]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        clicked = [float(page.evaluate(_CLICKED)) for _ in range(_CLICKS)]
        yield _row("click to new list, painted in Chromium", clicked, _CLICK_MS)
        yield _row("typed search, shown in Chromium", [_typed(page, text) for text in _prefixes(_CLICKS)], _TYPED_MS)
        browser.close()


def _typed(page: Page, text: str) -> float:
    return float(page.evaluate(_TYPED, text))


class _Person:
    """Is somebody with a session, on one connection; each method returns how long it took, in milliseconds."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._headers: dict[str, str] = {}
        self._text = ""
        self.look()
        found = _TOKEN.search(self._text)
        self._token = found[1] if found else ""

    def look(self) -> float:
        return self._timed("GET", "/")

    def type(self, text: str) -> float:
        return self._timed("GET", f"/parts/search?q={quote(text)}")

    def like(self) -> float:
        film = _FILM.findall(self._text.replace('\\"', '"'))[3]
        body = urlencode({"token": self._token, "verdict": "like", "part": "home", "back": "/", "shown": film})
        return self._timed("POST", f"/films/{film}/opinion", body)

    def _timed(self, method: str, path: str, body: str | None = None) -> float:
        sent = self._headers | ({"X-Requested-With": "marquee"} if body else {})
        began = time.perf_counter()
        self._connection.request(method, path, body, sent)
        answer = self._connection.getresponse()
        self._text = answer.read().decode()
        ms = 1000 * (time.perf_counter() - began)
        if cookie := answer.headers.get("Set-Cookie"):
            self._headers["Cookie"] = cookie.partition(";")[0]
        return ms


def _prefixes(count: int) -> Iterator[str]:
    every = (title[:end] for title in itertools.cycle(_TITLES) for end in range(1, len(title) + 1))
    return itertools.islice(every, count)


def _row(measured: str, times_ms: Sequence[float], goal_ms: float) -> Row:
    ascending = sorted(times_ms)
    p50, p95, p99 = (ascending[int(part * len(ascending))] for part in (0.5, 0.95, 0.99))
    beside = f"p50 {p50:.1f}, p99 {p99:.1f} ms of {len(ascending)}"
    return Row("web", f"{measured}: p95", p95, "ms", goal_ms, beside)
