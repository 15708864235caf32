"""A breaker: spares what does not answer, so that callers do not each wait for it."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)

# Failures in a row that open it: fewer may be a hiccup of the network or of this process.
_OPENS_AFTER = 5
# Seconds between two tries while it is open.
_PAUSE_S = 0.5


class Breaker:
    """Lets reads through until several in a row have failed; then one every half a second, until one succeeds.

    `name` is of what is read, `meanwhile` what is done until it can be. `now` is the monotonic clock, in seconds.
    """

    def __init__(self, name: str, meanwhile: str) -> None:
        self._name = name
        self._meanwhile = meanwhile
        self._failures = 0
        self._next_try = 0.0
        self.last_error = ""

    @property
    def reachable(self) -> bool:
        """Says that the last read succeeded, or none was tried yet."""
        return self._failures == 0

    def lets_through(self, now: float) -> bool:
        """Says whether to read; while it is open, the one who is told so is the probe."""
        if self._failures < _OPENS_AFTER:
            return True
        if now < self._next_try:
            return False
        self._next_try = now + _PAUSE_S
        return True

    def succeeded(self) -> None:
        """Notes a read that succeeded: closes it."""
        if self._failures >= _OPENS_AFTER:
            _log.info("%s can be read again", self._name)
        self._failures = 0

    def failed(self, message: str, now: float) -> None:
        """Notes a read that failed, and what was said of it."""
        self._failures += 1
        self.last_error = message
        if self._failures == _OPENS_AFTER:
            self._next_try = now + _PAUSE_S
            _log.error(
                "%s; %d reads in a row have failed: until one succeeds, %s", message, _OPENS_AFTER, self._meanwhile
            )
