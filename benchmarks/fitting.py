"""How one system learns, in this process on one thread: `python -m benchmarks.fitting SYSTEM --data DIR`; prints JSON.

Ours, `pooled` and `sequence`, or `implicit`'s `als` and `bpr`. All learn from `train` of the protocol `last`; the curve
is over its validation queries, the last figures over its test queries: full ranking, seen movies removed.

Letters in array names: U people, Q queries, N movies, D dimension, K list length.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from rich.console import Console
from scipy import sparse
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.machine import peak_bytes
from marquee.features import Floats, Int64s
from training.baselines.interactions import history
from training.baselines.suite import ranked
from training.batches import EventLog
from training.config import TrainConfig
from training.data import Dataset, load_dataset
from training.metrics import ndcg_at, recall_at
from training.model import TOWERS, ContentBags, TowerConfig
from training.split import Queries, Split, splits
from training.train import Trained, spec_of, train, validate

K = 10
ALS, BPR = "als", "bpr"
# What `validate` of the training draws as well, so that every curve is over the same queries.
CURVE_QUERIES = 5000
_PASSES = {ALS: 15, BPR: 100}
# Ranking for the curve takes as long as many passes of BPR.
_EVERY = {ALS: 1, BPR: 5}


class Fitting(NamedTuple):
    """Is a data set, its `last` split, the vectors' length, and the seconds that training may take."""

    data: Dataset
    split: Split
    dimension: int
    budget_s: float


def read_split(folder: Path) -> tuple[Dataset, Split]:
    """Loads data and splits them by the protocol `last`."""
    data = load_dataset(folder)
    return data, splits(data, spec_of(TowerConfig()), "last")[0]


def fit_tower(kind: str, fitting: Fitting) -> dict[str, Any]:
    """Times one pass without validation, then trains for as many passes as the budget has room for, at most the rule's.

    Seconds of the curve are those of the training with its validation, and of what comes before its first pass.
    """
    split, tower = fitting.split, TowerConfig(kind=kind, dimension=fitting.dimension)
    nobody = split.validation.take(np.zeros(0, np.int64))
    once, spent_s = _train(fitting, split._replace(validation=nobody), tower, 1)
    pass_s = once.epochs[0].seconds
    examples = len(split.train.eligible())
    people = int(np.count_nonzero(np.diff(split.train.starts)))
    rule = TrainConfig().for_data(kind, examples, people, split.protocol).epochs
    passes = max(1, min(rule, int((fitting.budget_s - (spent_s - pass_s)) / pass_s)))
    trained, spent_s = _train(fitting, split, tower, passes)
    start_s = spent_s - sum(epoch.seconds for epoch in trained.epochs)
    bags = ContentBags(torch.from_numpy(trained.content_NT))
    tested = validate(trained.model, bags, split.test, trained.spec)
    return {
        "pass_s": pass_s,
        # At every position there is one before: a person's first event is a target of the pooled tower alone.
        "events": examples - people if kind == "sequence" else examples,
        "curve": _curve(trained, start_s),
        "recall": float(tested.recall_Q.mean()),
        "ndcg": float(tested.ndcg_Q.mean()),
        "passes": len(trained.epochs),
        "note": f"{passes} of {rule} passes fit the budget; start {start_s:.1f} s",
    }


def _train(fitting: Fitting, split: Split, tower: TowerConfig, passes: int) -> tuple[Trained, float]:
    started = time.perf_counter()
    config = TrainConfig(threads=1, epochs=passes)
    trained = train(fitting.data, split, tower, config, Console(stderr=True))
    return trained, time.perf_counter() - started


def _curve(trained: Trained, start_s: float) -> list[tuple[float, float]]:
    ends_s = start_s + np.cumsum([epoch.seconds for epoch in trained.epochs])
    return [(float(end_s), epoch.recall_at_10) for end_s, epoch in zip(ends_s, trained.epochs, strict=True)]


class _Folded(NamedTuple):
    """Scores by factors that are solved for anew from each history."""

    model: Any

    def scores(self, queries: Queries) -> Floats:
        """Scores all movies [Q, N]."""
        items_ND = self.model.item_factors
        people_QD = self.model.recalculate_user(
            np.arange(queries.size), sparse.csr_matrix(history(queries, len(items_ND)))
        )
        scores_QN: Floats = people_QD @ items_ND.T
        return scores_QN


