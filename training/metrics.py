"""Ranking metrics over full rankings, and what is shown beside them.

Q queries, K list length, N movies, M series of figures, G genres.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.gate import bootstrap_means
from marquee.features import Floats, Int64s

Mask = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

_RESAMPLES = 2000
_QUANTILES = (0.025, 0.975)


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


def mrr_at(hits_QK: Mask, k: int) -> Doubles:
    """Returns each query's reciprocal rank [Q]: 1 over the place of its first target, 0 where the first k have none."""
    first_Q = np.argmax(hits_QK[:, :k], axis=1)
    result: Doubles = np.where(hits_QK[:, :k].any(axis=1), 1.0 / (1.0 + first_Q), 0.0)
    return result


def coverage(items_QK: Int64s, movies: int) -> float:
    """Returns the share of all movies that stands in a list."""
    return len(np.unique(items_QK[items_QK >= 0])) / movies


def distinctness(items_QK: Int64s) -> Doubles:
    """Returns 1 over the number of queries with the same movies in their list [Q].

    The mean is the share of distinct lists. A model that has collapsed shows everybody the same.
    """
    _, list_of_Q, shared = np.unique(np.sort(items_QK, axis=1), axis=0, return_inverse=True, return_counts=True)
    result: Doubles = 1.0 / shared[list_of_Q.ravel()]
    return result


def novelty(items_QK: Int64s, people_N: Int64s, people: int) -> Doubles:
    """Returns each list's mean -log2 of the share of people who have the movie, in bits [Q].

    A movie that nobody has counts as one that a single person has.
    """
    bits_N = np.log2(max(people, 1) / np.maximum(people_N, 1))
    return _mean(bits_N[items_QK], items_QK >= 0)


def popularity_of(items_QK: Int64s, people_N: Int64s) -> Doubles:
    """Returns each list's mean log2(1 + people who have the movie) [Q]."""
    return _mean(np.log2(1.0 + people_N)[items_QK], items_QK >= 0)


def diversity(items_QK: Int64s, genres_NG: Floats) -> Doubles:
    """Returns 1 - the mean Jaccard similarity of genres over the pairs of each list [Q]; NaN for lists of one movie.

    Two movies without genres have nothing in common.
    """
    real_QK = (items_QK >= 0).astype(np.float32)
    genres_QKG = genres_NG[items_QK] * real_QK[..., None]
    both_QKK = genres_QKG @ genres_QKG.transpose(0, 2, 1)
    sizes_QK = genres_QKG.sum(axis=2)
    either_QKK = sizes_QK[:, :, None] + sizes_QK[:, None, :] - both_QKK
    similar_QKK = both_QKK / np.maximum(either_QKK, 1.0)
    itself_Q = np.trace(similar_QKK, axis1=1, axis2=2)
    real_Q = real_QK.sum(axis=1)
    with np.errstate(invalid="ignore"):
        result: Doubles = 1.0 - (similar_QKK.sum(axis=(1, 2)) - itself_Q) / (real_Q * (real_Q - 1.0))
    return result


def _mean(values_QK: Doubles, real_QK: Mask) -> Doubles:
    """Averages over what is real, [Q]; NaN where nothing is."""
    with np.errstate(invalid="ignore"):
        result: Doubles = np.where(real_QK, values_QK, 0.0).sum(axis=1) / real_QK.sum(axis=1)
    return result


def top_k(scores_QN: Floats, seen_QN: Mask, k: int) -> Int64s:
    """Ranks the unseen movies of each query: the first k, [Q, K], by score and then row; -1 where fewer are left."""
    scores_QN = np.where(seen_QN, -np.inf, scores_QN)
    k = min(k, scores_QN.shape[1])
    least_Q1 = -np.partition(-scores_QN, k - 1, axis=1)[:, k - 1 : k]
    chosen_QN = scores_QN >= least_Q1
    tied = np.flatnonzero(np.count_nonzero(chosen_QN, axis=1) > k)
    chosen_QN[tied] = _first_of_ties(scores_QN[tied], least_Q1[tied], k)
    nearest_QK = np.nonzero(chosen_QN)[1].reshape(-1, k)
    order_QK = np.argsort(-np.take_along_axis(scores_QN, nearest_QK, axis=1), axis=1, kind="stable")
    ranked_QK = np.take_along_axis(nearest_QK, order_QK, axis=1)
    return np.where(np.isneginf(np.take_along_axis(scores_QN, ranked_QK, axis=1)), -1, ranked_QK)


def _first_of_ties(scores_QN: Floats, least_Q1: Floats, k: int) -> Mask:
    """Marks the first k of each row, [Q, N], where more than fit score as the k-th does."""
    above_QN, tied_QN = scores_QN > least_Q1, scores_QN == least_Q1
    wanted_Q1 = k - np.count_nonzero(above_QN, axis=1, keepdims=True)
    first_QN: Mask = above_QN | (tied_QN & (np.cumsum(tied_QN, axis=1) <= wanted_Q1))
    return first_QN


def interval(values_Q: Doubles) -> tuple[float, float]:
    """Bounds a mean by a bootstrap over queries: 95 %, two-sided, fixed seed."""
    if len(values_Q) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(bootstrap_means(values_Q), _QUANTILES)
    return float(low), float(high)


class Paired(NamedTuple):
    """Holds the mean difference of two systems on the n queries that both answered, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def paired_difference(a_Q: Doubles, b_Q: Doubles) -> Paired:
    """Bounds the mean of a - b by a bootstrap over queries that have both: 95 %, two-sided, fixed seed."""
    difference_Q = (a_Q - b_Q)[np.isfinite(a_Q) & np.isfinite(b_Q)]
    value = float(difference_Q.mean()) if len(difference_Q) else float("nan")
    return Paired(value, *interval(difference_Q), len(difference_Q))


def intervals(values_QM: Floats) -> tuple[Doubles, Doubles]:
    """Bounds the means of many series over the same queries at once [M]; NaN marks a query that a series has not.

    Gives `interval`'s bounds where every query has a value: the resamples are the same.
    """
    rng = np.random.default_rng(0)
    count = len(values_QM)
    has_QM = np.isfinite(values_QM)
    known_QM, has_QM = np.where(has_QM, values_QM, 0.0), has_QM.astype(np.float64)
    share_Q = np.full(count, 1.0 / count)
    means = []
    for _ in range(_RESAMPLES // 50):
        drawn_RQ = rng.multinomial(count, share_Q, 50).astype(np.float64)
        with np.errstate(invalid="ignore"):
            means.append((drawn_RQ @ known_QM) / (drawn_RQ @ has_QM))
    low_M, high_M = np.nanquantile(np.concatenate(means), _QUANTILES, axis=0)
    return low_M, high_M
