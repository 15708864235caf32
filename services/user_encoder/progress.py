"""How far a command is: a bar on the terminal."""

from __future__ import annotations

import time
from typing import TextIO

_CELLS = 24
_REDRAW_S = 0.1


class Bar:
    """Draws how far a command is, at most ten times a second; draws nothing where `stream` is no terminal."""

    def __init__(self, unit: str, stream: TextIO) -> None:
        self._unit = unit
        self._stream = stream
        self._draws = stream.isatty()
        self._started = time.monotonic()
        self._drawn_at = 0.0
        self._width = 0

    def show(self, part: float, count: int) -> None:
        """Shows the part that is done, 0 to 1, and how many of the unit this run has done."""
        now = time.monotonic()
        if self._draws and now - self._drawn_at >= _REDRAW_S:
            self._drawn_at = now
            self._draw(bar_line(part, count, self._unit, now - self._started))

    def close(self) -> None:
        """Removes the bar."""
        if self._width:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()

    def _draw(self, line: str) -> None:
        self._stream.write(f"\r{line.ljust(self._width)}")
        self._stream.flush()
        self._width = len(line)


def bar_line(part: float, count: int, unit: str, seconds: float) -> str:
    """Writes a bar: `[####----]  50 %  1,000 rows, 500/s`."""
    full = min(_CELLS, int(part * _CELLS))
    rate = count / max(seconds, 1e-9)
    return f"[{'#' * full}{'-' * (_CELLS - full)}] {min(part, 1):4.0%}  {count:,} {unit}, {rate:,.0f}/s"
