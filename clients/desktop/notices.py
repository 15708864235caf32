"""The bar that says what is to be said: hints, what is away, what was refused."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable, Sequence
from dataclasses import replace

from clients.desktop.direction import visual
from clients.desktop.looks import Looks
from clients.presenter import Mood, Notice

# What is worst is said first.
_ORDER = (Mood.REFUSED, Mood.AWAY, Mood.HINT)


class NoticeBar(tk.Label):
    """Shows the notices of several sources, each of which replaces its own; it takes no room where there are none.

    `report` is told, once while it is shown, what stands behind a notice that something is away.
    """

    def __init__(self, master: tk.Misc, looks: Looks, report: Callable[[str], None]) -> None:
        super().__init__(master, anchor="w", justify="left", padx=10, pady=6, borderwidth=0)
        self._looks = looks
        self._report = report
        self._notices: dict[str, tuple[Notice, ...]] = {}
        self.bind("<Configure>", lambda event: self.configure(wraplength=max(200, event.width - 24)))

    @property
    def shown(self) -> tuple[Notice, ...]:
        """Lists what is said, the worst first, nothing twice."""
        said = {notice.text: notice for notices in self._notices.values() for notice in notices}
        return tuple(sorted(said.values(), key=lambda notice: _ORDER.index(notice.mood)))

    def show(self, source: str, notices: Sequence[Notice]) -> None:
        """Replaces what a source says."""
        known = {notice.detail for said in self._notices.values() for notice in said}
        self._notices[source] = tuple(notices)
        for detail in {notice.detail for notice in notices if notice.mood is Mood.AWAY and notice.detail} - known:
            self._report(detail)
        self.dress()

    def add(self, source: str, text: str) -> None:
        """Adds a sentence to what a source says, or begins with it."""
        said = self._notices.get(source) or (Notice(Mood.HINT, ""),)
        last = said[-1]
        self.show(source, (*said[:-1], replace(last, text=f"{last.text}  {text}".strip())))

    def dress(self) -> None:
        """Takes the colours of the theme and of the worst that is said."""
        shown = self.shown
        if not shown:
            self.grid_remove()
            return
        colours = self._looks.colours
        backs = {Mood.HINT: colours.hint, Mood.AWAY: colours.away, Mood.REFUSED: colours.refused}
        text = visual("\n".join(notice.text for notice in shown))
        self.configure(text=text, background=backs[shown[0].mood], foreground=colours.text, font=self._looks.body)
        self.grid()
