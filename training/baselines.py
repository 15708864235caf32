"""What a two-tower has to beat: popularity and EASE. U people, N movies, Q queries."""

from __future__ import annotations

import numpy as np

from marquee.features import Floats, Int64s


class Popularity:
    """Recommends what most people have watched."""

    def __init__(self, counts_N: Int64s) -> None:
        self._counts_N = counts_N.astype(np.float32)

    def scores(self, seen_QN: Floats) -> Floats:
        """Scores all movies [Q, N], the same for everyone."""
        return np.broadcast_to(self._counts_N, seen_QN.shape)


class Ease:
    """Is the closed-form linear item-to-item model EASE: B = I - P diag(1 / diag P), P = (X'X + λI)^-1.

    P comes from the smaller of the two Gram matrices (Woodbury), so that 600 people and
    60,000 movies take a 600 x 600 solve.
    Source: Steck, "Embarrassingly shallow autoencoders for sparse data" (WWW 2019).
    """

    def __init__(self, watched_UN: Floats, penalty: float) -> None:
        people, movies = watched_UN.shape
        self._penalty = np.float32(penalty)
        self._watched_UN = watched_UN
        self._inverse_NN: Floats | None = None
        if movies <= people:
            gram_NN = watched_UN.T @ watched_UN + self._penalty * np.eye(movies, dtype=np.float32)
            self._inverse_NN = np.linalg.inv(gram_NN).astype(np.float32)
            self._diagonal_N = np.diag(self._inverse_NN).copy()
        else:
            gram_UU = watched_UN @ watched_UN.T + self._penalty * np.eye(people, dtype=np.float32)
            self._solved_UN = np.linalg.solve(gram_UU, watched_UN).astype(np.float32)
            self._diagonal_N = (1.0 - np.sum(watched_UN * self._solved_UN, axis=0)) / self._penalty

    def scores(self, seen_QN: Floats) -> Floats:
        """Scores all movies [Q, N] for histories given as rows of 0, 1 or weights; what was seen is not to be read."""
        if self._inverse_NN is not None:
            projected_QN = seen_QN @ self._inverse_NN
        else:
            projected_QN = (seen_QN - (seen_QN @ self._watched_UN.T) @ self._solved_UN) / self._penalty
        result: Floats = -projected_QN / self._diagonal_N
        return result
