"""Chooses the index of a bundle, and tunes it against a recall target. N movies, Q queries, D dimension."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from marquee.bundle.format import INDEX, ITEM_VECTORS, Bundle
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.index import ROUNDING, Hits, Index, Quality
from marquee.engine.kinds import EXACT, HNSW, IVF_FP16, KINDS, TUNED_AT, Spec, write_index
from marquee.errors import ConfigError
from marquee.features import Floats

AUTO = "auto"
# Below so many movies, comparing every vector costs less than a call.
FEWEST_APPROXIMATE = 100_000
# Half of the queries tune, the other half measure.
QUERIES = 400
_FEWEST_PEOPLE = 40
_NOISE = 0.5


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """Says which kind of index to build, and which share of the exact nearest movies it is to find."""

    kind: str = AUTO
    recall: float = 0.99

    def __post_init__(self) -> None:
        if self.kind not in (AUTO, *KINDS):
            raise ConfigError(f"--index is {self.kind!r}; name one of {AUTO}, {', '.join(KINDS)}", field="index")
        if not 0 < self.recall <= 1:
            raise ConfigError(f"--index-recall is {self.recall}: name a share above 0, at most 1", field="index_recall")


class Sample(NamedTuple):
    """Holds queries [Q, D], and what they are: "people" or "movies"."""

    vectors_QD: Floats
    of: str


class Measured(NamedTuple):
    """Is what searches of TUNED_AT movies came to: recall with its standard error, and median seconds."""

    recall: float
    error: float
    seconds: float


class Exact(NamedTuple):
    """Holds the least score of the TUNED_AT nearest movies of each query [Q], and the median seconds of a search."""

    least: Floats
    seconds: float


def sample_queries(people_QD: Floats, vectors_ND: Floats, seed: int) -> Sample:
    """Takes people's vectors, in an order that says nothing; where there are too few, movies' with noise."""
    rng = np.random.default_rng(seed)
    if len(people_QD) >= _FEWEST_PEOPLE:
        return Sample(rng.permutation(people_QD)[:QUERIES], "people")
    near_QD = vectors_ND[rng.integers(0, len(vectors_ND), QUERIES)]
    noise_QD = rng.standard_normal(near_QD.shape) / np.sqrt(vectors_ND.shape[1])
    near_QD = near_QD + _NOISE * noise_QD
    return Sample((near_QD / np.linalg.norm(near_QD, axis=1, keepdims=True)).astype(np.float32), "movies")


def write_chosen_index(draft: Bundle, sample: Sample, config: IndexConfig) -> bundle_pb2.IndexReport:
    """Writes the index of a draft that has its vectors, and puts it into the draft's manifest.

    Of an approximate kind, the first parameters that find the target's share are taken: on half of the sample, with a
    standard error to spare. The other half is what is reported.
    """
    vectors_ND = np.asarray(draft.array(ITEM_VECTORS), np.float32)
    kind = _kind(config, len(vectors_ND))
    first, *others = _specs(kind, len(vectors_ND))
    started = time.perf_counter()
    write_index(draft.file(INDEX), vectors_ND, first)
    build_s = time.perf_counter() - started
    half = len(sample.vectors_QD) // 2
    draft.manifest.index.CopyFrom(first.message())
    exact = search_exactly(Index(draft), sample.vectors_QD)
    for spec in (first, *others):
        draft.manifest.index.CopyFrom(spec.message())
        index = Index(draft)
        if kind == EXACT or _reaches(measure(index, sample.vectors_QD[:half], exact.least[:half]), config.recall):
            break
    measured = measure(index, sample.vectors_QD[half:], exact.least[half:])
    return bundle_pb2.IndexReport(
        kind=kind,
        reason=_reason(config, spec, len(vectors_ND), measured),
        recall=measured.recall,
        recall_target=config.recall,
        at=TUNED_AT,
        queries=len(sample.vectors_QD) - half,
        queries_of=sample.of,
        latency_ms=1e3 * measured.seconds,
        exact_latency_ms=1e3 * exact.seconds,
        bytes=draft.file(INDEX).stat().st_size,
        build_s=build_s,
    )


def _kind(config: IndexConfig, movies: int) -> str:
    if config.kind != AUTO:
        return config.kind
    return EXACT if movies < FEWEST_APPROXIMATE else IVF_FP16


def _specs(kind: str, movies: int) -> list[Spec]:
    """Lists what is tried, the cheapest first; all are searches of the same file."""
    if kind == EXACT:
        return [Spec(kind, {})]
    if kind == HNSW:
        efs = _steps(TUNED_AT, max(TUNED_AT, min(movies, 4096)))
        return [Spec(kind, {"m": 16, "ef_construction": 100, "ef_search": ef}) for ef in efs]
    lists = min(movies, 2 ** round(np.log2(2 * np.sqrt(movies))))
    # With fewer, lists often hold less than is wanted, and everything is searched again.
    fewest = min(lists, math.ceil(4 * TUNED_AT * lists / movies))
    return [Spec(kind, {"nlist": lists, "nprobe": nprobe}) for nprobe in _steps(fewest, lists)]


def _steps(first: int, last: int) -> list[int]:
    """Counts up by about a fifth, and at least by one."""
    steps = [first]
    while steps[-1] < last:
        steps.append(min(last, max(steps[-1] + 1, round(1.2 * steps[-1]))))
    return steps


def _reaches(measured: Measured, target: float) -> bool:
    return measured.recall - measured.error >= target or measured.recall == 1.0


def search_exactly(index: Index, queries_QD: Floats) -> Exact:
    """Searches by comparing every vector."""
    lists, seconds = _search(index, queries_QD, Quality.EXACT)
    return Exact(np.array([hits.scores[-1] for hits in lists], np.float32), seconds)


def measure(index: Index, queries_QD: Floats, least_Q: Floats) -> Measured:
    """Searches as a service would; what scores within rounding of the least counts as found."""
    lists, seconds = _search(index, queries_QD, Quality.BALANCED)
    shares = [np.mean(hits.scores >= least - ROUNDING) for hits, least in zip(lists, least_Q, strict=True)]
    error = float(np.std(shares) / np.sqrt(len(shares)))
    return Measured(float(np.mean(shares)), error, seconds)


def _search(index: Index, queries_QD: Floats, quality: Quality) -> tuple[list[Hits], float]:
    """Searches one by one; returns what was found, and the median seconds of a search."""
    lists, seconds = [], []
    for query_D in queries_QD:
        started = time.perf_counter()
        lists.append(index.search(query_D, TUNED_AT, quality=quality))
        seconds.append(time.perf_counter() - started)
    return lists, float(np.median(seconds))


def _reason(config: IndexConfig, spec: Spec, movies: int, measured: Measured) -> str:
    if spec.kind == EXACT:
        if config.kind == EXACT:
            return "every vector is compared, as was asked for"
        return f"every vector is compared: {movies:,} movies are fewer than {FEWEST_APPROXIMATE:,}"
    parameters = ", ".join(f"{name} = {value}" for name, value in spec.parameters.items())
    asked = "as was asked for" if config.kind != AUTO else f"{movies:,} movies are {FEWEST_APPROXIMATE:,} or more"
    missed = "" if measured.recall >= config.recall else ", which misses the target"
    return (
        f"{asked}; with {parameters} it finds {measured.recall:.4f} of the {TUNED_AT} nearest movies "
        f"(target {config.recall:g}){missed}"
    )


def describe(report: bundle_pb2.IndexReport) -> str:
    """Words what was chosen, in a line."""
    return (
        f"index {report.kind}: {report.reason}; {report.latency_ms:.2f} ms a search on one thread, "
        f"{report.exact_latency_ms:.2f} ms over every vector; {report.bytes / 1e6:,.1f} MB, "
        f"built in {report.build_s:.1f} s"
    )
