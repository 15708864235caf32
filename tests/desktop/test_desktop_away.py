"""What happens when something is wrong: nothing freezes, it is said, and it mends itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tkinter as tk
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from clients.desktop.bridge import Bridge
from clients.presenter import Mood, Notice, Stage
from tests.desktop.rigs import Person, Services, at_the_window, serving
from tests.rigs import DEADLINE_S, ROOT, service_process

R = TypeVar("R")


@pytest.fixture
def own(registry: Path, tmp_path: Path) -> Iterator[Services]:
    """Is services that a test may stop."""
    with serving(registry, tmp_path) as services:
        yield services


def test_a_service_that_goes_is_said_and_comes_back_by_itself(
    display: str, own: Services, registry: Path, tmp_path: Path
) -> None:
    with at_the_window(display, *own.addresses) as person:
        person.settles()
        before = person.titles()
        own.retriever.process.kill()
        own.retriever.process.wait()
        person.presses("F5")
        person.waits(lambda: "away" in person.notice(), "not said that it is away")
        # What is remembered is shown meanwhile, and what is said waits.
        assert person.titles()
        person.presses("Down", "l")
        person.waits(lambda: "It is looked for again by itself" in person.notice(), "not said that it waits")
        liked = person.window.details.card
        assert liked is not None
        port = own.retriever.port
        with service_process("retriever", tmp_path, registry, "--drain-s=0", f"--listen=127.0.0.1:{port}"):
            person.waits(lambda: f"Noted: you like {liked.movie.title}" in person.notice(), "did not come back")
            person.settles()
            assert "away" not in person.notice()
            assert person.window.films.sections()[0] == "For you"
            assert liked.movie.title not in person.titles()
            assert person.titles() != before


def test_f5_says_again_what_waits(
    display: str, own: Services, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is said again by itself here: only the key does it.
    monkeypatch.setattr("clients.desktop.window.RETRY_MS", 3_600_000)
    with at_the_window(display, *own.addresses) as person:
        person.settles()
        own.encoder.process.kill()
        own.encoder.process.wait()
        person.presses("Down", "l")
        person.waits(lambda: "away right now" in person.notice(), "not said that it waits")
        assert not person.window.voice.quiet
        store = f"--store={tmp_path / 'features.sqlite'}"
        with service_process("user_encoder", tmp_path, registry, store, f"--listen=127.0.0.1:{own.encoder.port}"):
            # Pressed again and again: gRPC takes a moment to find that the service is there.
            person.waits(lambda: is_heard_after_f5(person), "what waits was not said again", DEADLINE_S)
            person.waits(lambda: "Noted: you like" in person.notice(), "not heard")


def is_heard_after_f5(person: Person) -> bool:
    person.presses("F5")
    return person.window.voice.quiet


def test_what_is_behind_an_outage_is_reported_once_while_it_lasts(display: str, services: Services) -> None:
    with at_the_window(display, *services.addresses) as person:
        person.settles()
        away = Notice(Mood.AWAY, "It is away.", "no retriever answers")
        for source in ("home", "film", "home"):
            person.window.notices.show(source, (away, Notice(Mood.REFUSED, "No such film.", "unknown")))
        assert person.reported == ["no retriever answers"]
        for source in ("home", "film"):
            person.window.notices.show(source, ())
        person.window.notices.show("home", (away,))
        assert person.reported == ["no retriever answers"] * 2


def test_without_the_encoder_films_can_still_be_found(
    display: str, own: Services, registry: Path, tmp_path: Path
) -> None:
    with at_the_window(display, *own.addresses) as person:
        person.settles()
        own.encoder.process.kill()
        own.encoder.process.wait()
        person.types("harbor")
        person.waits(lambda: "Films called “harbor”" in person.window.films.sections(), "nothing found")
        assert person.titles()
        person.presses("Escape")
        person.waits(lambda: "Personal recommendations are away" in person.notice(), "not said")
        store = f"--store={tmp_path / 'features.sqlite'}"
        with service_process("user_encoder", tmp_path, registry, store, f"--listen=127.0.0.1:{own.encoder.port}"):
            person.waits(lambda: "away" not in person.notice(), "did not come back")


def test_nothing_freezes_while_a_service_hangs(display: str, own: Services) -> None:
    with at_the_window(display, *own.addresses) as person:
        person.settles()
        for process in (own.encoder.process, own.retriever.process):
            process.send_signal(signal.SIGSTOP)
        try:
            person.presses("F5")
            assert person.window.busy
            person.types("still here")
            person.presses("ctrl+t")
            # All of it is done while the answers are awaited.
            assert person.window.header.typed.get() == "still here"
            assert str(person.window.details.text.cget("background")) == "#1c1c1c"
            assert person.window.busy
            person.waits(lambda: "takes too long" in person.notice() or "away" in person.notice(), "not said")
        finally:
            for process in (own.encoder.process, own.retriever.process):
                process.send_signal(signal.SIGCONT)
        person.waits(lambda: "Films called “still here”" in person.window.films.sections(), "did not come back")


def test_a_window_that_is_closed_during_calls_is_gone(display: str, own: Services) -> None:
    with at_the_window(display, *own.addresses) as person:
        person.settles()
        own.encoder.process.send_signal(signal.SIGSTOP)
        try:
            person.presses("Down", "l")
            assert not person.window.voice.quiet
            person.window.close()
        finally:
            own.encoder.process.send_signal(signal.SIGCONT)
    assert not [thread for thread in threading.enumerate() if thread.name == "presenter"]


def test_no_service_at_all_is_a_window_that_says_so(display: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with at_the_window(display, address, address) as person:
            person.waits(lambda: "away right now" in person.notice(), "not said")
            assert person.titles() == []
            person.types("alien")
            person.presses("F6", "space", "F6", "l")
            person.waits(lambda: "away right now" in person.notice(), "not said any more")


def test_addresses_that_are_swapped_say_that_somebody_has_to_look(display: str, services: Services) -> None:
    encoder, retriever = services.addresses
    with at_the_window(display, retriever, encoder) as person:
        person.waits(lambda: "Its operator has to look at it" in person.notice(), "not said")
        assert any("check the address" in notice.detail for notice in person.window.notices.shown)


# The program itself.


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "clients.desktop", *arguments],
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def xdotool(display: str, *arguments: str) -> str:
    done = subprocess.run(
        ["xdotool", *arguments],
        env={**os.environ, "DISPLAY": display},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.stdout.strip()


def test_the_program_opens_a_window_and_closes_by_key(display: str, services: Services) -> None:
    encoder, retriever = services.addresses
    process = start(f"--encoder={encoder}", f"--retriever={retriever}", "--user=a passer-by", "--theme=dark")
    try:
        window = awaited(lambda: xdotool(display, "search", "--onlyvisible", "--class", "Marquee"), process)
        xdotool(display, "windowfocus", "--sync", window.split()[0])
        until_gone(display, process)
    finally:
        process.kill()
    _, said = process.communicate()
    assert (process.returncode, said) == (0, "")


def until_gone(display: str, process: subprocess.Popen[str]) -> None:
    """Presses Ctrl+Q until the program has seen it: before it runs, keys go nowhere."""
    for _ in range(60):
        xdotool(display, "key", "ctrl+q")
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
        return


def awaited(call: Callable[[], str], process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + DEADLINE_S
    while not (answer := call()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def test_without_a_screen_it_says_so() -> None:
    process = start(DISPLAY="")
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "no window can be opened" in said
    assert said.count("\n") == 1


def test_an_address_that_is_none_is_refused_before_a_window_opens() -> None:
    process = start("--encoder=nowhere", DISPLAY="")
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert "encoder is 'nowhere', which is no address" in said


# The bridge between the threads.


@pytest.fixture
def root(display: str) -> Iterator[tk.Tk]:
    window = tk.Tk()
    yield window
    window.destroy()


async def after(event: asyncio.Event | None, answer: R) -> R:
    if event is not None:
        await event.wait()
    return answer


def run_until(root: tk.Tk, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline
        root.update()
        time.sleep(0.001)


def test_of_a_slot_only_the_newest_answer_comes(root: tk.Tk) -> None:
    with Stage() as stage:
        bridge, heard = Bridge(root, stage), list[int]()
        for number in range(1000):
            bridge.ask("list", after(None, number), heard.append)
        run_until(root, lambda: not bridge.busy)
        assert heard == [999]
        bridge.ask("list", after(None, 1), heard.append)
        bridge.ask("other", after(None, 2), heard.append)
        run_until(root, lambda: not bridge.busy)
        assert sorted(heard[1:]) == [1, 2]


def test_an_answer_that_was_already_there_is_dropped_by_a_newer_question(root: tk.Tk) -> None:
    with Stage() as stage:
        bridge, heard = Bridge(root, stage), list[str]()
        bridge.ask("list", after(None, "old"), heard.append)
        # The answer is there, and the window has not looked yet.
        stage.run(after(None, None)).result(DEADLINE_S)
        bridge.ask("list", after(None, "new"), heard.append)
        run_until(root, lambda: not bridge.busy)
        assert heard == ["new"]


def test_answers_come_on_the_windows_thread_and_never_after_close(root: tk.Tk) -> None:
    with Stage() as stage:
        bridge, threads, heard = Bridge(root, stage), list[int](), list[str]()
        bridge.ask("list", after(None, ""), lambda _: threads.append(threading.get_ident()))
        run_until(root, lambda: not bridge.busy)
        assert threads == [threading.get_ident()]
        bridge.ask("list", after(asyncio.Event(), "late"), heard.append)
        bridge.close()
        bridge.ask("list", after(None, "later"), heard.append)
        root.update()
        assert heard == []


def test_nothing_wakes_the_window_while_nothing_is_awaited(root: tk.Tk) -> None:
    with Stage() as stage:
        bridge = Bridge(root, stage)
        bridge.ask("list", after(None, 1), lambda _: None)
        run_until(root, lambda: not bridge.busy)
        root.update()
        assert root.tk.call("after", "info") == ""
