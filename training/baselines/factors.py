"""iALS: matrix factorisation of implicit feedback, by the `implicit` library.

U people, N movies, D factors, Q queries.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from implicit.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from marquee.features import Floats
from training.baselines.interactions import Sparse, history
from training.split import Queries

# Fitting all sizes to so many takes minutes.
LARGEST_EVENTS = 2_000_000


class FactorConfig(NamedTuple):
    """Says how to factorise: a watched movie counts `alpha` times as much as one that was not watched."""

    factors: int
    regularization: float
    alpha: float
    iterations: int = 15
    threads: int = 1


class Factors:
    """Is iALS, asked by a history: the person's factors are solved for anew, so anybody can be asked for.

    Source: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets" (ICDM 2008).
    """

    def __init__(self, watched_UN: Sparse, config: FactorConfig) -> None:
        # The library warns of, and suffers from, a BLAS with threads of its own.
        with threadpool_limits(1, "blas"):
            self._model = AlternatingLeastSquares(
                factors=config.factors,
                regularization=config.regularization,
                alpha=config.alpha,
                iterations=config.iterations,
                num_threads=config.threads,
                random_state=0,
            )
            self._model.fit(sparse.csr_matrix(watched_UN), show_progress=False)

    def scores(self, queries: Queries) -> Floats:
        """Scores all movies [Q, N]."""
        history_QN = sparse.csr_matrix(history(queries, len(self._model.item_factors)))
        with threadpool_limits(1, "blas"):
            people_QD = self._model.recalculate_user(np.arange(queries.size), history_QN)
            scores_QN: Floats = people_QD @ self._model.item_factors.T
        return scores_QN
