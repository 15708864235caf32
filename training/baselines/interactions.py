"""Events as sparse matrices. E events, U people, N movies, Q queries."""

from __future__ import annotations

import math
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from marquee.features import Floats
from training.batches import EventLog, Ints
from training.split import Queries

Sparse: TypeAlias = sparse.csr_array


class Scorer(Protocol):
    """Scores all movies for queries, from their histories alone."""

    def scores(self, queries: Queries) -> Floats:
        """Scores [Q, N]; what stands in the history is not to be read."""


def watched(log: EventLog, movies: int) -> Sparse:
    """Marks who watched what, [U, N], as 0 and 1; people without events are left out."""
    people, rows = np.unique(log.users, return_inverse=True)
    return _ones(rows, log.items, (len(people), movies))


def history(queries: Queries, movies: int, half_life: float = math.inf) -> Sparse:
    """Weighs each history's movies by 2 to the minus r / half-life, r the rank of the latest event from the newest.

    Returns [Q, N]; an infinite half-life weighs all by 1.
    """
    rows, positions = queries.history_positions()
    ranks = queries.ends[rows] - 1 - positions
    pairs = rows * movies + queries.log.items[positions]
    # The first of equal pairs, counted from the newest, is the latest event.
    pairs, latest = np.unique(pairs[::-1], return_index=True)
    weights = np.exp2(-ranks[::-1][latest] / half_life).astype(np.float32)
    return _matrix(weights, pairs // movies, pairs % movies, (queries.size, movies))


def pairs_of(log: EventLog) -> float:
    """Counts the pairs of events of the same person: the work of multiplying people's histories out."""
    return float(np.sum(np.diff(log.starts).astype(np.float64) ** 2))


def _ones(rows: npt.NDArray[np.intp], columns: Ints, shape: tuple[int, int]) -> Sparse:
    matrix = _matrix(np.ones(len(rows), np.float32), rows, columns, shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _matrix(data: Floats, rows: npt.NDArray[np.intp], columns: Ints, shape: tuple[int, int]) -> Sparse:
    return sparse.csr_array(sparse.coo_array((data, (rows.astype(np.int32), columns.astype(np.int32))), shape=shape))
