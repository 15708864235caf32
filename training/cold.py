"""Measures movies that training never saw, and people with no history: `python -m training.cold --data DIR`.

A twentieth of the movies is hidden from training; they get their rows from content, as a refresh gives them. Held-out
people are asked for the hidden movies that they have, by the rest of their history. Q queries, N movies, C hidden
movies, K list length, D dimension.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console

from marquee.bundle.format import ITEM_VECTORS, Bundle
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.encoder import Encoder
from marquee.features import Floats, Int64s, TowerInput, content_ids, tie_hash
from training.baselines.content import ContentConfig, ContentKnn, content_grid
from training.baselines.interactions import watched
from training.baselines.popularity import Popularity
from training.batches import EventLog, event_log
from training.command import run_command
from training.config import TrainConfig
from training.data import Dataset, load_dataset
from training.metrics import Doubles, Mask, ndcg_at, recall_at, top_k
from training.model import TowerConfig
from training.objectives import run_user_tower
from training.records import PerQuery, Run, Series, figures, merge, paired
from training.split import FOLDS, Queries, Split, by_person, splits
from training.train import Trained, spec_of, train

MODEL, CONTENT_KNN, POPULARITY, TARGETS = "model", "content_knn", "popularity", "targets"
# What targets are called in records: hidden movies ranked among themselves, and in the whole catalogue.
AMONG_COLD, COLD_IN_ALL = "cold", "cold in all"
EMPTY, EMPTY_UNSEEN = "empty history", "empty history, seen removed"
_HIDDEN_SHARE = 0.05
_DRAW = 0xC01D
_CHUNK = 512
_LONGEST = 50


class Towers(NamedTuple):
    """Holds what ranking needs: the user tower, from input to vectors [Q, D], and the vectors of all movies [N, D]."""

    encode: Callable[[TowerInput], Floats]
    vectors_ND: Floats
    spec: bundle_pb2.FeatureSpec

    def scores(self, queries: Queries) -> Floats:
        """Scores all movies for each query, [Q, N]."""
        scores_QN: Floats = self.encode(queries.tower_input(self.spec)) @ self.vectors_ND.T
        return scores_QN

    def cold_start(self) -> Floats:
        """Scores all movies for somebody without events, [N]."""
        nothing = np.zeros((1, 1), np.int64)
        empty = TowerInput(nothing, nothing.astype(np.float32), nothing, nothing, nothing)
        scores_N: Floats = (self.encode(empty) @ self.vectors_ND.T)[0]
        return scores_N


@torch.no_grad()
def trained_towers(trained: Trained, data: Dataset, trained_on: Dataset | None = None) -> Towers:
    """Takes the towers as trained; movies of `data` that they were not trained on have rows by their content."""
    model = trained.model.eval()
    known = np.searchsorted(data.movie_ids, (trained_on or data).movie_ids)
    content_NT = torch.from_numpy(content_ids(data.movies, trained.spec))
    content_rows_ND = model.item_tower.content_rows(content_NT)
    rows_ND = content_rows_ND.clone()
    rows_ND[torch.from_numpy(known)] += model.ids.weight * model.trained_N1
    vectors_ND = model.item_tower.vectors(rows_ND, content_rows_ND).numpy()

    @torch.no_grad()
    def encode(inputs: TowerInput) -> Floats:
        users_QD: Floats = run_user_tower(model, rows_ND, inputs).numpy()
        return users_QD

    return Towers(encode, vectors_ND, trained.spec)


def exported_towers(bundle: Bundle) -> Towers:
    """Takes the towers as exported: row i must be movie i of the data, as it is in a bundle fresh from training."""
    return Towers(Encoder(bundle).run, np.asarray(bundle.array(ITEM_VECTORS), np.float32), bundle.features)


class ColdSplit(NamedTuple):
    """Holds what to train on, without the hidden movies, and whom to ask for them.

    `data` and `split` know nothing of hidden movies, and number the others anew. The rest is of the data as they were:
    `test` and `validation` ask for all hidden movies of their people, by histories without any; `whole` are the split's
    own test queries and targets, and `unread` the same with hidden movies dropped from what is read.
    """

    hidden: Int64s
    data: Dataset
    split: Split
    validation: Queries
    test: Queries
    whole: Queries
    unread: Queries


def hidden_movies(data: Dataset, share: float = _HIDDEN_SHARE) -> Int64s:
    """Draws movies that have events by a hash of their ids, at least one; returns items, ascending."""
    items = np.unique(data.items).astype(np.int64)
    drawn = np.argsort(tie_hash(_DRAW, data.movie_ids[items]), kind="stable")
    return np.sort(items[drawn[: max(1, round(share * len(items)))]])


def hide_movies(data: Dataset, split: Split, hidden: Int64s, spec: bundle_pb2.FeatureSpec) -> ColdSplit:
    """Hides movies from a split of the data."""
    hidden_N, log = _marked(data, hidden), event_log(data, spec)
    without = _Without(hidden_N, spec)
    return ColdSplit(
        hidden,
        without.data(data),
        split._replace(
            train=without.log(split.train),
            fit=without.log(split.fit),
            validation=without.queries(split.validation),
            test=without.queries(split.test),
        ),
        _asked_for(log, split.validation, hidden_N, spec),
        _asked_for(log, split.test, hidden_N, spec),
        split.test,
        _unread(split.test, hidden_N, spec),
    )


class _Without:
    """Takes hidden movies out and numbers the others anew."""

    def __init__(self, hidden_N: Mask, spec: bundle_pb2.FeatureSpec) -> None:
        self._hidden_N, self._spec = hidden_N, spec
        self._place_N = np.cumsum(~hidden_N) - 1

    def data(self, data: Dataset) -> Dataset:
        """Takes movies and their events out of data."""
        keep_E = ~self._hidden_N[data.items]
        return dataclasses.replace(
            data,
            movies=[movie for movie, hidden in zip(data.movies, self._hidden_N, strict=True) if not hidden],
            movie_ids=data.movie_ids[~self._hidden_N],
            users=data.users[keep_E],
            items=self._place_N[data.items[keep_E]].astype(np.int32),
            kinds=data.kinds[keep_E],
            values=data.values[keep_E],
            times_ms=data.times_ms[keep_E],
            fingerprint=f"{data.fingerprint}-cold",
        )

    def log(self, log: EventLog) -> EventLog:
        """Takes events out of a log."""
        kept = _without(log, self._hidden_N, self._spec)
        return kept._replace(items=self._place_N[kept.items].astype(np.int32))

    def queries(self, queries: Queries) -> Queries:
        """Takes events out of histories, and targets."""
        warm = _unread(queries, self._hidden_N, self._spec).only(~self._hidden_N[queries.targets])
        return warm._replace(log=self.log(queries.log), targets=self._place_N[warm.targets])


def _marked(data: Dataset, items: Int64s) -> Mask:
    marked_N = np.zeros(len(data.movies), bool)
    marked_N[items] = True
    return marked_N


def _without(log: EventLog, hidden_N: Mask, spec: bundle_pb2.FeatureSpec) -> EventLog:
    return log.only(~hidden_N[log.items], spec)


def _unread(queries: Queries, hidden_N: Mask, spec: bundle_pb2.FeatureSpec) -> Queries:
    """Drops hidden movies from the histories."""
    kept = np.concatenate([[0], np.cumsum(~hidden_N[queries.log.items])])
    return queries._replace(log=_without(queries.log, hidden_N, spec), ends=kept[queries.ends])


def _asked_for(log: EventLog, queries: Queries, hidden_N: Mask, spec: bundle_pb2.FeatureSpec) -> Queries:
    """Asks for every hidden movie that the people of the queries have in `log`, by histories without any."""
    as_of_U = np.zeros(len(log.starts) - 1, np.int64)
    as_of_U[queries.users] = queries.as_of_ms
    asks_U = np.zeros(len(as_of_U), bool)
    asks_U[queries.users] = True
    target_E = log.is_eligible() & hidden_N[log.items] & asks_U[log.users]
    return by_person(_without(queries.log, hidden_N, spec), log, target_E, as_of_U)


def tuned_content_knn(data: Dataset, cold: ColdSplit) -> tuple[ContentKnn, ContentConfig]:
    """Chooses the settings of the highest NDCG@10 among hidden movies for validation people, the first of equals."""
    best: tuple[float, ContentConfig] = (-1.0, ContentConfig())
    for config in content_grid() if cold.validation.size else ():
        items_QC = _ranked_cold(ContentKnn(data.movies, config).scores(cold.validation, cold.hidden), cold.hidden)
        ndcg = float(_ndcg(cold.validation, items_QC).mean())
        if ndcg > best[0]:
            best = ndcg, config
    return ContentKnn(data.movies, best[1]), best[1]


def _ndcg(queries: Queries, items_QC: Int64s) -> Doubles:
    return ndcg_at(queries.hits(items_QC), queries.counts, 10)


def _ranked_cold(scores_QC: Floats, hidden: Int64s) -> Int64s:
    """Ranks the hidden movies; returns items [Q, K], -1 where there are no more."""
    ranked_QK = top_k(scores_QC, np.zeros(scores_QC.shape, bool), 20)
    return np.pad(hidden[ranked_QK], ((0, 0), (0, 20 - ranked_QK.shape[1])), constant_values=-1)


class _Asked(NamedTuple):
    """Names what a measurement belongs to."""

    data: Dataset
    protocol: str
    queries: Queries

    def record(self, run: Run, targets: str, values: Mapping[str, Doubles]) -> PerQuery:
        """Makes a record of some figures of each query."""
        hashes = self.queries.hashes(self.data.user_ids, self.data.movie_ids)
        series = {Series(*run, targets, name): values_Q.astype(np.float32) for name, values_Q in values.items()}
        return PerQuery(self.protocol, len(self.data.movies), hashes, series, {})


def among_cold(data: Dataset, cold: ColdSplit, run: Run, scores_QC: Floats) -> PerQuery:
    """Measures a ranking of the hidden movies among themselves, for the queries of `cold.test`."""
    hits_QK, counts_Q = cold.test.hits(_ranked_cold(scores_QC, cold.hidden)), cold.test.counts
    values = {
        "recall@10": recall_at(hits_QK, counts_Q, 10),
        "recall@20": recall_at(hits_QK, counts_Q, 20),
        "ndcg@10": ndcg_at(hits_QK, counts_Q, 10),
    }
    return _Asked(data, cold.split.protocol, cold.test).record(run, AMONG_COLD, values)


def cold_in_all(data: Dataset, cold: ColdSplit, run: Run, scores: Callable[[Queries], Floats]) -> PerQuery:
    """Measures hidden movies in rankings of the whole catalogue, seen movies removed, beside their share of targets."""
    hidden_N = _marked(data, cold.hidden)
    items_QK = np.full((cold.whole.size, _LONGEST), -1, np.int64)
    for start in range(0, cold.whole.size, _CHUNK):
        of = slice(start, start + _CHUNK)
        found = top_k(scores(cold.unread.part(of)), cold.whole.part(of).seen(len(hidden_N)), _LONGEST)
        items_QK[of, : found.shape[1]] = found
    is_cold_QK = hidden_N[items_QK] & (items_QK >= 0)
    shown = {f"share@{k}": is_cold_QK[:, :k].mean(axis=1) for k in (10, _LONGEST)}
    share_Q = cold.whole.kept(hidden_N[cold.whole.targets]) / cold.whole.counts
    asked = _Asked(data, cold.split.protocol, cold.whole)
    return merge(
        [
            asked.record(run, COLD_IN_ALL, shown | _recall_of_cold(cold.whole, hidden_N, items_QK)),
            asked.record(Run(TARGETS, 0), COLD_IN_ALL, dict.fromkeys(shown, share_Q)),
        ]
    )


def _recall_of_cold(queries: Queries, hidden_N: Mask, items_QK: Int64s) -> dict[str, Doubles]:
    """Measures the recall of hidden targets, [Q]; NaN for queries without any."""
    is_cold_T = hidden_N[queries.targets]
    asks_Q, asked = queries.kept(is_cold_T) > 0, queries.only(is_cold_T)
    hits_QK = asked.hits(items_QK[asks_Q])
    values = {f"recall@{k}": np.full(queries.size, np.nan) for k in (10, _LONGEST)}
    for k in (10, _LONGEST):
        values[f"recall@{k}"][asks_Q] = recall_at(hits_QK, asked.counts, k)
    return values


def measure_cold(data: Dataset, cold: ColdSplit, towers: Towers, seed: int) -> PerQuery:
    """Measures towers that were trained without the hidden movies."""
    run = Run(MODEL, seed)
    among = among_cold(data, cold, run, towers.scores(cold.test)[:, cold.hidden])
    return merge([among, cold_in_all(data, cold, run, towers.scores)])


def measure_content_knn(data: Dataset, cold: ColdSplit) -> tuple[PerQuery, ContentConfig]:
    """Measures content-kNN, tuned on the fold's validation people; returns what was chosen as well."""
    scorer, config = tuned_content_knn(data, cold)
    return among_cold(data, cold, Run(CONTENT_KNN, 0), scorer.scores(cold.test, cold.hidden)), config


