"""What is told beside the answer, on stderr."""

from __future__ import annotations

import sys

PROGRAM = "python -m clients.cli"


def say(note: str) -> None:
    """Tells something that belongs to the answer and is no part of it."""
    print(f"{PROGRAM}: {note}", file=sys.stderr)


def fail(message: str) -> int:
    """Tells in one line what went wrong; returns the exit code."""
    say(f"error: {' '.join(message.split())}")
    return 1
