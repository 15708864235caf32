"""Turns the results of runs into the study that the page shows. N movies, D dimension."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import DataError
from training.choice import Score, best_tower
from training.data import Dataset
from training.model import TowerConfig
from training.records import SLICE, PerQuery, Run, figures, merge, paired
from training.report import exhibits
from training.report.plan import BASELINES, TOWERS, Order, Scope, orders
from training.report.results import Result, read_about, read_result
from training.report.study import (
    Choice,
    Curve,
    Difference,
    MovieMap,
    Neighbours,
    Origin,
    Sample,
    SeedMean,
    Slice,
    Study,
)
from training.split import splits
from training.train import spec_of

PAIRED = {"last": ("recall@10", "ndcg@10"), "users": ("recall@20", "ndcg@100"), "time": ("recall@10", "ndcg@10")}
_SLICES = {
    "history": "length of the history",
    "popularity": "popularity tenth of the target",
    "decade": "decade of the target",
    "cold": "whether the target is cold",
}


def gather(runs: Path, scope: Scope, data: Dataset, command: str) -> Study:
    """Reads the results that are there; raises DataError where there is none.

    Where a run was made by several versions of the code, the latest counts, and the page names the versions.
    """
    places = _places(runs, scope, data.fingerprint)
    results = [read_result(place) for place in places.values()]
    towers = [result for result in results if result.about.order.system != BASELINES]
    if not towers:
        raise DataError(f"{runs}: holds no run of a tower on {data.name}; run the command without --page-only")
    records = _records(results)
    choice = _choose(towers)
    shown = _figures(records)
    first = next((one for one in towers if one.vectors_ND is not None and one.about.order.system == choice.tower), None)
    return Study(
        origin=_origin(data, results, command, scope),
        figures=[one for one in shown if SLICE not in one.name],
        seeds=list(_seed_means(records.values())),
        differences=list(_differences(records)),
        choice=choice,
        curves=_curves(towers),
        slices=[one for figure in shown if SLICE in figure.name and figure.targets == "all" for one in _slice(figure)],
        map=_map(first, data),
        neighbours=_neighbours(first, data),
        samples=_samples(records.get("last"), choice.tower, data),
        settings=_settings(results),
        timings_s=_timings(results),
        ann=[one for result in towers if result.about.order.seed == 0 for one in result.about.ann],
    )


def _places(runs: Path, scope: Scope, fingerprint: str) -> dict[Order, Path]:
    """Finds the latest result of each run of the scope on this data."""
    found: dict[Order, tuple[str, Path]] = {}
    for place in sorted(runs.glob("*-*")):
        about = read_about(place)
        latest = found.get(about.order, ("", place))[0]
        if about.fingerprint == fingerprint and about.finished_at >= latest:
            found[about.order] = about.finished_at, place
    return {order: found[order][1] for order in orders(scope) if order in found}


def _records(results: Sequence[Result]) -> dict[str, PerQuery]:
    """Joins folds, seeds and systems of each protocol; towers come first, then baselines in their order."""
    ordered = sorted(results, key=lambda result: result.about.order.system == BASELINES)
    by_protocol: dict[str, list[PerQuery]] = {}
    for result in ordered:
        by_protocol.setdefault(result.record.protocol, []).append(result.record)
    return {protocol: merge(records) for protocol, records in by_protocol.items()}


def _figures(records: dict[str, PerQuery]) -> list[bundle_pb2.Metric]:
    return [figure for record in records.values() for figure in figures(record)]


def _seed_means(records: Iterable[PerQuery]) -> Iterator[SeedMean]:
    for record in records:
        for series, values in record.values.items():
            if series.system in TOWERS and SLICE not in series.name and np.isfinite(values).any():
                value = float(np.nanmean(values))
                yield SeedMean(series.system, series.seed, record.protocol, series.targets, series.name, value)


def _differences(records: dict[str, PerQuery]) -> Iterator[Difference]:
    for protocol, record in records.items():
        systems = record.systems()
        towers = [system for system in systems if system in TOWERS]
        pairs = [(tower, other) for tower in towers for other in systems if other not in TOWERS]
        pairs += [(towers[-1], towers[0])] if len(towers) > 1 else []
        for targets in ("all", "liked"):
            for name in PAIRED[protocol]:
                for system, against in pairs:
                    found = paired(record, system, against, name, targets)
                    yield Difference(system, against, protocol, targets, name, *found)


def _choose(towers: Sequence[Result]) -> Choice:
    """Chooses as `--tower auto` does, by means over seeds on the protocol that is shipped, or on the first there is."""
    protocols = [result.about.order.protocol for result in towers]
    protocol = "last" if "last" in protocols else protocols[0]
    found: dict[str, list[Score]] = {}
    for tower in TOWERS:
        abouts = [
            one.about for one in towers if (one.about.order.protocol, one.about.order.system) == (protocol, tower)
        ]
        if abouts:
            found[tower] = [Score(one.validation[tower], one.passes[one.best].liked_ndcg_at_10) for one in abouts]
    scores = {tower: Score._make(np.mean(each, axis=0).tolist()) for tower, each in found.items()}
    best, reason = best_tower(scores)
    return Choice(
        best,
        f"the mean over seeds of NDCG@10 on validation, {protocol}: {reason}",
        {tower: score.on_all for tower, score in scores.items()},
        {tower: score.on_liked for tower, score in scores.items()},
    )


def _curves(towers: Sequence[Result]) -> list[Curve]:
    abouts = [result.about for result in towers if result.about.order.protocol == "last"]
    return [Curve(one.order.system, one.order.seed, one.passes, one.best) for one in abouts]


def _slice(figure: bundle_pb2.Metric) -> Iterator[Slice]:
    name, _, part = figure.name.partition(SLICE)
    by, _, label = part.partition("=")
    plain = bundle_pb2.Metric()
    plain.CopyFrom(figure)
    plain.name = name
    yield Slice(_SLICES.get(by, by), slice_label(by, label), plain)


def slice_label(by: str, label: str) -> str:
    """Writes a slice's label for people: 001-010 as 1–10, 1990 as 1990s, 01 as 1."""
    if by == "history":
        low, _, high = label.rstrip("+").partition("-")
        return f"{int(low)}–{int(high)}" if high else f"from {int(low)}"
    if by == "decade" and label.isdigit():
        return f"{label}s"
    return {"yes": "cold", "no": "seen in training"}.get(label, label.lstrip("0"))


