"""Recommends the same to everybody. Q queries, N movies."""

from __future__ import annotations

import numpy as np

from marquee.features import Floats
from training.baselines.interactions import Sparse
from training.split import Queries


class Popularity:
    """Recommends what most people have watched."""

    def __init__(self, watched_UN: Sparse) -> None:
        self._people_N = np.asarray(watched_UN.sum(axis=0), np.float32)

    def scores(self, queries: Queries) -> Floats:
        """Scores all movies [Q, N], the same for everyone."""
        return np.broadcast_to(self._people_N, (queries.size, len(self._people_N)))
