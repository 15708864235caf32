"""Measures the exported bundle beside the baselines: full ranking, seen movies removed, in any protocol.

The model is scored as it is served: the ONNX user tower over raw events, the index in the bundle. Q queries, T targets
of all queries, K list length, N movies, G genres, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from marquee.bundle.gate import Evaluation
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.encoder import Encoder
from marquee.engine.index import ROUNDING, Index
from marquee.features import Floats, Int64s
from marquee.movies import MovieRecord
from training.baselines import baseline_lists
from training.baselines.interactions import watched
from training.baselines.suite import LIST_LENGTH, Lists
from training.data import Dataset
from training.metrics import (
    Doubles,
    Mask,
    distinctness,
    diversity,
    interval,
    mrr_at,
    ndcg_at,
    novelty,
    popularity_of,
    recall_at,
)
from training.records import SLICE, TOP, PerQuery, Run, Series, figures, paired
from training.split import Queries, Split

__all__ = [
    "Lists",
    "PerQuery",
    "evaluate",
    "paired",
    "per_query",
]

Labels = npt.NDArray[np.str_]

LENGTHS = (10, 20, 50, 100)
# Recall at this length is what slices show.
SLICED_AT = {"last": 10, "users": 20, "time": 20}
# More people than these are drawn from: the intervals are narrow enough, and everything is ranked in minutes.
MOST_QUERIES = 20_000
_ANN_QUERIES = 1000
_CHUNK = 512
_HISTORY_EDGES = (10, 20, 50, 100, 200)


def evaluate(
    data: Dataset, split: Split, encoder: Encoder, index: Index, baselines: str = "quick"
) -> tuple[list[bundle_pb2.Metric], Evaluation]:
    """Ranks for the test queries with the model and a suite of baselines; returns the figures and the gate's record.

    The figures are without slices: services send them along with what they have loaded.
    """
    split = split._replace(test=split.test.sample(MOST_QUERIES))
    vectors_QD = query_vectors(data, split.test, encoder)
    items_QK = ranked_lists(data, split.test, index, vectors_QD)
    model = Lists("model", items_QK)
    record = per_query(data, split, [model, *baseline_lists(len(data.movies), split, baselines)])
    summary = [one for one in figures(record) if SLICE not in one.name]
    found_Q = items_QK[:, 0] >= 0
    first = top_score(split.protocol, index, vectors_QD[found_Q], data.movie_ids[items_QK[found_Q, 0]])
    metrics = [*summary, first, ann_recall(split.protocol, index, vectors_QD)]
    return metrics, Evaluation(record.queries, record.mean("model", "ndcg@10"), record.mean("popularity", "ndcg@10"))


def query_vectors(data: Dataset, queries: Queries, encoder: Encoder) -> Floats:
    """Encodes each query's raw history as of its moment, [Q, D]."""
    parts = [np.zeros((0, encoder.spec.dimension), np.float32)]
    for start in range(0, queries.size, _CHUNK):
        some = range(start, min(start + _CHUNK, queries.size))
        inputs = [encoder.prepare(queries.events(q, data.movie_ids), int(queries.as_of_ms[q])) for q in some]
        parts.append(encoder.encode_batch(inputs))
    return np.concatenate(parts)


def ranked_lists(data: Dataset, queries: Queries, index: Index, vectors_QD: Floats) -> Int64s:
    """Ranks through the index as a request would, seen movies left out; returns items [Q, K]."""
    item_of_row = np.searchsorted(data.movie_ids, index.movie_ids)
    items_QK = np.full((queries.size, LIST_LENGTH), -1, np.int64)
    for start in range(0, queries.size, _CHUNK):
        of = slice(start, start + _CHUNK)
        allowed = ~queries.part(of).seen(len(data.movies))[:, item_of_row]
        for row, (vector_D, allowed_N) in enumerate(zip(vectors_QD[of], allowed, strict=True), start):
            found = index.search(vector_D, LIST_LENGTH, allowed_N).movie_ids
            items_QK[row, : len(found)] = np.searchsorted(data.movie_ids, found)
    return items_QK


