"""What was measured at some sizes, read at others."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple


class Curve(NamedTuple):
    """Holds a figure at ascending sizes: straight lines between them, before the first as there.

    Beyond the last size the last line goes on where it rises, as nothing costs less for being larger. That is an
    extrapolation, and has to be said.
    """

    sizes: Sequence[float]
    values: Sequence[float]

    def at(self, size: float) -> float:
        """Reads the figure at a size."""
        if size <= self.sizes[0] or len(self.sizes) == 1:
            return self.values[0]
        right = min(bisect_left(self.sizes, size), len(self.sizes) - 1)
        (x1, x2), (y1, y2) = self.sizes[right - 1 : right + 1], self.values[right - 1 : right + 1]
        value = y1 + (y2 - y1) * (size - x1) / (x2 - x1)
        return value if self.reaches(size) else max(y2, value)

    def reaches(self, size: float) -> bool:
        """Says whether something as large was measured."""
        return size <= self.sizes[-1]
