"""Measures the exported bundle beside the baselines: full ranking, seen movies removed, `last` protocol.

The model is scored as it is served: the ONNX user tower over raw events, the index in the bundle. Q queries, K list
length, N movies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.gate import Evaluation
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.encoder import Encoder
from marquee.engine.index import Index
from marquee.features import Floats, Int64s
from training.baselines import Ease, Popularity
from training.data import Dataset
from training.metrics import interval, ndcg_at, recall_at, top_k
from training.split import Queries, Split, watched

LIST_LENGTH = 50
EASE_PENALTIES = (30.0, 100.0, 300.0, 1000.0)
# Four arrays of so many float32 stand in memory at once: 1.6 GB.
EASE_CELLS = 100_000_000
_CHUNK = 512


class Lists(NamedTuple):
    """Holds one system's ranked items [Q, K], -1 where it had no more."""

    system: str
    items_QK: Int64s


def evaluate(data: Dataset, split: Split, encoder: Encoder, index: Index) -> tuple[list[bundle_pb2.Metric], Evaluation]:
    """Ranks for every test query with the model, popularity and EASE; returns the figures and the gate's record."""
    queries = split.test
    lists = [Lists("model", model_lists(data, queries, encoder, index)), *baseline_lists(data, split)]
    metrics = [figure for one in lists for figure in figures(one, queries, len(data.movies))]
    ndcg = {one.system: ndcg_at(queries.hits(one.items_QK), queries.counts, 10) for one in lists}
    hashes = queries.hashes(data.user_ids, data.movie_ids)
    popularity = ndcg["popularity"].astype(np.float32)
    return metrics, Evaluation(hashes, ndcg["model"].astype(np.float32), popularity)


def model_lists(data: Dataset, queries: Queries, encoder: Encoder, index: Index) -> Int64s:
    """Ranks through the engine, from raw events, as a request would; returns items [Q, K]."""
    item_of_row = np.searchsorted(data.movie_ids, index.movie_ids)
    ranked = []
    for start in range(0, queries.size, _CHUNK):
        part = queries.part(slice(start, start + _CHUNK))
        seen_QN = part.seen(len(data.movies))[:, item_of_row]
        inputs = [
            encoder.prepare(part.events(query, data.movie_ids), int(part.as_of_ms[query])) for query in range(part.size)
        ]
        hits = index.search_batch(encoder.encode_batch(inputs), [LIST_LENGTH] * part.size, list(~seen_QN))
        ranked += [_padded(np.searchsorted(data.movie_ids, hit.movie_ids)) for hit in hits]
    return np.stack(ranked)


def baseline_lists(data: Dataset, split: Split) -> list[Lists]:
    """Ranks with popularity and with EASE, both fitted without the test.

    EASE is left out where people times movies pass `EASE_CELLS`: it works on that many numbers at once.
    """
    movies = len(data.movies)
    counts_N = np.bincount(split.fit.items, minlength=movies).astype(np.int64)
    lists = [Lists("popularity", _rank(Popularity(counts_N).scores, split.test, movies))]
    if len(data.user_ids) * movies <= EASE_CELLS:
        ease = Ease(watched(split.fit, movies), _best_penalty(split, movies))
        lists.append(Lists("ease", _rank(ease.scores, split.test, movies)))
    return lists


def _best_penalty(split: Split, movies: int) -> float:
    """Tunes EASE's penalty on the validation split."""
    if split.validation.size == 0:
        return EASE_PENALTIES[1]
    fitted_UN = watched(split.train, movies)
    scored = {penalty: _ndcg(Ease(fitted_UN, penalty), split.validation, movies) for penalty in EASE_PENALTIES}
    return max(scored, key=lambda penalty: scored[penalty])


def figures(lists: Lists, queries: Queries, movies: int) -> list[bundle_pb2.Metric]:
    """Computes a system's figures, for all targets and for the liked ones."""
    result = []
    liked, likes = queries.only_liked(), queries.likes > 0
    for targets, asked, items_QK in (("all", queries, lists.items_QK), ("liked", liked, lists.items_QK[likes])):
        hits_QK, counts_Q = asked.hits(items_QK), asked.counts
        for name, values_Q in (
            ("recall@10", recall_at(hits_QK, counts_Q, 10)),
            ("recall@50", recall_at(hits_QK, counts_Q, 50)),
            ("ndcg@10", ndcg_at(hits_QK, counts_Q, 10)),
        ):
            result.append(_metric(lists.system, targets, name, values_Q))
    shown = np.unique(lists.items_QK[:, :10])
    coverage = np.count_nonzero(shown >= 0) / movies
    distinct = len(np.unique(np.sort(lists.items_QK[:, :10], axis=1), axis=0)) / queries.size
    for name, value in (("coverage@10", coverage), ("distinct_lists@10", distinct)):
        result.append(
            bundle_pb2.Metric(
                system=lists.system, protocol="last", targets="all", name=name, value=value, n=queries.size
            )
        )
    return result


def _metric(system: str, targets: str, name: str, values_Q: npt.NDArray[np.float64]) -> bundle_pb2.Metric:
    metric = bundle_pb2.Metric(system=system, protocol="last", targets=targets, name=name, n=len(values_Q))
    if len(values_Q):
        metric.value = float(values_Q.mean())
        metric.low, metric.high = interval(values_Q)
    return metric


def _ndcg(ease: Ease, queries: Queries, movies: int) -> float:
    ranked_QK = _rank(ease.scores, queries, movies)
    return float(ndcg_at(queries.hits(ranked_QK), queries.counts, 10).mean())


def _rank(scores: Callable[[Floats], Floats], queries: Queries, movies: int) -> Int64s:
    ranked = []
    for start in range(0, queries.size, _CHUNK):
        seen_QN = queries.part(slice(start, start + _CHUNK)).seen(movies)
        ranked.append(_padded(top_k(scores(seen_QN.astype(np.float32)), seen_QN, LIST_LENGTH)))
    return np.concatenate(ranked)


def _padded(items: Int64s) -> Int64s:
    width = [(0, 0)] * (items.ndim - 1) + [(0, LIST_LENGTH - items.shape[-1])]
    return np.pad(items, width, constant_values=-1)
