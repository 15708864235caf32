"""How often somebody may ask: a bucket of requests for each, refilled at a steady rate."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# Buckets that are kept; the one that was idle longest goes first, and whoever comes back starts with a full one.
_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Holds what one person may ask, and what everybody behind one address may ask together."""

    people: Limiter
    addresses: Limiter


class Limiter:
    """Lets each caller ask `burst` times at once and `rate` times a second on average."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """Takes one request of a caller's; returns 0, or in how many seconds there will be one to take."""
        now = self._clock()
        left, then = self._buckets.pop(caller, (float(self._burst), now))
        left = min(self._burst, left + (now - then) * self._rate)
        taken = left >= 1
        self._buckets[caller] = (left - 1 if taken else left, now)
        if len(self._buckets) > _MOST:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - left) / self._rate
