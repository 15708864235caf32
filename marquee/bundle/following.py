"""Keeps a local copy of a registry that lies on a shared volume: services read a local disk only."""

from __future__ import annotations

import signal
import sys
import threading

from marquee.bundle.registry import NOTHING, Pointer, Registry
from marquee.errors import MarqueeError


def follow(copy: Registry, source: Registry) -> Pointer:
    """Makes a copy of what the source points to, and deletes from it what nothing names any more."""
    pointer = copy.follow(source)
    copy.gc()
    return pointer


def keep_following(copy: Registry, source: Registry, every_s: float, *, until_active: bool = False) -> None:
    """Follows until SIGTERM or SIGINT, or with `until_active` only until the copy has an active bundle.

    Says each change, and each new problem, which the next look may mend.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    said = ""
    while True:
        pointer, news = _look(copy, source)
        if news != said:
            print(news, file=sys.stderr, flush=True)
            said = news
        if (until_active and pointer.active) or stop.wait(every_s):
            return


def _look(copy: Registry, source: Registry) -> tuple[Pointer, str]:
    try:
        pointer = follow(copy, source)
    except MarqueeError as error:
        return NOTHING, error.message
    except OSError as error:
        return NOTHING, f"{error.filename or source.root}: {error.strerror or error}; looking again"
    active, standby = pointer.active or "none", pointer.standby or "none"
    return pointer, f"follows generation {pointer.generation}: active {active}, standby {standby}"
