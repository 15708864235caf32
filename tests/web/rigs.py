"""The page as a process of its own, and what asks it for things without a browser."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from tests.rigs import DEADLINE_S, ROOT, Process, service_process

ODD_TITLES = {
    0: 'He said "Don’t" & <b>left</b>',
    1: "<script>document.title='taken over'</script>",
    2: "🎬 Popcorn 🍿",
    3: "فيلم الليل",
    4: "'; DROP TABLE films; --",
    5: "Loooong" * 25,
    6: "{{ 7 * 7 }} {% raw %}",
}
_TOKEN = re.compile(r'name="token" value="([^"]+)"')


class Page(NamedTuple):
    """Is the page, up, and the addresses of the services behind it."""

    url: str
    process: subprocess.Popen[str]
    encoder: str
    retriever: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextlib.contextmanager
def web_page(folder: Path, encoder: str, retriever: str, *arguments: str, api_key: str = "") -> Iterator[Page]:
    """Serves the page on a free port."""
    port_file = folder / f"web-{time.monotonic_ns()}.port"
    addresses = ["--encoder", encoder, "--retriever", retriever, "--listen", "127.0.0.1:0"]
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "clients.web",
        *addresses,
        "--port-file",
        str(port_file),
        *arguments,
    ]
    environment = {**os.environ, "MARQUEE_API_KEY": api_key}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not port_file.exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "the page did not come up"
            time.sleep(0.02)
        yield Page(f"http://127.0.0.1:{port_file.read_text()}", process, encoder, retriever)
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def encoder_process(folder: Path, registry: Path, *arguments: str) -> Iterator[Process]:
    """Serves people's events, which stay in the folder."""
    store = f"--store={folder / 'store.sqlite'}"
    with service_process("user_encoder", folder, registry, store, "--drain-s=0", *arguments) as process:
        yield process


class Answer(NamedTuple):
    """Is an answer, read whole."""

    status: int
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    text: str

    @property
    def token(self) -> str:
        found = _TOKEN.search(self.text)
        assert found, f"no token in {self.text[:200]}"
        return found[1]


class Caller:
    """Asks a page for things as a browser would: on one connection, with the cookies that it was given."""

    def __init__(self, page: Page) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=DEADLINE_S)
        self.cookies: dict[str, str] = {}

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self._ask("GET", path, headers or {}, None)

    def post(self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", path, kind | dict(headers or {}), urlencode(fields))

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: str | None) -> Answer:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        self._connection.request(method, path, body, sent | dict(headers))
        answer = self._connection.getresponse()
        text = answer.read().decode()
        given = dict(_cookie(line) for line in answer.headers.get_all("Set-Cookie") or [])
        for name, line in given.items():
            self.cookies[name] = line.partition(";")[0]
            if "Max-Age=0" in line:
                del self.cookies[name]
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, given, text)


def _cookie(line: str) -> tuple[str, str]:
    name, _, rest = line.partition("=")
    return name, rest.strip()
