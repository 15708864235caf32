"""How the window looks: colours of both themes, fonts, and the coloured tile beside a film."""

from __future__ import annotations

import colorsys
import math
import tkinter as tk
from tkinter import font, ttk
from typing import Final, NamedTuple

import sv_ttk

ROW: Final = 48
_TILE_WIDTH, _TILE_HEIGHT, _TILE_GAP = 30, 38, 10
_CORNER = 5


class Colours(NamedTuple):
    """Holds the colours that the theme itself has no name for."""

    back: str
    text: str
    dim: str
    accent: str
    star: str
    hint: str
    away: str
    refused: str


_COLOURS = {
    "light": Colours("#fafafa", "#1c1c1c", "#5f5f5f", "#005fb8", "#b26a00", "#e7f1fb", "#fdf0d5", "#fde2e0"),
    "dark": Colours("#1c1c1c", "#fafafa", "#a8a8a8", "#57c8ff", "#ffc24b", "#17324a", "#4a3a12", "#4f2222"),
}
OTHER: Final = {"light": "dark", "dark": "light"}


class Looks:
    """Dresses the window in a theme; fonts are named, so that whoever uses them changes with them."""

    def __init__(self, root: tk.Tk, theme: str) -> None:
        self._root = root
        self._tiles: dict[int, tk.PhotoImage] = {}
        base = font.nametofont("TkDefaultFont", root).actual()
        family, size = base["family"], int(base["size"])
        self.title = font.Font(root, family=family, size=size + 8, weight="bold")
        self.heading = font.Font(root, family=family, size=size + 1, weight="bold")
        self.body = font.Font(root, family=family, size=size)
        self.strong = font.Font(root, family=family, size=size, weight="bold")
        self.theme = theme
        self.wear(theme)

    @property
    def colours(self) -> Colours:
        """Gives the colours of the theme that is worn."""
        return _COLOURS[self.theme]

    def wear(self, theme: str) -> None:
        """Puts a theme on."""
        self.theme = theme
        sv_ttk.set_theme(theme, self._root)
        style = ttk.Style(self._root)
        style.configure("Films.Treeview", rowheight=ROW, font=self.body, indent=6)
        style.configure("Checks.Treeview", rowheight=26, font=self.body, indent=0)
        style.configure("Name.TLabel", font=self.title)
        style.configure("Head.TLabel", font=self.heading)
        style.configure("Opinion.TLabel", font=self.strong)

    def fit(self, text: str, width: int, lines: int) -> str:
        """Breaks a text into so many lines of a width in pixels; what has no room gives way to an ellipsis."""
        fitted: list[str] = []
        words = text.split()
        while words and len(fitted) < lines - 1:
            count = max(1, self._count(words, width))
            fitted.append(" ".join(words[:count]))
            words = words[count:]
        rest = " ".join(words)
        if self.body.measure(rest) > width:
            kept = next((end for end in range(len(rest), 0, -1) if self.body.measure(f"{rest[:end]}…") <= width), 0)
            rest = f"{rest[:kept].rstrip()}…"
        return "\n".join([*fitted, rest] if rest else fitted)

    def _count(self, words: list[str], width: int) -> int:
        """Counts the words that go into one line."""
        return next((end for end in range(len(words), 0, -1) if self.body.measure(" ".join(words[:end])) <= width), 0)

    def tile(self, hue: int) -> tk.PhotoImage:
        """Draws the tile of a film's colour, with room beside it."""
        if hue not in self._tiles:
            self._tiles[hue] = self._drawn(hue)
        return self._tiles[hue]

    def _drawn(self, hue: int) -> tk.PhotoImage:
        image = tk.PhotoImage(master=self._root, width=_TILE_WIDTH + _TILE_GAP, height=_TILE_HEIGHT)
        for row in range(_TILE_HEIGHT):
            inset = _inset(min(row, _TILE_HEIGHT - 1 - row))
            colour = _colour(hue, 0.62 - 0.24 * row / _TILE_HEIGHT)
            image.put(colour, to=(inset, row, _TILE_WIDTH - inset, row + 1))
        return image


def _inset(from_edge: int) -> int:
    """Says how far a rounded corner comes in, so many rows from the edge."""
    if from_edge >= _CORNER:
        return 0
    rise = _CORNER - from_edge
    return round(_CORNER - math.sqrt(_CORNER**2 - rise**2))


def _colour(hue: int, lightness: float) -> str:
    red, green, blue = colorsys.hls_to_rgb(hue / 360, lightness, 0.55)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