def _map(result: Result | None, data: Dataset) -> MovieMap | None:
    if result is None or result.vectors_ND is None:
        return None
    return exhibits.movie_map(result.about.order.system, result.vectors_ND, data.movies)


def _neighbours(result: Result | None, data: Dataset) -> list[Neighbours]:
    if result is None or result.vectors_ND is None:
        return []
    return exhibits.neighbours(result.vectors_ND, data.movies)


def _samples(record: PerQuery | None, tower: str, data: Dataset) -> list[Sample]:
    if record is None:
        return []
    queries = splits(data, spec_of(TowerConfig()), "last")[0].test
    hashes = queries.hashes(data.user_ids, data.movie_ids)
    place = {name: row for row, name in enumerate(record.queries.tolist())}
    rows_Q = np.array([place.get(name, -1) for name in hashes.tolist()], np.int64)
    measured = np.flatnonzero(rows_Q >= 0).astype(np.int64)
    rows = rows_Q[measured]
    lists = {
        system: record.tops[Run(system, 0)][rows]
        for system in (tower, "ease", "popularity")
        if Run(system, 0) in record.tops
    }
    return exhibits.samples(queries.take(measured), hashes[measured], lists, data.movies)


def _settings(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Shows a tower's configuration of its first run, and a baseline's by protocol, of the first fold."""
    settings: dict[str, dict[str, Any]] = {}
    for result in results:
        order = result.about.order
        for system, chosen in result.about.settings.items():
            if system in TOWERS:
                settings.setdefault(system, chosen)
            elif order.fold == 0:
                settings.setdefault(system, {})[order.protocol] = chosen or "nothing to choose"
    return settings


def _timings(results: Sequence[Result]) -> dict[str, float]:
    """Adds up each part over folds and seeds."""
    total: dict[str, float] = {}
    for result in results:
        order = result.about.order
        for part, seconds in result.about.timings_s.items():
            key = f"{order.protocol}, {order.system}: {part}"
            total[key] = total.get(key, 0.0) + seconds
    return total


def _origin(data: Dataset, results: Sequence[Result], command: str, scope: Scope) -> Origin:
    abouts = [result.about for result in results]
    planned, made = orders(scope), [about.order for about in abouts]
    missing = [order.name for order in planned if order not in made]
    notes = [f"{len(missing)} of {len(planned)} runs are missing: {', '.join(missing)}"] if missing else []
    notes += (
        ["Quick runs, of few passes, one seed and one fold: they show the page and judge nothing."]
        if scope.quick
        else []
    )
    return Origin(
        dataset=data.summary(),
        period=f"{_date(data.times_ms.min())} to {_date(data.times_ms.max())}",
        seeds=sorted({order.seed for order in made}),
        versions=abouts[0].versions,
        machine="; ".join(dict.fromkeys(about.machine for about in abouts)),
        created_at=max(about.finished_at for about in abouts),
        command=command,
        code=list(dict.fromkeys(about.code for about in abouts)),
        notes=list(dict.fromkeys([*notes, *(note for about in abouts for note in about.notes)])),
    )


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(int(time_ms) / 1000, UTC).date().isoformat()
