"""What is to happen in a moment, by name: asked for again, it waits anew."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable


class Timers:
    """Calls later, on the window's thread; of each name once."""

    def __init__(self, root: tk.Misc) -> None:
        self._root = root
        self._waiting: dict[str, str] = {}

    @property
    def busy(self) -> bool:
        """Says whether anything is to happen."""
        return bool(self._waiting)

    def waits(self, name: str) -> bool:
        """Says whether this is to happen."""
        return name in self._waiting

    def start(self, name: str, milliseconds: int, call: Callable[[], None]) -> None:
        """Lets something happen after some milliseconds, in place of what had this name."""
        self.stop(name)
        self._waiting[name] = self._root.after(milliseconds, lambda: self._ring(name, call))

    def stop(self, name: str) -> None:
        """Lets something not happen."""
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            self._root.after_cancel(waiting)

    def close(self) -> None:
        """Lets nothing happen any more."""
        for name in list(self._waiting):
            self.stop(name)

    def _ring(self, name: str, call: Callable[[], None]) -> None:
        del self._waiting[name]
        call()
