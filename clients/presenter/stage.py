"""An event loop in a thread, for a program whose own thread belongs to a window."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

R = TypeVar("R")

_STOP_S = 5.0


class Stage:
    """Runs coroutines on a loop of its own; leaving the block cancels those that still run.

    A future's callbacks run on the stage's thread: a window takes results over through its own queue.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="presenter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, coroutine: Coroutine[Any, Any, R]) -> Future[R]:
        """Starts a coroutine; cancelling the future cancels it. Raises RuntimeError after close."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            # The loop is closed; nobody will ever await this.
            coroutine.close()
            raise

    def close(self) -> None:
        """Cancels what runs, waits until that has ended, and ends the thread; again is no error."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(_STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_STOP_S)
