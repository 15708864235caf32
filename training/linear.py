"""What the towers take from closed forms, beside a teacher: a start, and a query for nobody.

N movies, D dimension.

A linear autoencoder of low rank is a pooled two-tower whose rows are known in closed form. Started there, a pooled
tower begins near EASE instead of having to find it.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from sklearn.utils.extmath import randomized_svd

from marquee.features import Floats
from training.baselines.interactions import watched
from training.batches import EventLog
from training.metrics import Doubles

# The spread of a started table's rows: it sets how far a step of the optimiser goes.
ROW_SCALE = 0.1
# How many of the most watched movies a direction is to have in their order, before all others.
_POPULAR = 50
_DIRECTION_PENALTY = 1e-5


def start_rows(log: EventLog, movies: int, dimension: int, penalty: float, seed: int) -> Floats:
    """Returns rows [N, D] whose products are the ridge-regularised autoencoder of rank D.

    With X = U S V', the autoencoder is V S² / (S² + penalty) V'; a row is V's by the root of that.
    """
    rank = min(dimension, movies - 1, len(np.unique(log.users)) - 1)
    if rank < 1:
        return np.zeros((movies, dimension), np.float32)
    _, sizes, right_RN = randomized_svd(watched(log, movies), rank, n_iter=4, random_state=seed)
    rows_NR = right_RN.T * (sizes / np.sqrt(sizes**2 + penalty))
    rows_ND = np.zeros((movies, dimension), np.float32)
    rows_ND[:, :rank] = rows_NR * (ROW_SCALE / max(float(rows_NR[np.unique(log.items)].std()), 1e-12))
    return rows_ND


def popular_direction(vectors_ND: Floats, people_N: Floats) -> Floats:
    """Returns the unit vector [D] that has the most watched movies in their order and before all others.

    It maximises the chance of that order, in which each movie is drawn by a softmax over those not yet drawn: convex,
    so that the same vectors give the same direction. Source: Xia et al., "Listwise approach to learning to rank"
    (ICML 2008).
    """
    ranked_ND = vectors_ND[np.argsort(-people_N, kind="stable")].astype(np.float64)
    share_N = (np.arange(len(ranked_ND)) < _POPULAR) / min(_POPULAR, len(ranked_ND))

    def loss(direction_D: Doubles) -> tuple[float, Doubles]:
        logits_N = ranked_ND @ direction_D
        exps_N = np.exp(logits_N - logits_N.max())
        left_N = np.cumsum(exps_N[::-1])[::-1] + 1e-300
        value = share_N @ (np.log(left_N) + logits_N.max() - logits_N) + _DIRECTION_PENALTY * direction_D @ direction_D
        slope_N = exps_N * np.cumsum(share_N / left_N) - share_N
        return float(value), slope_N @ ranked_ND + 2.0 * _DIRECTION_PENALTY * direction_D

    found_D = minimize(loss, share_N @ ranked_ND, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    direction_D: Floats = (found_D / max(float(np.linalg.norm(found_D)), 1e-12)).astype(np.float32)
    return direction_D