def measure_empty_history(data: Dataset, split: Split, towers: Towers, seed: int) -> PerQuery:
    """Measures what somebody without events is shown, beside popularity, by the test's targets.

    Movies that the person has seen are left in for one figure, and removed for the other.
    """
    popularity = Popularity(watched(split.fit, len(data.movies)))
    popular_N = popularity.scores(split.test.part(slice(1)))[0]
    asked = _Asked(data, split.protocol, split.test)
    records = [
        asked.record(run, targets, {"recall@10": _recall_of_one_list(split.test, scores_N, remove)})
        for run, scores_N in ((Run(MODEL, seed), towers.cold_start()), (Run(POPULARITY, 0), popular_N))
        for targets, remove in ((EMPTY, False), (EMPTY_UNSEEN, True))
    ]
    return merge(records)


def _recall_of_one_list(queries: Queries, scores_N: Floats, remove_seen: bool) -> Doubles:
    recall_Q = np.zeros(queries.size)
    for start in range(0, queries.size, _CHUNK):
        part = queries.part(slice(start, start + _CHUNK))
        seen_QN = part.seen(len(scores_N)) & remove_seen
        ranked_QK = top_k(np.broadcast_to(scores_N, seen_QN.shape), seen_QN, 10)
        recall_Q[start : start + part.size] = recall_at(part.hits(ranked_QK), part.counts, 10)
    return recall_Q


