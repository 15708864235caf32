"""Refuses calls here, where a service has refused many: what it does not get, it need not refuse.

After "Site Reliability Engineering", chapter 21, "Client-side throttling".
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic

# K of the book: as many calls are sent as are accepted, and as many again that may be refused. To refuse more here, as
# with 1.1, would hardly pay: the services' core refuses at a tenth of what an answer costs. And it would cost where a
# service is asked for just what it can do: it refuses some of a burst, and they would be taken for overload.
_ACCEPTED_TIMES = 2.0
# Short, so that a service that has recovered gets its calls back within seconds.
_WINDOW_S = 5.0
_SLOT_S = 0.5


class Throttle:
    """Counts what became of the calls of one rpc in the last seconds, and says how many to refuse here.

    Of `requests`, those refused here among them, a service accepted `accepts`: all that it did not refuse for
    overload. The next one is refused here with probability max(0, (requests - 2 x accepts) / (requests + 1)). May be
    shared by threads.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, draw: Callable[[], float] = random.random) -> None:
        self._clock, self._draw = clock, draw
        self._lock = Lock()
        # [slot, requests, accepts], oldest first; and their sums.
        self._slots: deque[list[int]] = deque()
        self._requests = self._accepts = 0

    def admits(self) -> bool:
        """Says whether to send a call; one that is not sent is counted here."""
        if self._requests == self._accepts:
            # Nothing was refused: no lock and no clock for what is nearly always so.
            return True
        with self._lock:
            self._forget_old()
            if self._excess() <= 0 or self._draw() >= self._excess() / (self._requests + 1):
                return True
            self._add(0)
            return False

    def admits_another(self) -> bool:
        """Says whether a call that was refused a moment ago may be made again: not while others are refused as well."""
        with self._lock:
            self._forget_old()
            return self._excess() <= 1

    def note(self, accepted: bool) -> None:
        """Counts a call that was sent."""
        with self._lock:
            self._add(int(accepted))

    def _excess(self) -> float:
        return self._requests - _ACCEPTED_TIMES * self._accepts

    def _add(self, accepts: int) -> None:
        slot = int(self._clock() / _SLOT_S)
        if not self._slots or self._slots[-1][0] != slot:
            self._forget_old()
            self._slots.append([slot, 0, 0])
        newest = self._slots[-1]
        newest[1] += 1
        newest[2] += accepts
        self._requests += 1
        self._accepts += accepts

    def _forget_old(self) -> None:
        oldest = int((self._clock() - _WINDOW_S) / _SLOT_S)
        while self._slots and self._slots[0][0] <= oldest:
            _, requests, accepts = self._slots.popleft()
            self._requests, self._accepts = self._requests - requests, self._accepts - accepts
