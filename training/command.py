"""What the commands of this package have in common: an error is one sentence, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from marquee.errors import MarqueeError


def run_command(name: str, work: Callable[[], object], *, interrupted: str) -> int:
    """Does a command's work; returns 0, 1 after an error of ours, or 130 after Ctrl-C, saying `interrupted`."""
    try:
        work()
    except MarqueeError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted{interrupted}", file=sys.stderr)
        return 130
    return 0