def run(options: argparse.Namespace, console: Console) -> Iterator[str]:
    """Trains and measures; yields the lines to print."""
    data = load_dataset(options.data)
    tower = TowerConfig(kind=options.tower, dimension=options.dimension)
    spec = spec_of(tower)
    # The objective of what is shipped: hidden histories are learned with all ids at hand, and content learns nothing.
    shipped = TrainConfig(objective="next", epochs=options.epochs, threads=options.threads)
    configs = [dataclasses.replace(shipped, seed=seed) for seed in range(options.seeds)]
    hidden, chosen = hidden_movies(data), list[ContentConfig]()
    records = []
    for split in splits(data, spec, "users")[: options.folds]:
        cold = hide_movies(data, split, hidden, spec)
        record, config = measure_content_knn(data, cold)
        records.append(record)
        chosen.append(config)
        for one in configs:
            console.print(f"`users`, fold {split.fold}, seed {one.seed}: {len(hidden)} movies are hidden")
            trained = train(cold.data, cold.split, tower, one, console)
            towers = trained_towers(trained, data, cold.data)
            records.append(measure_cold(data, cold, towers, one.seed))
    known = len(np.unique(data.items))
    yield f"{data.name}: {len(hidden):,} of {known:,} movies with events are hidden; the tower is {tower.kind}"
    yield from _lines(merge(records))
    yield from _difference_lines(merge(records), CONTENT_KNN, AMONG_COLD, ("recall@10", "recall@20", "ndcg@10"))
    yield f"{CONTENT_KNN} by fold: {'; '.join(map(str, chosen))}"
    yield from _empty_history_lines(data, tower, configs, console)


