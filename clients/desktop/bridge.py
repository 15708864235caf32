"""Between the window's thread and the stage's: questions go over, answers come back through Tk's own event queue."""

from __future__ import annotations

import queue
import tkinter as tk
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from clients.presenter import Stage

R = TypeVar("R")

# How often answers are looked for while one is awaited; Tk may not be called from another thread.
_LOOK_MS = 5


class _Answer(NamedTuple):
    slot: str
    future: Future[Any]
    then: Callable[[Any], None]


class Bridge:
    """Asks on a stage and hands answers to the window; of each slot only the newest question is answered.

    All methods are called on the window's thread, and so is every `then`.
    """

    def __init__(self, root: tk.Misc, stage: Stage) -> None:
        self._root = root
        self._stage = stage
        self._newest: dict[str, Future[Any]] = {}
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._looking = ""
        self._closed = False

    def ask(self, slot: str, question: Coroutine[Any, Any, R], then: Callable[[R], None]) -> None:
        """Asks, and drops what was asked in this slot before."""
        if self._closed:
            question.close()
            return
        self.drop(slot)
        future = self._stage.run(question)
        self._newest[slot] = future
        future.add_done_callback(lambda done: self._answers.put(_Answer(slot, done, then)))
        if not self._looking:
            self._looking = self._root.after(_LOOK_MS, self._look)

    def drop(self, slot: str) -> None:
        """Drops what is asked in a slot: its answer does not come any more."""
        asked = self._newest.pop(slot, None)
        if asked is not None:
            asked.cancel()

    def awaits(self, slot: str) -> bool:
        """Says whether a slot awaits an answer."""
        return slot in self._newest

    @property
    def busy(self) -> bool:
        """Says whether any answer is awaited."""
        return bool(self._newest)

    def close(self) -> None:
        """Drops everything; nothing comes back from here on."""
        self._closed = True
        for slot in list(self._newest):
            self.drop(slot)
        if self._looking:
            self._root.after_cancel(self._looking)

    def _look(self) -> None:
        # First: a `then` that fails must not end the looking.
        self._looking = self._root.after(_LOOK_MS, self._look)
        while not self._closed:
            try:
                answer = self._answers.get_nowait()
            except queue.Empty:
                break
            if self._newest.get(answer.slot) is answer.future:
                del self._newest[answer.slot]
                answer.then(answer.future.result())
        if not self._newest and not self._closed:
            self._root.after_cancel(self._looking)
            self._looking = ""