def top_score(protocol: str, index: Index, vectors_QD: Floats, movie_ids_Q: Int64s) -> bundle_pb2.Metric:
    """Measures the mean score of the first movie of each list: what services compare with that of what they serve."""
    scores_Q: Doubles = np.einsum("qd,qd->q", vectors_QD, index.vectors(movie_ids_Q), dtype=np.float64)
    metric = bundle_pb2.Metric(system="model", protocol=protocol, targets="all", name="score@1", n=len(scores_Q))
    metric.value = float(scores_Q.mean()) if len(scores_Q) else float("nan")
    metric.low, metric.high = interval(scores_Q)
    return metric


def ann_recall(protocol: str, index: Index, vectors_QD: Floats, k: int = LIST_LENGTH) -> bundle_pb2.Metric:
    """Measures how many of the exact k nearest movies the index finds, by NumPy over all item vectors.

    A movie that scores within rounding of the k-th counts as one of the k.
    """
    vectors_ND, vectors_QD = index.vectors(index.movie_ids), vectors_QD[:_ANN_QUERIES]
    k = min(k, index.count)
    shares = [_share_found(index, vectors_ND @ vector_D, vector_D, k) for vector_D in vectors_QD]
    metric = bundle_pb2.Metric(system="index", protocol=protocol, targets="all", name=f"ann_recall@{LIST_LENGTH}")
    metric.value, metric.n = float(np.mean(shares)) if shares else float("nan"), len(shares)
    return metric


def _share_found(index: Index, exact_N: Floats, vector_D: Floats, k: int) -> float:
    least = np.partition(exact_N, -k)[-k] - ROUNDING
    found = exact_N[index.rows(index.search(vector_D, k).movie_ids)]
    return float(np.count_nonzero(found >= least)) / k


def per_query(data: Dataset, split: Split, lists: Sequence[Lists], seed: int = 0) -> PerQuery:
    """Measures ranked lists of the test's queries: all targets and liked ones, by slice, and what is shown."""
    queries, shown = split.test, _Shown(data, split)
    slices = dict(_slices(data, split))
    values: dict[Series, Floats] = {}
    tops: dict[Run, Int64s] = {}
    for system, items_QK in lists:
        tops[Run(system, seed)] = items_QK[:, :TOP]
        for targets, name, values_Q in _measures(_Ranked(queries, items_QK), slices, SLICED_AT[split.protocol]):
            values[Series(system, seed, targets, name)] = values_Q.astype(np.float32)
        for name, values_Q in shown.measures(items_QK[:, :TOP]).items():
            values[Series(system, seed, "all", f"{name}@{TOP}")] = values_Q.astype(np.float32)
    return PerQuery(split.protocol, len(data.movies), queries.hashes(data.user_ids, data.movie_ids), values, tops)


class _Ranked:
    """Knows at which place of its query's list each target stands."""

    def __init__(self, queries: Queries, items_QK: Int64s) -> None:
        self.queries = queries
        self._query_T = np.repeat(np.arange(queries.size), queries.counts)
        self._place_T = queries.places(items_QK)

    def measure(self, wanted_T: Mask, measure: Callable[[Mask, Int64s, int], Doubles], k: int) -> Doubles:
        """Applies a metric to some of the targets, [Q]; NaN for queries that have none of them."""
        counts_Q = self.queries.kept(wanted_T)
        asks_Q = counts_Q > 0
        hits_QK = np.zeros((self.queries.size, k), bool)
        found_T = wanted_T & (self._place_T < k)
        hits_QK[self._query_T[found_T], self._place_T[found_T]] = True
        values_Q = np.full(self.queries.size, np.nan)
        values_Q[asks_Q] = measure(hits_QK[asks_Q], counts_Q[asks_Q], k)
        return values_Q


_RANKING: dict[str, Callable[[Mask, Int64s, int], Doubles]] = {
    "recall": recall_at,
    "ndcg": ndcg_at,
    "mrr": lambda hits_QK, _, k: mrr_at(hits_QK, k),
}


