"""A screen of its own, and a person at it: real keys and real clicks, and eyes on what the window shows."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import tkinter as tk
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tkinter import ttk
from typing import NamedTuple

from clients.desktop.films import FilmList
from clients.desktop.window import Window
from clients.presenter import Presenter, Stage
from marquee.client import AsyncRecommender, Tls
from tests.rigs import DEADLINE_S, Process, service_process

PROGRAMS = ("Xvfb", "xdotool", "import")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
_WHOLE = "1400x1000x24"
_PATIENCE_S = 15.0


@contextlib.contextmanager
def screen() -> Iterator[str]:
    """Starts an X server that nobody sees, on a free number; gives its name."""
    said, say = os.pipe()
    command = ["Xvfb", "-displayfd", str(say), "-screen", "0", _WHOLE, "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=(say,), stderr=subprocess.DEVNULL)
    os.close(say)
    try:
        with os.fdopen(said) as stream:
            number = stream.readline().strip()
        assert number, "Xvfb did not come up"
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


class Person:
    """Sits at a window: presses keys, clicks, reads, and waits until something is so."""

    def __init__(self, display: str, window: Window, reported: Sequence[str]) -> None:
        self.window = window
        self.reported = reported
        self.root = window.root
        self._environment = {**os.environ, "DISPLAY": display}

    def takes_the_keyboard(self) -> None:
        """Gives the window the keyboard: there is no window manager here to do that."""
        self.does("windowfocus", "--sync", str(self.root.winfo_id()))
        (self.root.focus_lastfor() or self.root).focus_force()

    def waits(self, until: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S) -> None:
        """Lets the window live until something is so."""
        deadline = time.monotonic() + patience_s
        while not until():
            assert time.monotonic() < deadline, f"{what}; the window says: {self.notice()!r}"
            self.root.update()
            time.sleep(0.002)

    def settles(self) -> None:
        """Waits until nothing is on its way and nothing is about to be asked."""
        self.waits(lambda: not self.window.busy, "the window never came to rest")

    def presses(self, *keys: str) -> None:
        """Presses keys, one after the other, as xdotool names them."""
        self.does("key", "--delay", "1", *keys)

    def types(self, text: str) -> None:
        """Types a text."""
        self.does("type", "--delay", "1", text)

    def clicks(self, widget: tk.Misc, x: int | None = None, y: int | None = None) -> None:
        """Clicks into a widget, in its middle where no other place is said."""
        self.root.update()
        right = widget.winfo_rootx() + (widget.winfo_width() // 2 if x is None else x)
        down = widget.winfo_rooty() + (widget.winfo_height() // 2 if y is None else y)
        self.does("mousemove", str(right), str(down), "click", "1")

    def clicks_film(self, films: FilmList, movie_id: int) -> None:
        """Clicks the row of a film."""
        self.root.update()
        row = next(row for row, card in films.rows() if card.movie.movie_id == movie_id)
        films.tree.see(row)
        self.root.update()
        self.clicks_row(films.tree, row)

    def clicks_row(self, tree: ttk.Treeview, row: str) -> None:
        """Clicks a row of a tree."""
        box = tree.bbox(row)
        assert not isinstance(box, str), "the row is out of sight"
        x, y, _, height = box
        self.clicks(tree, x + 60, y + height // 2)

    def does(self, *arguments: str) -> None:
        """Has xdotool do something."""
        self.root.update()
        subprocess.run(["xdotool", *arguments], env=self._environment, check=True, timeout=DEADLINE_S)
        self.root.update()

    def notice(self) -> str:
        """Reads what the bar says."""
        return "\n".join(notice.text for notice in self.window.notices.shown)

    def titles(self) -> list[str]:
        """Reads the films of the list."""
        return [card.movie.title for card in self.window.films.cards]

    def looks_at(self, width: int, height: int) -> None:
        """Makes the window so large."""
        self.root.geometry(f"{width}x{height}+0+0")
        self.waits(lambda: (self.root.winfo_width(), self.root.winfo_height()) == (width, height), "no such size")
        self.takes_the_keyboard()

    def photographs(self, file: Path) -> None:
        """Takes a picture of the screen."""
        self.root.update()
        size = f"{self.root.winfo_width()}x{self.root.winfo_height()}+0+0"
        command = ["import", "-window", "root", "-crop", size, "+repage", str(file)]
        subprocess.run(command, env=self._environment, check=True, timeout=DEADLINE_S)


@contextlib.contextmanager
def at_the_window(
    display: str,
    encoder: str,
    retriever: str,
    user_id: str = "somebody",
    *,
    theme: str = "light",
    api_key: str = "",
    tls: Tls | None = None,
) -> Iterator[Person]:
    """Opens the window of a person, in this process."""
    root = tk.Tk()
    # A failure in a handler is the test's failure.
    problems: list[BaseException] = []
    root.report_callback_exception = lambda kind, value, trace: problems.append(value)
    with Stage() as stage:
        client = AsyncRecommender(encoder, retriever, deadline_s=2.0, api_key=api_key, tls=tls)
        reported: list[str] = []
        window = Window(root, stage, Presenter(client), user_id, theme=theme, report=reported.append)
        root.geometry("1180x760+0+0")
        root.update()
        person = Person(display, window, reported)
        person.takes_the_keyboard()
        try:
            yield person
        finally:
            if not window.closed:
                window.close()
            stage.run(client.close()).result(DEADLINE_S)
    assert not problems, problems


class Services(NamedTuple):
    """Is where both services are, and what to call them with there again."""

    encoder: Process
    retriever: Process

    @property
    def addresses(self) -> tuple[str, str]:
        """Says where they are: encoder, retriever."""
        return f"127.0.0.1:{self.encoder.port}", f"127.0.0.1:{self.retriever.port}"


@contextlib.contextmanager
def serving(registry: Path, folder: Path) -> Iterator[Services]:
    """Starts both services."""
    store = f"--store={folder / 'features.sqlite'}"
    with (
        service_process("user_encoder", folder, registry, store, "--drain-s=0") as encoder,
        service_process("retriever", folder, registry, "--drain-s=0") as retriever,
    ):
        yield Services(encoder, retriever)
