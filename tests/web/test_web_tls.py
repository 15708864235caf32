"""The page before services that ask for TLS, for a certificate of the client and for a key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from marquee.client import Tls
from tests.bundles import movie_record
from tests.secured import MISTAKES, Guarded, guarded
from tests.web.rigs import Caller, Page, web_page

FILM = movie_record(8)


@pytest.fixture(scope="module")
def behind_tls(web_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded"), web_registry) as services:
        yield services


@contextlib.contextmanager
def visiting(folder: Path, told: Guarded) -> Iterator[Caller]:
    """Serves the page with these credentials, to somebody new."""
    addresses, flags = (told.encoder, told.retriever), flags_of(told.tls)
    with (
        web_page(folder, *addresses, "--deadline=5", *flags, api_key=told.api_key) as page,
        contextlib.closing(Caller(page)) as caller,
    ):
        yield caller


def flags_of(tls: Tls | None) -> list[str]:
    files = {"ca": tls.ca, "cert": tls.cert, "key": tls.key} if tls else {}
    return [f"--tls-{name}={path}" for name, path in files.items() if path is not None]


def test_the_page_shows_who_it_is_and_what_it_may(behind_tls: Guarded, tmp_path: Path) -> None:
    with visiting(tmp_path, behind_tls) as caller:
        first = caller.get("/")
        assert "What most people watch" in first.text
        assert "away right now" not in first.text
        said = caller.post(f"/films/{FILM.movie_id}/opinion", {"token": first.token, "verdict": "like"})
        assert said.status == 303
        assert f"Noted: you like {FILM.title}." in caller.get("/").text
        replicas = caller.get("/operator").text
        assert replicas.count('class="replica"') == 2
        assert caller.post("/forget", {"token": first.token, "sure": "yes"}).headers["location"] == "/"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_a_sentence_on_the_operator_s_page(behind_tls: Guarded, tmp_path: Path, mistake: str) -> None:
    make, sentence = MISTAKES[mistake]
    with visiting(tmp_path, make(behind_tls)) as caller:
        assert_told(caller, sentence)


def test_a_page_under_tls_before_services_without_it(page_of_all: Page, behind_tls: Guarded, tmp_path: Path) -> None:
    plain = behind_tls._replace(encoder=page_of_all.encoder, retriever=page_of_all.retriever)
    with visiting(tmp_path, plain) as caller:
        assert_told(caller, "does not speak TLS: leave tls away")


def assert_told(caller: Caller, sentence: str) -> None:
    home = caller.get("/")
    assert home.status == 200
    assert "The film service is away right now." in home.text or "Its operator has to look at it." in home.text
    # Whose page it is learns more than whoever visits it.
    assert sentence not in unescape(home.text)
    replicas = unescape(caller.get("/operator").text)
    assert replicas.count(sentence) == replicas.count('class="replica away"') == 2