def _measures(ranked: _Ranked, slices: Mapping[str, Mask], sliced_at: int) -> Iterator[tuple[str, str, Doubles]]:
    liked_T = ranked.queries.liked_T
    for targets, wanted_T in (("all", np.ones_like(liked_T)), ("liked", liked_T)):
        for name, measure in _RANKING.items():
            for k in LENGTHS:
                yield targets, f"{name}@{k}", ranked.measure(wanted_T, measure, k)
        for label, marked_T in slices.items():
            name = f"recall@{sliced_at}{SLICE}{label}"
            yield targets, name, ranked.measure(wanted_T & marked_T, recall_at, sliced_at)


class _Shown:
    """Measures what is shown, whatever the targets."""

    def __init__(self, data: Dataset, split: Split) -> None:
        watched_UN = watched(split.fit, len(data.movies))
        self._people = int(watched_UN.shape[0])
        self._people_N = np.asarray(watched_UN.sum(axis=0), np.int64)
        self._genres_NG = _genres(data.movies)
        self._habit_Q = _habit(split.test, self._people_N)

    def measures(self, items_QK: Int64s) -> dict[str, Doubles]:
        """Computes novelty, popularity bias, diversity and the share of distinct lists, each [Q].

        Popularity bias is the mean log2(1 + people) of what is shown, less that of the history: 1 is twice as popular.
        Diversity is left out where no movie has a genre.
        """
        result = {
            "novelty": novelty(items_QK, self._people_N, self._people),
            "popularity_bias": popularity_of(items_QK, self._people_N) - self._habit_Q,
            "distinct_lists": distinctness(items_QK),
        }
        if self._genres_NG.shape[1]:
            result["intra_list_diversity"] = diversity(items_QK, self._genres_NG)
        return result


def _habit(queries: Queries, people_N: Int64s) -> Doubles:
    """Returns the mean log2(1 + people) of each history, [Q]."""
    rows, positions = queries.history_positions()
    sums_Q = np.bincount(rows, np.log2(1.0 + people_N)[queries.log.items[positions]], queries.size)
    result: Doubles = sums_Q / np.maximum(queries.ends - queries.starts, 1)
    return result


def _genres(movies: Sequence[MovieRecord]) -> Floats:
    """Marks each movie's genres, [N, G]."""
    names = sorted({genre for movie in movies for genre in movie.genres})
    place = {name: column for column, name in enumerate(names)}
    genres_NG = np.zeros((len(movies), len(names)), np.float32)
    for row, movie in enumerate(movies):
        genres_NG[row, [place[genre] for genre in movie.genres]] = 1.0
    return genres_NG


def _slices(data: Dataset, split: Split) -> Iterator[tuple[str, Mask]]:
    """Yields the name and the targets [T] of each slice that has any."""
    queries = split.test
    counts_N = np.bincount(split.fit.items, minlength=len(data.movies))
    trained_N = np.bincount(split.train.items, minlength=len(data.movies)) > 0
    labels_N = {
        "popularity": _popularity_tenths(counts_N),
        "decade": np.array([f"{movie.year // 10}0" if movie.year else "unknown" for movie in data.movies]),
        "cold": np.where(trained_N, "no", "yes"),
    }
    lengths = np.repeat(queries.ends - queries.starts, queries.counts)
    labels_T = {"history": _length_labels(lengths)} | {
        name: labels[queries.targets] for name, labels in labels_N.items()
    }
    for name, labels in labels_T.items():
        for label in np.unique(labels).tolist():
            yield f"{name}={label}", labels == label


def _popularity_tenths(counts_N: Int64s) -> Labels:
    """Labels movies, most watched first, by tenths of all events, [N]: 01 is the few that take the first tenth."""
    order = np.argsort(-counts_N, kind="stable")
    before_N = np.cumsum(counts_N[order]) - counts_N[order]
    tenth_N = np.empty(len(counts_N), np.int64)
    tenth_N[order] = np.minimum(10 * before_N // max(int(counts_N.sum()), 1), 9)
    return np.array([f"{number:02}" for number in range(1, 11)])[tenth_N]


def _length_labels(lengths: Int64s) -> Labels:
    edges = (0, *_HISTORY_EDGES)
    names = [f"{low + 1:03}-{high:03}" for low, high in pairwise(edges)] + [f"{edges[-1] + 1:03}+"]
    return np.array(names)[np.searchsorted(_HISTORY_EDGES, lengths)]
