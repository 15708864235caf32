"""The linear model that towers learn from: EASE, to which every stretch of a history is somebody who watched it.

What was watched one after another belongs together more than what the same person watched years apart. EASE knows only
whole histories; here each stretch of `_STRETCH` events counts beside them, and the model still is one closed form.

E events, U people, N movies, M of them known, Q queries.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from marquee.features import Floats, Int64s
from training.baselines.ease import LARGEST_SIDE, gram_of, invert
from training.baselines.interactions import Sparse, watched
from training.batches import EventLog

# A movie of fewer people has nothing to tell, and the matrix is as wide as there are movies.
_LEAST_PEOPLE = 3
# Chosen, as the penalty, on people who are not asked for in any test: see decision 34.
_STRETCH = 20
_STRETCH_WEIGHT = 2.0
_PENALTY = 250.0


class Teacher:
    """Is EASE of the Gram matrix X'X + w / s Σ z z', z every stretch of s consecutive events, w its weight.

    Two movies in one history thus weigh 1, and by w more the nearer to each other they were watched: w (1 - d / s) at a
    distance of d events. Source of the closed form: Steck, "Embarrassingly shallow autoencoders for sparse data" (WWW
    2019); the stretches are our own.
    """

    def __init__(self, log: EventLog, movies: int) -> None:
        watched_UN = watched(log, movies)
        self._movies = movies
        self._known_M = _known(watched_UN)
        gram_MM = gram_of(watched_UN[:, self._known_M].T.tocsr())
        _add_stretches(gram_MM, log, self._known_M, movies)
        self._inverse = invert(gram_MM, _PENALTY)
        self._diagonal_M: Floats = np.diag(self._inverse).copy()

    def weigh(self, history_QN: Sparse) -> Floats:
        """Scores all movies [Q, N], those not known 0, for histories given as sparse weights.

        What was seen is not to be read.
        """
        scores_QN = np.zeros((history_QN.shape[0], self._movies), np.float32)
        scores_QN[:, self._known_M] = history_QN[:, self._known_M] @ self._inverse / -self._diagonal_M
        return scores_QN


def _known(watched_UN: Sparse) -> Int64s:
    """Lists the movies that enough people watched, the most watched where the matrix would be too large, [M]."""
    people_N = np.asarray(watched_UN.sum(axis=0)).ravel()
    most_N = np.argsort(-people_N, kind="stable")[:LARGEST_SIDE]
    return np.sort(most_N[people_N[most_N] >= _LEAST_PEOPLE]).astype(np.int64)


def _add_stretches(gram_MM: Floats, log: EventLog, known_M: Int64s, movies: int) -> None:
    number_N = np.full(movies, -1, np.int64)
    number_N[known_M] = np.arange(len(known_M))
    numbers_E = number_N[log.items]
    for distance in range(min(_STRETCH, log.size)):
        earlier, later = numbers_E[: log.size - distance], numbers_E[distance:]
        both = (log.users[: log.size - distance] == log.users[distance:]) & (earlier >= 0) & (later >= 0)
        ones = np.full(np.count_nonzero(both), _STRETCH_WEIGHT * (1.0 - distance / _STRETCH), np.float32)
        pairs = sparse.coo_array((ones, (earlier[both], later[both])), shape=gram_MM.shape)
        # Of a distance of 0 there is each pair once; of others both ways.
        pairs = (pairs if distance == 0 else pairs + pairs.T).tocoo()
        pairs.sum_duplicates()
        gram_MM[pairs.row, pairs.col] += pairs.data