class _Known(NamedTuple):
    """Scores by the factors that were learned of each person."""

    model: Any

    def scores(self, queries: Queries) -> Floats:
        """Scores all movies [Q, N]."""
        scores_QN: Floats = self.model.user_factors[queries.users] @ self.model.item_factors.T
        return scores_QN


def fit_factors(kind: str, fitting: Fitting) -> dict[str, Any]:
    """Passes as often as the library does by default, or until the budget is used up."""
    split, movies = fitting.split, len(fitting.data.movies)
    watched_UN = _watched(split.train, movies)
    model, scorer = _factors(kind, fitting.dimension)
    validation = split.validation.sample(CURVE_QUERIES)
    seconds, curve = list[float](), list[tuple[float, float]]()
    for number in range(_PASSES[kind]):
        # Otherwise every pass of BPR would draw the same.
        model.random_state = number
        started = time.perf_counter()
        model.fit(watched_UN, show_progress=False)
        seconds.append(time.perf_counter() - started)
        if number % _EVERY[kind] == 0:
            curve.append((sum(seconds), _tested(validation, ranked(scorer, validation, movies, K))[0]))
        if sum(seconds) > fitting.budget_s:
            break
    recall, ndcg = _tested(split.test, ranked(scorer, split.test, movies, K))
    return {
        "pass_s": float(np.median(seconds)),
        "events": int(watched_UN.nnz),
        "curve": curve,
        "recall": recall,
        "ndcg": ndcg,
        "passes": len(seconds),
        "note": _NOTES[kind],
    }


_NOTES = {
    ALS: "people's factors are solved for anew from the history asked by",
    BPR: "people's factors are those of training, without the validation event",
}


def _watched(log: EventLog, movies: int) -> sparse.csr_matrix:
    """Marks who watched what, [U, N], with a row for everybody."""
    ones = np.ones(log.size, np.float32)
    watched_UN = sparse.csr_matrix((ones, (log.users, log.items)), shape=(len(log.starts) - 1, movies))
    watched_UN.data[:] = 1.0
    return watched_UN


def _factors(kind: str, dimension: int) -> tuple[Any, _Folded | _Known]:
    """Makes the model that passes once at each `fit`, going on from the last.

    BPR is as the library has it; iALS's settings were the best of six on validation of MovieLens latest-small.
    """
    if kind == ALS:
        model = AlternatingLeastSquares(factors=dimension, regularization=10.0, alpha=2.0, iterations=1, num_threads=1)
        return model, _Folded(model)
    model = BayesianPersonalizedRanking(
        factors=dimension, learning_rate=0.01, regularization=0.01, iterations=1, num_threads=1
    )
    return model, _Known(model)


def _tested(queries: Queries, items_QK: Int64s) -> tuple[float, float]:
    hits_QK = queries.hits(items_QK)
    recall_Q, ndcg_Q = recall_at(hits_QK, queries.counts, K), ndcg_at(hits_QK, queries.counts, K)
    return float(recall_Q.mean()), float(ndcg_Q.mean())


SYSTEMS: dict[str, Callable[[str, Fitting], dict[str, Any]]] = {
    **dict.fromkeys(TOWERS, fit_tower),
    **dict.fromkeys((ALS, BPR), fit_factors),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fitting", description=__doc__, allow_abbrev=False)
    parser.add_argument("system", choices=SYSTEMS, help="what learns")
    parser.add_argument("--data", type=Path, required=True, help="folder of data")
    parser.add_argument("--dimension", type=int, required=True, help="length of vectors")
    parser.add_argument("--budget-s", type=float, required=True, help="seconds that training may take")
    options = parser.parse_args(arguments)
    # implicit warns of, and suffers from, a BLAS with threads of its own.
    with threadpool_limits(1, "blas"):
        fitting = Fitting(*read_split(options.data), options.dimension, options.budget_s)
        found = SYSTEMS[options.system](options.system, fitting)
    print(json.dumps(found | {"peak_bytes": peak_bytes(os.getpid())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
