"""Item-kNN by cosine. U people, N movies, C movies of a chunk, K neighbours, Q queries."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from marquee.features import Floats, Int64s
from training.baselines.interactions import Sparse, history
from training.split import Queries

# Pairs of events of the same person: multiplying so many out takes about a minute.
LARGEST_WORK = 5e9
_CHUNK = 512


class Neighbours:
    """Scores a movie by its similarity to those of the history that are among its `count` nearest neighbours."""

    def __init__(self, nearest: Nearest, count: int) -> None:
        self._near_NN = nearest.matrix(count)

    def scores(self, queries: Queries) -> Floats:
        """Scores all movies [Q, N]."""
        scores_QN: Floats = (history(queries, self._near_NN.shape[0]) @ self._near_NN).toarray()
        return scores_QN


class Nearest:
    """Finds each movie's nearest neighbours, nearest first.

    The similarity is the cosine of who watched what, with a shrinkage that mistrusts movies few people have:
    |people of both| / (√|people of one| √|people of the other| + shrinkage).
    """

    def __init__(self, watched_UN: Sparse, shrinkage: float, most: int) -> None:
        movies = watched_UN.shape[1]
        most = min(most, movies)
        self._items_NK = np.zeros((movies, most), np.int32)
        self._similar_NK = np.zeros((movies, most), np.float32)
        by_movie = watched_UN.T.tocsr()
        norms_N = np.sqrt(np.asarray(watched_UN.sum(axis=0), np.float32))
        for start in range(0, movies, _CHUNK):
            of = slice(start, start + _CHUNK)
            similar_CN = (by_movie[of] @ watched_UN).toarray()
            similar_CN /= np.maximum(norms_N[of, None] * norms_N + np.float32(shrinkage), 1e-6)
            rows = np.arange(len(similar_CN))
            similar_CN[rows, start + rows] = 0.0
            self._items_NK[of], self._similar_NK[of] = _largest(similar_CN, most)

    def matrix(self, count: int) -> Sparse:
        """Returns similarities [N, N], of which each column keeps the `count` largest."""
        movies = len(self._items_NK)
        items_NK, similar_NK = self._items_NK[:, :count], self._similar_NK[:, :count]
        columns = np.repeat(np.arange(movies, dtype=np.int32), items_NK.shape[1])
        matrix = sparse.coo_array((similar_NK.ravel(), (items_NK.ravel(), columns)), shape=(movies, movies))
        matrix.eliminate_zeros()
        return sparse.csr_array(matrix)


def _largest(values_CN: Floats, count: int) -> tuple[Int64s, Floats]:
    near_CK = np.argpartition(-values_CN, count - 1, axis=1)[:, :count]
    near_values_CK = np.take_along_axis(values_CN, near_CK, axis=1)
    order_CK = np.argsort(-near_values_CK, axis=1, kind="stable")
    return np.take_along_axis(near_CK, order_CK, axis=1), np.take_along_axis(near_values_CK, order_CK, axis=1)
