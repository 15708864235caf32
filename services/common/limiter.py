"""How many calls run at the same time: interactive and batch ones apart, a bounded queue each, the rest refused.

Most handlers never wait: they run on the event loop from end to end, one at a time, and what has not begun waits in
gRPC's core. There it is the core that turns calls away (`waiting_calls` in `server_options`), at a tenth of what an
answer costs. The limiter is for those that do wait, for a store or in turns: they would otherwise pile up here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from marquee.errors import Overloaded
from services.common.deadlines import time_left
from services.common.interceptors import Call, Context
from services.common.settings import CommonSettings

INTERACTIVE, BATCH = "interactive", "batch"
# When to come back, in seconds: about as long as some calls of the class take.
_RETRY_AFTER_S = {INTERACTIVE: 0.1, BATCH: 1.0}
_BATCH_PREFIXES = ("Batch", "Export")


def class_of(method: str) -> str:
    """Says which class a method is of, by its path: what works through a list without anybody watching is a batch."""
    name = method.rpartition("/")[2]
    return BATCH if name.startswith(_BATCH_PREFIXES) else INTERACTIVE


class Lane:
    """Lets so many calls of a class run at the same time, and so many wait for that in order.

    `refused` and `given_up` count calls that found the queue full, and those whose callers did not wait long enough.
    """

    def __init__(self, name: str, most_running: int, most_waiting: int) -> None:
        self.name = name
        self.running = self.refused = self.given_up = 0
        self._most_running, self._most_waiting = most_running, most_waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._queue)

    def enter(self) -> bool:
        """Takes a place, if one is free now and nobody waits for it."""
        if self.running >= self._most_running:
            return False
        self.running += 1
        return True

    async def wait(self) -> None:
        """Waits for a place and takes it; raises Overloaded where too many wait already."""
        if len(self._queue) >= self._most_waiting:
            self.refused += 1
            raise Overloaded(
                f"{self.running} {self.name} calls run here and {len(self._queue)} wait; send the call again in "
                f"{_RETRY_AFTER_S[self.name]:g} s, or add replicas",
                metadata={"class": self.name},
                retry_after_s=_RETRY_AFTER_S[self.name],
            )
        place = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            self.given_up += 1
            if not place.cancelled():
                # The place was given to a caller that had gone at the same moment.
                self.leave()
            elif place in self._queue:
                self._queue.remove(place)
            raise

    def leave(self) -> None:
        """Gives the place to who has waited longest, or back."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1


class Limiter:
    """Is the stage with a lane for each class."""

    def __init__(self, settings: CommonSettings) -> None:
        most = {INTERACTIVE: settings.interactive_calls, BATCH: settings.batch_calls}
        self.lanes = {name: Lane(name, running, settings.waiting_calls) for name, running in most.items()}

    def __call__(self, method: str, call: Call) -> Call:
        """Puts the lane of its class before a method."""
        lane = self.lanes[class_of(method)]

        async def limited(request: Any, context: Context) -> Any:
            waited = not lane.enter()
            if waited:
                await lane.wait()
            try:
                if waited:
                    time_left()
                return await call(request, context)
            finally:
                lane.leave()

        return limited
