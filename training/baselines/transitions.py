"""Item transitions beside recency-weighted EASE. E events, N movies, Q queries."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from marquee.features import Floats
from training.baselines.ease import Ease
from training.baselines.interactions import Sparse, history
from training.batches import EventLog
from training.split import Queries

WINDOW = 5
# A movie that was watched once or twice says little about what follows.
_SHRINKAGE = 5.0


class TransitionsEase:
    """Adds what tends to follow the recent events to recency-weighted EASE.

    An event counts half of one that is `half_life` events newer for EASE, and `step_half_life` for the transitions.
    """

    def __init__(
        self, ease: Ease, follows_NN: Sparse, *, half_life: float, step_half_life: float, weight: float
    ) -> None:
        self._ease = ease
        self._follows_NN = follows_NN
        self._half_life = half_life
        self._step_half_life = step_half_life
        self._weight = np.float32(weight)

    def scores(self, queries: Queries) -> Floats:
        """Scores all movies [Q, N]."""
        movies = self._follows_NN.shape[0]
        scores_QN = self._ease.weigh(history(queries, movies, self._half_life))
        followed_QN = history(queries, movies, self._step_half_life) @ self._follows_NN
        scores_QN += self._weight * followed_QN.toarray()
        return scores_QN


def follows(log: EventLog, movies: int) -> Sparse:
    """Counts how often movie j comes within five events after movie i, over the events of i (and 5 more), [N, N]."""
    counts_NN = sparse.csr_array((movies, movies), dtype=np.float32)
    for step in range(1, WINDOW + 1):
        counts_NN += _steps(log, movies, step)
    events_N = np.bincount(log.items, minlength=movies)
    share_N = (1.0 / (events_N + _SHRINKAGE)).astype(np.float32)
    return sparse.csr_array(sparse.diags_array(share_N) @ counts_NN)


def _steps(log: EventLog, movies: int, step: int) -> Sparse:
    same = log.users[step:] == log.users[:-step]
    pairs = (log.items[:-step][same].astype(np.int32), log.items[step:][same].astype(np.int32))
    return sparse.csr_array(sparse.coo_array((np.ones(len(pairs[0]), np.float32), pairs), shape=(movies, movies)))
