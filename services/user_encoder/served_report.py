"""Measures the lists that were served by what their people did afterwards, beside what the bundle's report measured.

A list is joined with a person by its request id, and the person with their events by the tag that the encoder wrote. A
target is as in training: a first event on its movie, and no dislike.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marquee.bundle.format import Bundle
from marquee.bundle.gate import bootstrap_means
from marquee.bundle.registry import Registry
from marquee.bundle.v1 import bundle_pb2
from marquee.errors import BundleError, DataError, RegistryError
from services.common.served import LISTS, PEOPLE, read_rows
from services.user_encoder.event_export import read_firsts
from services.user_encoder.stores.tags import Tags

HOUR_MS = 3_600_000
# What is measured of a list; the bundle's report has figures of as much.
TOP = 10
_NO_TARGETS = frozenset({"DISLIKED", "NOT_INTERESTED"})
_QUANTILES = (0.025, 0.975)


class Served(NamedTuple):
    """Is a list that was served.

    `full`: ten movies or more were asked for. `alike`: it ought to differ from other people's, as for the metrics.
    """

    time_ms: int
    request_id: str
    bundle_id: str
    movie_ids: tuple[int, ...]
    score: float
    full: bool
    alike: bool


class Target(NamedTuple):
    """Is the first event of a person on a movie."""

    time_ms: int
    movie_id: int


class Joined(NamedTuple):
    """Holds whose a request was, "" where that is unclear, the targets of each person, and the newest event's time.

    People without events are not among those of `targets_of`.
    """

    person_of: Mapping[str, str]
    targets_of: Mapping[str, Sequence[Target]]
    until_ms: int


class Figure(NamedTuple):
    """Is a mean of n values, with its 95 % interval; NaN where nothing is known."""

    value: float
    low: float
    high: float
    n: int


class Promised(NamedTuple):
    """Is what a bundle says of itself: its movies, 0 where it is gone, and the figures of its report."""

    movies: int
    figures: Mapping[str, Figure]


def report(
    folders: Sequence[Path], events: Sequence[Path], tags: Tags, registry: Registry, window_ms: int
) -> dict[str, object]:
    """Measures the lists of some folders, bundle by bundle; an event counts up to `window_ms` after a list.

    Raises DataError where a folder or a file is not what it should be.
    """
    lists: defaultdict[str, list[Served]] = defaultdict(list)
    for one in _served(folders):
        lists[one.bundle_id].append(one)
    joined = _join(folders, events, tags)
    bundles = [measure(some, joined, _promised(registry, one), window_ms) for one, some in sorted(lists.items())]
    return {
        "window_hours": window_ms / HOUR_MS,
        "events_until_ms": joined.until_ms,
        "people": len(set(joined.person_of.values()) - {""}),
        "people_with_events": len(joined.targets_of),
        "bundles": bundles,
    }


def _served(folders: Iterable[Path]) -> Iterator[Served]:
    for folder in folders:
        for row in read_rows(folder, LISTS):
            try:
                yield _read_list(row)
            except (KeyError, TypeError, ValueError) as error:
                raise _of_another_make(folder, LISTS, error) from error


def _read_list(row: Mapping[str, Any]) -> Served:
    movie_ids, scores = row["movie_ids"], row["scores"]
    return Served(
        row["time_ms"],
        row["request_id"],
        row["bundle_id"],
        tuple(movie_ids[:TOP]),
        scores[0] if scores else math.nan,
        full=row["k"] >= TOP,
        alike=len(movie_ids) >= TOP and row["left_out"] > 0 and not row["filtered"],
    )


def _of_another_make(folder: Path, kind: str, error: Exception) -> DataError:
    return DataError(
        f"{folder}: a row of {kind} is of another make ({type(error).__name__}: {error}); remove the shards of another "
        "version"
    )


def _join(folders: Iterable[Path], events: Iterable[Path], tags: Tags) -> Joined:
    person_of: dict[str, str] = {}
    for folder in folders:
        for row in read_rows(folder, PEOPLE):
            try:
                request_id, person = row["request_id"], row["person"]
            except (KeyError, TypeError) as error:
                raise _of_another_make(folder, PEOPLE, error) from error
            # An id that requests of several people share does not say whose the list was.
            person_of[request_id] = person if person_of.get(request_id, person) == person else ""
    firsts, until_ms = read_firsts(events, lambda user_id: tags.of(user_id).hex(), set(person_of.values()) - {""})
    targets = {person: _targets(movies) for person, movies in firsts.items()}
    return Joined(person_of, targets, until_ms)


def _targets(firsts: Mapping[int, tuple[int, str]]) -> list[Target]:
    return [Target(time_ms, movie_id) for movie_id, (time_ms, kind) in firsts.items() if kind not in _NO_TARGETS]


def _promised(registry: Registry, bundle_id: str) -> Promised:
    try:
        manifest = registry.manifest(bundle_id)
        metrics = Bundle(registry.bundle_path(bundle_id), bundle_id, manifest).report().metrics
    except (BundleError, RegistryError):
        # The bundle may have gone since: its lists are measured all the same.
        return Promised(0, {})
    return Promised(manifest.movies, {one.name: _of_metric(one) for one in metrics if _is_the_models(one)})


def _is_the_models(metric: bundle_pb2.Metric) -> bool:
    return (metric.system, metric.targets) == ("model", "all")


def _of_metric(metric: bundle_pb2.Metric) -> Figure:
    low = metric.low if metric.HasField("low") else math.nan
    high = metric.high if metric.HasField("high") else math.nan
    return Figure(metric.value, low, high, metric.n)


def measure(lists: Sequence[Served], joined: Joined, promised: Promised, window_ms: int) -> dict[str, object]:
    """Measures the lists of one bundle."""
    counts, recalls = _recalls(lists, joined, window_ms)
    score = figure([one.score for one in lists if one.alike])
    shown = {movie_id for one in lists for movie_id in one.movie_ids}
    coverage = Figure(len(shown) / promised.movies if promised.movies else math.nan, math.nan, math.nan, len(lists))
    measured = {
        f"recall@{TOP}": figure(recalls),
        f"distinct_lists@{TOP}": figure(_distinctness(lists, joined.person_of)),
        f"coverage@{TOP}": coverage,
        "score@1": score,
    }
    return {
        "bundle_id": lists[0].bundle_id,
        "movies": promised.movies or None,
        "lists": len(lists),
        **counts,
        "figures": {name: _beside(one, promised.figures.get(name)) for name, one in measured.items()},
        "score_drift": _written(_difference(score, promised.figures.get("score@1"))),
    }


def _recalls(lists: Sequence[Served], joined: Joined, window_ms: int) -> tuple[dict[str, int], list[float]]:
    """Says what became of the lists, and gives the mean recall of each person.

    A mean a person, and not a list: lists of one person are alike, and would make the interval too narrow.
    """
    became: Counter[str] = Counter()
    recalls: defaultdict[str, list[float]] = defaultdict(list)
    for one in lists:
        person = joined.person_of.get(one.request_id, "")
        targets = _targets_of(one, joined.targets_of.get(person, ()), window_ms)
        fate = _fate(one, person, targets, joined.until_ms - window_ms)
        became[fate] += 1
        if fate == "measured":
            recalls[person].append(len(targets & set(one.movie_ids)) / min(TOP, len(targets)))
    counts = {name: became[name] for name in ("measured", "short", "unknown_person", "too_young", "nothing_followed")}
    return counts, [sum(some) / len(some) for some in recalls.values()]


def _targets_of(one: Served, targets: Iterable[Target], window_ms: int) -> set[int]:
    return {target.movie_id for target in targets if one.time_ms < target.time_ms <= one.time_ms + window_ms}


def _fate(one: Served, person: str, targets: set[int], newest_ms: int) -> str:
    """Names why a list says nothing of recall, or "measured"."""
    if not one.full:
        return "short"
    if not person:
        return "unknown_person"
    if one.time_ms > newest_ms:
        return "too_young"
    return "measured" if targets else "nothing_followed"


def _distinctness(lists: Iterable[Served], person_of: Mapping[str, str]) -> list[float]:
    """Gives 1 over the number of people with the same list, of each person's last one: the mean is the share."""
    last = {person_of.get(one.request_id) or one.request_id: frozenset(one.movie_ids) for one in lists if one.alike}
    shared = Counter(last.values())
    return [1.0 / shared[one] for one in last.values()]


def figure(values: Sequence[float]) -> Figure:
    """Takes the mean, with its interval by a bootstrap of fixed seed."""
    if not values:
        return Figure(math.nan, math.nan, math.nan, 0)
    values_N = np.array(values, np.float64)
    low, high = np.quantile(bootstrap_means(values_N), _QUANTILES)
    return Figure(float(values_N.mean()), float(low), float(high), len(values))


def _difference(served: Figure, promised: Figure | None) -> Figure:
    """Subtracts what was promised; the two were measured apart, so their errors add as squares."""
    if promised is None:
        return Figure(math.nan, math.nan, math.nan, served.n)
    value = served.value - promised.value
    below = math.hypot(served.value - served.low, promised.high - promised.value)
    above = math.hypot(served.high - served.value, promised.value - promised.low)
    return Figure(value, value - below, value + above, served.n)


def _beside(served: Figure, promised: Figure | None) -> dict[str, object]:
    return _written(served) | {"report": None if promised is None else _written(promised)}


def _written(figure: Figure) -> dict[str, object]:
    """Writes a figure for JSON, which has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in figure._asdict().items()}
