"""Picks a list one by one: for variety (maximal marginal relevance) and under caps per genre and director.

P candidates of one round, n picked, D dimension, N movies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from marquee.engine.index import Hits, Mask
from marquee.features import Floats, Int64s
from services.retriever.groups import Groups, Memberships

# Cosines are compared as whole millionths, as scores are rounded: then equal is equal, and the order decides.
_MILLIONTHS = 1e6
_OUT = -np.inf


class Cap:
    """Counts how many were picked of each group, and shuts a group that has `most`."""

    def __init__(self, groups: Groups, most: int) -> None:
        self._groups = groups
        self._most = most
        self._picked: Counter[int] = Counter()
        self._shut: list[int] = []
        self._round = Memberships(np.zeros(0, np.int64), np.zeros(0, np.int32))

    def begin(self, rows_P: Int64s) -> None:
        """Begins a round of candidates."""
        self._round = self._groups.of_each(rows_P)

    def count(self, at: int) -> list[Int64s]:
        """Counts a candidate that was picked; lists for each group that is full now its candidates."""
        owners, groups = self._round
        full = [group for group in groups[owners == at].tolist() if self._fills(group)]
        self._shut += full
        return [owners[groups == group] for group in full]

    def _fills(self, group: int) -> bool:
        self._picked[group] += 1
        return self._picked[group] == self._most

    def shut_out(self, mask_N: Mask) -> None:
        """Takes the movies of groups that have become full out of a mask."""
        while self._shut:
            mask_N[self._groups.rows_of(self._shut.pop())] = False


class Picks:
    """Picks movies from rounds of candidates, each the best of (1 - diversity) x score - diversity x nearness.

    Nearness is the highest cosine to what is picked: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998).
    What is equally good is picked by score, then id. Without diversity that is the order of scores.
    """

    def __init__(self, diversity: float, caps: Sequence[Cap]) -> None:
        self._diversity = diversity
        self._caps = caps
        self._ids: list[int] = []
        self._scores: list[float] = []
        self._vectors: list[npt.NDArray[np.float64]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def hits(self) -> Hits:
        """Lists what was picked: in the order of picking, without diversity by score and id."""
        ids, scores = np.array(self._ids, np.int64), np.array(self._scores, np.float32)
        if self._diversity:
            return Hits(ids, scores)
        # A later round of an approximate index may find what the earlier ones had missed.
        order = np.lexsort((ids, -scores))
        return Hits(ids[order], scores[order])

    def pick(self, pool: Hits, rows_P: Int64s, vectors_PD: Floats, k: int) -> None:
        """Picks from a pool, sorted by score and id, until there are k or nothing is left that may be picked."""
        for cap in self._caps:
            cap.begin(rows_P)
        wide_PD = vectors_PD.astype(np.float64)
        relevance_P = (1.0 - self._diversity) * np.rint(pool.scores.astype(np.float64) * _MILLIONTHS)
        nearness_P = self._nearness_to_picked(wide_PD)
        while len(self) < k and len(relevance_P):
            at = int((relevance_P - self._diversity * nearness_P).argmax())
            if relevance_P[at] == _OUT:
                return
            self._ids.append(int(pool.movie_ids[at]))
            self._scores.append(float(pool.scores[at]))
            relevance_P[at] = _OUT
            for cap in self._caps:
                for shut in cap.count(at):
                    relevance_P[shut] = _OUT
            if self._diversity:
                self._vectors.append(wide_PD[at])
                np.maximum(nearness_P, np.rint((wide_PD @ wide_PD[at]) * _MILLIONTHS), out=nearness_P)

    def _nearness_to_picked(self, wide_PD: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # No cosine is lower: before the first pick nothing is nearer than anything else.
        nearness_P = np.full(len(wide_PD), -_MILLIONTHS)
        for vector_D in self._vectors:
            np.maximum(nearness_P, np.rint((wide_PD @ vector_D) * _MILLIONTHS), out=nearness_P)
        return nearness_P
