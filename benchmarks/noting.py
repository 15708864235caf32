"""Engines that note what they are asked, so that it can be asked again alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from marquee.bundle.format import Bundle
from marquee.engine.encoder import Encoder
from marquee.engine.engines import Allowed, FaissIndex, Flat
from marquee.features import Floats, Int64s, TowerInput


class NotingEncoder(Encoder):
    """Notes the inputs of its runs."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.noted: list[dict[str, Any]] = []

    def run_whole(self, tower: TowerInput) -> Floats:
        """Runs the tower, and notes a copy of what it was given."""
        self.noted.append({name: column.copy() for name, column in self.feeds(tower).items()})
        return super().run_whole(tower)


class NotingFlat(Flat):
    """Notes its searches as calls that do them again."""

    def __init__(self, index: FaissIndex) -> None:
        super().__init__(index)
        self.noted: list[Callable[[], Int64s]] = []

    def propose(self, query_D: Floats, wanted: int, allowed: Allowed | None, *, fast: bool) -> Int64s:
        """Lists rows by FAISS's scan."""
        again = partial(super().propose, query_D, wanted, allowed, fast=fast)
        self.noted.append(again)
        return again()
