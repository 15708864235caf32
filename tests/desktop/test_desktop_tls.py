"""The window before services that ask for TLS, for a certificate of the client and for a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desktop.rigs import Person, Services, at_the_window
from tests.secured import MISTAKES, Guarded, guarded


@pytest.fixture(scope="module")
def behind_tls(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded"), registry) as services:
        yield services


def test_films_are_shown_and_liked(display: str, behind_tls: Guarded) -> None:
    told = behind_tls
    with at_the_window(display, told.encoder, told.retriever, api_key=told.api_key, tls=told.tls) as person:
        person.settles()
        assert person.titles()
        person.presses("Down", "l")
        person.waits(lambda: "Noted: you like" in person.notice(), "not noted")
        assert person.reported == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_a_sentence(display: str, behind_tls: Guarded, mistake: str) -> None:
    make, sentence = MISTAKES[mistake]
    told = make(behind_tls)
    with at_the_window(display, told.encoder, told.retriever, api_key=told.api_key, tls=told.tls) as person:
        says_what_is_wrong(person, sentence)


def test_a_window_under_tls_before_services_without_it(display: str, services: Services, behind_tls: Guarded) -> None:
    with at_the_window(display, *services.addresses, tls=behind_tls.tls) as person:
        says_what_is_wrong(person, "does not speak TLS: leave tls away")


def says_what_is_wrong(person: Person, sentence: str) -> None:
    """Waits for the bar to say that something is wrong, and for whoever started the window to be told what."""
    texts = ("away right now", "Its operator has to look at it")
    person.waits(lambda: any(text in person.notice() for text in texts), "not said")
    person.waits(lambda: bool(person.reported), "not reported")
    assert all(sentence in line for line in person.reported), person.reported
