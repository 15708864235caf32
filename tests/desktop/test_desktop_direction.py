"""Right-to-left texts as they are seen; every expectation is written by code point, so that no editor turns it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.desktop.direction import visual

ALEF, BET, GIMEL, DALET = "\u05d0", "\u05d1", "\u05d2", "\u05d3"
QAMATS = "\u05b8"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", ""),
        ("Alien 3: The Return", "Alien 3: The Return"),
        # One word, and two with the space between them.
        (ALEF + BET + GIMEL, GIMEL + BET + ALEF),
        (f"{ALEF}{BET} {GIMEL}{DALET}", f"{DALET}{GIMEL} {BET}{ALEF}"),
        # In a line that begins from the left the other words stay where they are.
        (f"See {ALEF}{BET} {GIMEL} now", f"See {GIMEL} {BET}{ALEF} now"),
        # In one that begins from the right everything changes sides; numbers are read from the left.
        (f"{ALEF}{BET} 1995", f"1995 {BET}{ALEF}"),
        # A mark stays behind its letter.
        (f"{ALEF}{QAMATS}{BET}", f"{BET}{ALEF}{QAMATS}"),
        # Lines are turned one by one.
        (f"{ALEF}{BET}\nDrama", f"{BET}{ALEF}\nDrama"),
        ("😀 {x}", "😀 {x}"),
    ],
)
def test_texts(text: str, seen: str) -> None:
    assert visual(text) == seen


@given(st.text())
def test_no_character_is_lost(text: str) -> None:
    assert sorted(visual(text)) == sorted(text)


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_ascii_stays_as_it_is(text: str) -> None:
    assert visual(text) == text
