"""Texts that are written from right to left, for screens that draw every text from left to right."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence

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
    sides = [_side(character) for character in line]
    base = next((side for side in sides if side is not None), False)
    resolved = [_resolved(line, sides, at, base) for at in range(len(line))]
    pairs = itertools.groupby(zip(resolved, line, strict=True), key=lambda pair: pair[0])
    runs = [(side, "".join(character for _, character in group)) for side, group in pairs]
    seen = [_reversed(run) if side else run for side, run in runs]
    return "".join(reversed(seen) if base else seen)


def _resolved(line: str, sides: Sequence[bool | None], at: int, base: bool) -> bool:
    """Says which way a character goes: one without a side goes with its neighbours where they agree, else with all."""
    side = sides[at]
    if side is not None:
        return side
    before = next((found for found in reversed(sides[:at]) if found is not None), base)
    after = next((found for found in sides[at:] if found is not None), base)
    if unicodedata.bidirectional(line[at]) in _MARKS:
        return before
    return before if before == after else base


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
