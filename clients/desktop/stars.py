"""Five stars to rate with, in halves: by mouse, or with the arrow keys and Enter."""

from __future__ import annotations

import math
import tkinter as tk
from collections.abc import Callable
from typing import Final

from clients.desktop.looks import Looks

_SIZE: Final = 26
_RADIUS: Final = 11.0
_HALVES: Final = 10


class Stars(tk.Canvas):
    """Shows a rating and takes another; `rated` gets 0.5 to 5."""

    def __init__(self, master: tk.Misc, looks: Looks, rated: Callable[[float], None]) -> None:
        super().__init__(
            master, width=5 * _SIZE + 4, height=_SIZE + 4, highlightthickness=2, borderwidth=0, takefocus=True
        )
        self._looks = looks
        self._rated = rated
        self._stars = 0.0
        self._aimed: float | None = None
        self.bind("<Motion>", lambda event: self._aim(self._at(event.x)))
        self.bind("<Leave>", lambda _: self._aim(None))
        self.bind("<Button-1>", lambda event: self._rated(self._at(event.x)))
        self.bind("<Left>", lambda _: self._step(-1))
        self.bind("<Right>", lambda _: self._step(1))
        for key in ("<Return>", "<space>"):
            self.bind(key, lambda _: self._take())
        self.bind("<FocusOut>", lambda _: self._aim(None))
        self.dress()

    def dress(self) -> None:
        """Takes the colours of the theme."""
        colours = self._looks.colours
        self.configure(background=colours.back, highlightbackground=colours.back, highlightcolor=colours.accent)
        self._draw()

    def show(self, stars: float) -> None:
        """Shows a rating; 0: none."""
        self._stars = stars
        self._draw()

    def _at(self, x: int) -> float:
        return min(_HALVES, max(1, math.ceil((x - 2) / _SIZE * 2))) / 2

    def _aim(self, stars: float | None) -> None:
        self._aimed = stars
        self._draw()

    def _step(self, halves: int) -> None:
        aimed = self._stars if self._aimed is None else self._aimed
        self._aim(min(5.0, max(0.5, aimed + halves / 2)))

    def _take(self) -> None:
        if self._aimed is not None:
            self._rated(self._aimed)

    def _draw(self) -> None:
        shown = self._stars if self._aimed is None else self._aimed
        colours = self._looks.colours
        self.delete("all")
        for at in range(5):
            for half in (0, 1):
                lit = shown >= at + (half + 1) / 2
                self.create_polygon(_half(at, half), fill=colours.star if lit else "", outline="")
            self.create_polygon(_outline(at), fill="", outline=colours.star if shown > at else colours.dim)


def _points(at: int) -> list[tuple[float, float]]:
    centre_x, centre_y = 2 + _SIZE * (at + 0.5), 2 + _SIZE / 2
    return [
        (centre_x + radius * math.sin(turn), centre_y - radius * math.cos(turn))
        for point in range(10)
        for radius, turn in [(_RADIUS if point % 2 == 0 else _RADIUS * 0.42, point * math.pi / 5)]
    ]


def _outline(at: int) -> list[float]:
    return [number for point in _points(at) for number in point]


def _half(at: int, half: int) -> list[float]:
    """Gives the left or the right half of a star: its points from the top to the bottom on that side."""
    points = _points(at)
    side = points[:6] if half else [points[0], *points[:4:-1]]
    return [number for point in side for number in point]
