"""Picks a list one by one: for variety (maximal marginal relevance) and under caps per genre and director.

P candidates of one round, n picked, D dimension, N movies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from marquee.engine.groups import Groups
from marquee.engine.index import Hits, Mask
from marquee.features import Floats, Int64s

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
        self._round = groups.of_each(np.zeros(0, np.int64))

    def begin(self, rows_P: Int64s) -> None:
        """Begins a round of candidates."""
        self._round = self._groups.of_each(rows_P)

    def count(self, at: int) -> list[Int64s]:
        """Counts a candidate that was picked; lists for each group that is full now its candidates."""
        full = [group for group in self._round.of(at) if self._fills(group)]
        self._shut += full
        return [self._round.having(group) for group in full]

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
        self._vectors: list[Floats] = []

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
        relevance_P = (1.0 - self._diversity) * np.rint(pool.scores.astype(np.float64) * _MILLIONTHS)
        variety = _Variety(self._diversity, vectors_PD, self._vectors) if self._diversity else None
        while len(self) < k and len(relevance_P):
            value_P = relevance_P if variety is None else relevance_P - variety.penalty_P
            at = int(value_P.argmax())
            if relevance_P[at] == _OUT:
                return
            self._ids.append(int(pool.movie_ids[at]))
            self._scores.append(float(pool.scores[at]))
            self._vectors.append(vectors_PD[at])
            relevance_P[at] = _OUT
            for cap in self._caps:
                for shut in cap.count(at):
                    relevance_P[shut] = _OUT
            if variety is not None:
                variety.add(vectors_PD[at])


class _Variety:
    """Keeps what each candidate loses by its nearness to what is picked."""

    def __init__(self, diversity: float, vectors_PD: Floats, picked: Sequence[Floats]) -> None:
        self._diversity = diversity
        # In float64 rounding to a millionth comes out the same in every order of adding up.
        self._millionths_PD = vectors_PD.astype(np.float64) * _MILLIONTHS
        # No cosine is lower: before the first pick nothing is nearer to it than anything else.
        self.penalty_P = np.full(len(vectors_PD), -diversity * _MILLIONTHS)
        for vector_D in picked:
            self.add(vector_D)

    def add(self, vector_D: Floats) -> None:
        """Adds a vector that was picked."""
        cosines_P = self._millionths_PD @ vector_D.astype(np.float64)
        np.rint(cosines_P, out=cosines_P)
        cosines_P *= self._diversity
        np.maximum(self.penalty_P, cosines_P, out=self.penalty_P)
