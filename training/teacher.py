"""The linear model that towers learn from: EASE, to which every stretch of a history is somebody who watched it.

What was watched one after another belongs together more than what the same person watched years apart. EASE knows only
whole histories; here each stretch of `_STRETCH` events counts beside them, and the model still is one closed form.

E events, U people, N movies, M of them known, Q queries, R rank.
"""

from __future__ import annotations

from typing import NamedTuple

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
# Directions beyond the rank that are looked at, and how often: the last of the rank then hardly move any more.
_MORE, _ROUNDS = 10, 6


class LowRank(NamedTuple):
    """Is a linear model of rank R: `rows_MR @ mix_RR @ rows_MR.T` has the score of movie j for i at [i, j].

    `movies_M` are the movies that it knows.
    """

    movies_M: Int64s
    rows_MR: Floats
    mix_RR: Floats


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
        self._watched_UM: Sparse = watched_UN[:, self._known_M].tocsr()
        gram_MM = gram_of(self._watched_UM.T.tocsr())
        _add_stretches(gram_MM, log, self._known_M, movies)
        self._inverse = invert(gram_MM, _PENALTY)
        self._diagonal_M: Floats = np.diag(self._inverse).copy()

    @property
    def knows(self) -> int:
        """Counts the movies that it knows."""
        return len(self._known_M)

    def weigh(self, history_QN: Sparse) -> Floats:
        """Scores all movies [Q, N], those not known 0, for histories given as sparse weights.

        What was seen is not to be read.
        """
        scores_QN = np.zeros((history_QN.shape[0], self._movies), np.float32)
        scores_QN[:, self._known_M] = history_QN[:, self._known_M] @ self._inverse / -self._diagonal_M
        return scores_QN

    def low_rank(self, rank: int, seed: int) -> LowRank:
        """Cuts the model to a rank, where it says most to people: one row a movie, for histories and for lists.

        Reduced-rank regression: of all models of this rank, the one whose answers are nearest to the whole one's, for
        people, each history counting alike, and as much for histories of one movie, so that rare movies count. That has
        a row for movies that were watched and another for movies that are scored; here they span one space of the rank.
        Source: Izenman, "Reduced-rank regression for the multivariate linear model" (1975).
        """
        rank = min(rank, len(self._known_M))
        people = _Histories(self._watched_UM)
        drawn_MX = np.random.default_rng(seed).standard_normal((len(self._known_M), rank + _MORE), np.float32)
        answers_MX = self._answers(drawn_MX)
        people.balance(answers_MX)
        for _ in range(_ROUNDS):
            basis_MX = np.linalg.qr(self._asked(people.weigh(answers_MX)))[0]
            answers_MX = self._answers(basis_MX)
        scored_MR = basis_MX @ _leading(answers_MX.T @ people.weigh(answers_MX), rank)
        both_MX = np.hstack([_even(self._answers(scored_MR)), _even(scored_MR)])
        rows_MR = np.linalg.qr(both_MX @ _leading(both_MX.T @ both_MX, rank))[0]
        weighed_MR = people.weigh(rows_MR)
        mix_RR = np.linalg.lstsq(rows_MR.T @ weighed_MR, weighed_MR.T @ self._answers(rows_MR), rcond=None)[0]
        return LowRank(self._known_M, rows_MR, mix_RR.astype(np.float32))

    def _answers(self, right_MX: Floats) -> Floats:
        """Multiplies the model by columns: what it says of each movie watched alone, projected."""
        answers: Floats = right_MX - self._inverse @ (right_MX / self._diagonal_M[:, None])
        return answers

    def _asked(self, right_MX: Floats) -> Floats:
        """Multiplies the transposed model by columns."""
        asked: Floats = right_MX - (self._inverse @ right_MX) / self._diagonal_M[:, None]
        return asked


class _Histories:
    """Weighs columns as X' X does, X being people's histories, each of weight 1, and every movie alone."""

    def __init__(self, watched_UM: Sparse) -> None:
        counts_U = np.asarray(watched_UM.sum(axis=1), np.float32).ravel()
        self._shares_UM: Sparse = (sparse.diags_array(1.0 / np.maximum(counts_U, 1.0)) @ watched_UM).tocsr()
        self._alone = np.float32(0.0)

    def balance(self, answers_MX: Floats) -> None:
        """Lets movies alone weigh as much as people, by what some random columns come to."""
        people, alone = ((part.astype(np.float64) ** 2).sum() for part in (self._shares_UM @ answers_MX, answers_MX))
        self._alone = np.float32(people / alone if alone else 0.0)

    def weigh(self, columns_MX: Floats) -> Floats:
        """Multiplies by X' X."""
        weighed: Floats = self._shares_UM.T @ (self._shares_UM @ columns_MX) + self._alone * columns_MX
        return weighed


def _leading(symmetric_XX: Floats, rank: int) -> Floats:
    """Lists the eigenvectors of the largest eigenvalues, [X, R]."""
    vectors: Floats = np.linalg.eigh(symmetric_XX.astype(np.float64))[1][:, ::-1][:, :rank].astype(np.float32)
    return vectors


def _even(columns_MX: Floats) -> Floats:
    even: Floats = columns_MX / np.float32(max(float(np.linalg.norm(columns_MX)), 1e-12))
    return even


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
