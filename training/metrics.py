"""Ranking metrics over full rankings. Q queries, K list length, N movies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marquee.bundle.gate import bootstrap_means
from marquee.features import Floats, Int64s

Mask = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


def recall_at(hits_QK: Mask, targets_Q: Int64s, k: int) -> Doubles:
    """Returns each query's recall@k [Q]: targets among the first k, of min(k, targets)."""
    recall_Q: Doubles = hits_QK[:, :k].sum(axis=1) / np.minimum(targets_Q, k)
    return recall_Q


def ndcg_at(hits_QK: Mask, targets_Q: Int64s, k: int) -> Doubles:
    """Returns each query's NDCG@k [Q] with binary gains and the ideal list of min(k, targets)."""
    discounts_K = 1.0 / np.log2(np.arange(2, k + 2))
    gains_Q = hits_QK[:, :k] @ discounts_K[: hits_QK.shape[1]]
    ideal = np.concatenate([[0.0], np.cumsum(discounts_K)])
    result: Doubles = gains_Q / ideal[np.minimum(targets_Q, k)]
    return result


def top_k(scores_QN: Floats, seen_QN: Mask, k: int) -> Int64s:
    """Ranks the unseen movies of each query: the first k, [Q, K], by score and then row; -1 where fewer are left."""
    scores_QN = np.where(seen_QN, -np.inf, scores_QN)
    k = min(k, scores_QN.shape[1])
    least_Q1 = -np.partition(-scores_QN, k - 1, axis=1)[:, k - 1 : k]
    above_QN, tied_QN = scores_QN > least_Q1, scores_QN == least_Q1
    wanted_Q1 = k - np.count_nonzero(above_QN, axis=1, keepdims=True)
    chosen_QN = above_QN | (tied_QN & (np.cumsum(tied_QN, axis=1) <= wanted_Q1))
    nearest_QK = np.nonzero(chosen_QN)[1].reshape(-1, k)
    order_QK = np.argsort(-np.take_along_axis(scores_QN, nearest_QK, axis=1), axis=1, kind="stable")
    ranked_QK = np.take_along_axis(nearest_QK, order_QK, axis=1)
    return np.where(np.isneginf(np.take_along_axis(scores_QN, ranked_QK, axis=1)), -1, ranked_QK)


def interval(values_Q: Doubles) -> tuple[float, float]:
    """Bounds a mean by a bootstrap over queries: 95 %, two-sided, fixed seed."""
    if len(values_Q) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(bootstrap_means(values_Q), [0.025, 0.975])
    return float(low), float(high)