def _empty_history_lines(
    data: Dataset, tower: TowerConfig, configs: Sequence[TrainConfig], console: Console
) -> Iterator[str]:
    split = splits(data, spec_of(tower), "last")[0]
    records = []
    for one in configs:
        console.print(f"`last`, seed {one.seed}: nothing is hidden")
        towers = trained_towers(train(data, split, tower, one, console), data)
        records.append(measure_empty_history(data, split, towers, one.seed))
    yield from _lines(merge(records))
    for targets in (EMPTY, EMPTY_UNSEEN):
        yield from _difference_lines(merge(records), POPULARITY, targets, ("recall@10",))


def _lines(record: PerQuery) -> Iterator[str]:
    for one in figures(record):
        yield (
            f"{one.system:19} {one.protocol:5} {one.targets:28} {one.name:9} {one.value:7.4f} "
            f"({one.low:.4f} to {one.high:.4f}), n {one.n}"
        )


def _difference_lines(record: PerQuery, against: str, targets: str, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        gap = paired(record, MODEL, against, name, targets)
        yield (
            f"{f'{MODEL} - {against}':19} {record.protocol:5} {targets:28} {name:9} {gap.value:+7.4f} "
            f"({gap.low:+.4f} to {gap.high:+.4f}), n {gap.n}"
        )


def build_parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.cold", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with MovieLens-format ratings and movies")
    parser.add_argument("--tower", default="pooled", help="user tower (%(default)s)")
    parser.add_argument(
        "--dimension", type=int, default=TowerConfig().dimension, help="length of vectors (%(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each fold (%(default)s)")
    parser.add_argument(
        "--folds", type=int, default=FOLDS, choices=range(1, FOLDS + 1), help="of `users` (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=0, help="at most; 0 has them chosen (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch (%(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    return run_command("cold", lambda: _print_all(run(options, Console(stderr=True))), interrupted="")


def _print_all(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
