"""Per-query records: what figures, slices, paired tests and merges over folds and seeds are all computed from.

Q queries, M series, K list length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import ConfigError
from marquee.features import Floats, Int64s
from training.metrics import Doubles, Paired, coverage, intervals, paired_difference

TOP = 10
COVERAGE = f"coverage@{TOP}"
# A figure of a slice is named like "recall@10|decade=1990".
SLICE = "|"


class Run(NamedTuple):
    """Names one system as trained with one seed."""

    system: str
    seed: int


class Series(NamedTuple):
    """Names one figure of one run; `targets` is "all" or "liked"."""

    system: str
    seed: int
    targets: str
    name: str


class PerQuery(NamedTuple):
    """Holds what each query of one protocol came to.

    `queries` [Q] are hashes. `values` are [Q] each, NaN where a query has no such target or was not asked; `tops` are
    the first ten items of each list [Q, 10], -1 where there is none. `movies` is the size of the catalogue.
    """

    protocol: str
    movies: int
    queries: npt.NDArray[np.uint64]
    values: dict[Series, Floats]
    tops: dict[Run, Int64s]

    def systems(self) -> list[str]:
        """Lists the systems in the order they were measured."""
        return list(dict.fromkeys(run.system for run in self.tops))

    def of_seed(self, seed: int) -> PerQuery:
        """Selects the runs of one seed."""
        values = {series: known for series, known in self.values.items() if series.seed == seed}
        return self._replace(values=values, tops={run: top for run, top in self.tops.items() if run.seed == seed})

    def mean(self, system: str, name: str, targets: str = "all") -> Floats:
        """Averages a figure over seeds, [Q]; raises ConfigError where it was not measured."""
        found = [
            values
            for key, values in self.values.items()
            if (key.system, key.targets, key.name) == (system, targets, name)
        ]
        if not found:
            raise ConfigError(f"{name} of {system!r} for {targets!r} targets was not measured; measure it first")
        return found[0] if len(found) == 1 else _mean_of(found)


def merge(records: Sequence[PerQuery]) -> PerQuery:
    """Joins records of one protocol: other folds bring other queries, other seeds and systems bring other series."""
    if len({record.protocol for record in records}) != 1:
        raise ConfigError(f"{len(records)} records are not of one protocol; merge each protocol alone")
    ascending, first = np.unique(np.concatenate([record.queries for record in records]), return_index=True)
    order = np.argsort(np.argsort(first))
    queries = np.empty_like(ascending)
    queries[order] = ascending
    values: dict[Series, Floats] = {}
    tops: dict[Run, Int64s] = {}
    for record in records:
        places = order[np.searchsorted(ascending, record.queries)]
        for series, known in record.values.items():
            values.setdefault(series, np.full(len(queries), np.nan, np.float32))[places] = known
        for run, items in record.tops.items():
            tops.setdefault(run, np.full((len(queries), TOP), -1, np.int64))[places] = items
    return PerQuery(records[0].protocol, records[0].movies, queries, values, tops)


def figures(record: PerQuery) -> list[bundle_pb2.Metric]:
    """Averages each figure over seeds and then over queries, with 95 % bootstrap intervals over queries."""
    if len(record.queries) == 0:
        return []
    names = list(dict.fromkeys((key.system, key.targets, key.name) for key in record.values))
    means_QM = np.stack([record.mean(system, name, targets) for system, targets, name in names], axis=1)
    known = np.flatnonzero(np.isfinite(means_QM).any(axis=0))
    bounds = intervals(means_QM[:, known])
    result = [_covered(record, system) for system in record.systems()]
    for place, low, high in zip(known.tolist(), *(bound.tolist() for bound in bounds), strict=True):
        system, targets, name = names[place]
        values_Q = means_QM[np.isfinite(means_QM[:, place]), place].astype(np.float64)
        metric = _metric(record, system, targets, name)
        metric.value, metric.n, metric.low, metric.high = float(values_Q.mean()), len(values_Q), low, high
        result.append(metric)
    return result


def paired(record: PerQuery, system_a: str, system_b: str, name: str, targets: str = "all") -> Paired:
    """Compares two systems on the queries that both answered, each averaged over its seeds first: a - b."""
    a_Q, b_Q = (record.mean(system, name, targets).astype(np.float64) for system in (system_a, system_b))
    return paired_difference(a_Q, b_Q)


def write_records(path: Path, record: PerQuery) -> None:
    """Writes a record as npz, without pickle."""
    with path.open("wb") as stream:
        np.savez_compressed(
            stream,
            protocol=np.array(record.protocol),
            movies=np.array(record.movies),
            queries=record.queries,
            series=np.array([tuple(map(str, key)) for key in record.values]).reshape(-1, len(Series._fields)),
            values=np.stack(list(record.values.values())) if record.values else np.zeros((0, len(record.queries))),
            runs=np.array([tuple(map(str, key)) for key in record.tops]).reshape(-1, len(Run._fields)),
            tops=np.array(list(record.tops.values()), np.int64).reshape(-1, len(record.queries), TOP),
        )


def read_records(path: Path) -> PerQuery:
    """Reads what `write_records` wrote."""
    with np.load(path) as stored:
        series = [Series(system, int(seed), *rest) for system, seed, *rest in stored["series"].tolist()]
        runs = [Run(system, int(seed)) for system, seed in stored["runs"].tolist()]
        return PerQuery(
            str(stored["protocol"]),
            int(stored["movies"]),
            stored["queries"],
            dict(zip(series, stored["values"].astype(np.float32), strict=True)),
            dict(zip(runs, stored["tops"], strict=True)),
        )


def _covered(record: PerQuery, system: str) -> bundle_pb2.Metric:
    metric = _metric(record, system, "all", COVERAGE)
    shares = [coverage(items, record.movies) for run, items in record.tops.items() if run.system == system]
    metric.value, metric.n = float(np.mean(shares)), len(record.queries)
    return metric


def _metric(record: PerQuery, system: str, targets: str, name: str) -> bundle_pb2.Metric:
    return bundle_pb2.Metric(system=system, protocol=record.protocol, targets=targets, name=name)


def _mean_of(found: Sequence[Floats]) -> Floats:
    """Averages over what is finite."""
    values = np.stack(found)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        result: Doubles = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64) / known.sum(axis=0)
    return result.astype(np.float32)
