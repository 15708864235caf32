"""What passes between those who recommend and those who write: what is wanted, and the lists that came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from marquee.features import Floats, Int64s
from marquee.v1 import types_pb2


class Origin(NamedTuple):
    """Says what lists are made with: the bundle, and the space that it is of."""

    bundle_id: str
    space: str


class Wanted(NamedTuple):
    """Says what lists are to be like; `as_of_ms` is the moment that ages are measured from, UTC milliseconds."""

    k: int
    filter: types_pb2.MovieFilter
    exclude_seen: bool
    as_of_ms: int


class Lists(NamedTuple):
    """Holds people's lists, one after the other, each best first: person i's has `counts_B[i]` movies."""

    user_ids: list[str]
    counts_B: Int64s
    movie_ids_n: Int64s
    scores_n: Floats


def join(parts: Sequence[Lists]) -> Lists:
    """Puts lists of several one after the other."""
    if not parts:
        return Lists([], np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    user_ids, counts, movie_ids, scores = zip(*parts, strict=True)
    together = [user_id for part in user_ids for user_id in part]
    return Lists(together, *(np.concatenate(column) for column in (counts, movie_ids, scores)))


class Recommending(Protocol):
    """Recommends for many people, by whatever way."""

    def origin(self, bundle_id: str) -> Origin:
        """Finds a bundle to make lists with, "" being the active one; raises MarqueeError where it is not there."""
        ...

    def people(self) -> list[str]:
        """Lists everybody there are events of, each once, always in the same order."""
        ...

    def source(self) -> str:
        """Says whose events these are, so that a run is not gone on with over others."""
        ...

    def recommend(self, user_ids: Sequence[str], wanted: Wanted, origin: Origin, done: Callable[[int], None]) -> Lists:
        """Makes people's lists, in their order, without those of whom no event is left; `done` counts people."""
        ...
