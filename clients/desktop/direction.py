"""Texts that are written from right to left, for screens that draw every text from left to right."""

from __future__ import annotations

import itertools
import unicodedata

_RIGHT_TO_LEFT = ("R", "AL")
# Marks stay behind their letter, also where letters change places.
_MARKS = ("NSM", "BN")


def visual(text: str) -> str:
    """Puts right-to-left runs into the order in which they are seen, line by line; all else stays.

    Tk on X11 draws characters in the order of the text. Letters stay as they are: Arabic is not joined.
    """
    if not any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text):
        return text
    return "\n".join(map(_line, text.split("\n")))


def _line(line: str) -> str:
    runs = [(backwards, "".join(part)) for backwards, part in _runs(line)]
    seen = [_reversed(run) if backwards else run for backwards, run in runs]
    first = next((backwards for character in line if (backwards := _side(character)) is not None), False)
    return "".join(reversed(seen) if first else seen)


def _runs(line: str) -> list[tuple[bool, list[str]]]:
    """Cuts a line into runs of one direction; what has none of its own goes on, but for spaces at the end of a run."""
    sides: list[bool] = []
    for at, character in enumerate(line):
        side = _side(character)
        if side is None:
            after = next((found for later in line[at:] if (found := _side(later)) is not None), False)
            side = bool(sides and sides[-1] and (after or unicodedata.bidirectional(character) in _MARKS))
        sides.append(side)
    pairs = itertools.groupby(zip(sides, line, strict=True), key=lambda pair: pair[0])
    return [(side, [character for _, character in group]) for side, group in pairs]


def _side(character: str) -> bool | None:
    """Says whether a character is written from right to left; None where it follows its neighbours."""
    kind = unicodedata.bidirectional(character)
    if kind in _RIGHT_TO_LEFT:
        return True
    return False if kind in ("L", "EN", "AN") else None


def _reversed(run: str) -> str:
    clusters: list[str] = []
    for character in run:
        if clusters and unicodedata.bidirectional(character) in _MARKS:
            clusters[-1] += character
        else:
            clusters.append(character)
    return "".join(reversed(clusters))
