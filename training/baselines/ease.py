"""EASE, on the plain history and on one weighted by recency. U people, N movies, Q queries, C movies of a chunk."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from marquee.errors import ConfigError
from marquee.features import Floats
from training.baselines.interactions import Sparse, history
from training.split import Queries

# The smaller side of the data must not pass this: one square matrix of it, in float32, takes 600 MB.
LARGEST_SIDE = 12_000
_CHUNK = 1024


class Ease:
    """Is the closed-form linear item-to-item model EASE: B = I - P diag(1 / diag P), P = (X'X + λI)^-1.

    P comes from the smaller of the two Gram matrices (Woodbury: P = (I - X'(XX' + λI)^-1 X) / λ), so that 600 people
    and 60,000 movies take a 600 x 600 inverse, and no matrix of people times movies is ever filled in.
    Source: Steck, "Embarrassingly shallow autoencoders for sparse data" (WWW 2019).
    """

    def __init__(self, watched_UN: Sparse, penalty: float) -> None:
        people, movies = watched_UN.shape
        self._penalty = np.float32(penalty)
        self._by_movie = movies <= people
        self._watched_UN = watched_UN
        self._inverse = invert(gram_of(watched_UN.T.tocsr() if self._by_movie else watched_UN), penalty)
        self._diagonal_N: Floats = np.diag(self._inverse).copy() if self._by_movie else self._diagonal_by_people()

    def _diagonal_by_people(self) -> Floats:
        taken_N = np.zeros(self._watched_UN.shape[1], np.float32)
        columns = self._watched_UN.tocsc()
        for start in range(0, len(taken_N), _CHUNK):
            part_UC = columns[:, start : start + _CHUNK]
            taken_N[start : start + _CHUNK] = part_UC.multiply(self._inverse @ part_UC.toarray()).sum(axis=0)
        result: Floats = ((1.0 - taken_N) / self._penalty).astype(np.float32)
        return result

    def weigh(self, history_QN: Sparse) -> Floats:
        """Scores all movies [Q, N] for histories given as sparse weights; what was seen is not to be read."""
        if self._by_movie:
            projected_QN = history_QN @ self._inverse
        else:
            known_QU = (history_QN @ self._watched_UN.T).toarray() @ self._inverse
            # The history itself, λ times P's other part, stands only where it is not to be read.
            projected_QN = (self._watched_UN.T @ known_QU.T).T / -self._penalty
        result: Floats = projected_QN / -self._diagonal_N
        return result

    def scores(self, queries: Queries) -> Floats:
        """Scores all movies [Q, N], every movie of the history counting 1."""
        return self.weigh(history(queries, self._watched_UN.shape[1]))


class RecencyEase:
    """Is EASE on a history in which an event counts half of one that is `half_life` events newer."""

    def __init__(self, ease: Ease, movies: int, half_life: float) -> None:
        self._ease = ease
        self._movies = movies
        self._half_life = half_life

    def scores(self, queries: Queries) -> Floats:
        """Scores all movies [Q, N]."""
        return self._ease.weigh(history(queries, self._movies, self._half_life))


def gram_of(rows: Sparse) -> Floats:
    """Multiplies rows by rows', column by column in memory and part by part: no sparse product is ever whole."""
    side = rows.shape[0]
    gram = np.empty((side, side), np.float32, order="F")
    for start in range(0, side, _CHUNK):
        gram[:, start : start + _CHUNK] = (rows @ rows[start : start + _CHUNK].T).toarray()
    return gram


def invert(gram: Floats, penalty: float) -> Floats:
    """Inverts a Gram matrix plus the penalty by Cholesky, in place where it lies column by column."""
    side = len(gram)
    if side == 0:
        return gram
    gram[np.diag_indices(side)] += np.float32(penalty)
    upper, failed = linalg.lapack.spotrf(gram, lower=False, overwrite_a=True)
    if not failed:
        upper, failed = linalg.lapack.spotri(upper, lower=False, overwrite_c=True)
    if failed:
        raise ConfigError(f"EASE's matrix cannot be inverted with a penalty of {penalty:g}; raise the penalty")
    for row in range(1, side):
        upper[row, :row] = upper[:row, row]
    # Equal to itself transposed, and row by row in memory, as sparse products want it.
    inverse: Floats = upper.T
    return inverse
