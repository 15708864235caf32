"""What an index of a million movies finds and costs, and what filters and batches cost; in processes of their own."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import first_cores, resident_bytes
from benchmarks.million import DIMENSION, MOVIES, SMALL, K
from benchmarks.processes import ROOT
from benchmarks.report import Row
from benchmarks.work import Work, say
from marquee.bundle.format import open_bundle
from marquee.engine.kinds import IVF, IVF_FP16, IVF_SQ8

PICTURE = ROOT / "benchmarks" / "results" / "recall-latency.png"
_LARGEST = {IVF: 1.1, IVF_FP16: 0.55, IVF_SQ8: 0.3}
_LEAST = {IVF: 99.0, IVF_FP16: 99.0, IVF_SQ8: 97.0}
_FASTER = 15.0
_STARTS = 3
_DEARER = 2.0
_OF_BARE = 80.0
_VECTORS = "item tower trained on 100,000 generated events, content of invented films; queries are held-out people"


def measure(work: Work) -> list[Row]:
    """Makes a million vectors and measures everything on one core."""
    say(f"making {MOVIES:,} vectors and their indexes; minutes")
    folder, cores = work.folder / "million", first_cores(1)
    found = json.loads(work.processes.run("benchmarks.million", folder, "--picture", PICTURE, cores=cores).stdout)
    rows = [row for kind, facts in found["kinds"].items() for row in _kind(kind, facts)]
    for kind in found["kinds"]:
        ended = work.processes.run("benchmarks.million", folder, "--open", kind, cores=cores)
        rows += _opened(kind, json.loads(ended.stdout))
    rows += _filtered(f"{MOVIES:,} in {IVF_FP16}", found["filtered"], _DEARER)
    rows += _filtered(f"{SMALL:,} exactly", found["small"]["filtered"], _DEARER)
    rows += _batch(found["small"]["pairs"])
    rows += _started(work, folder)
    say(f"drew {PICTURE.relative_to(Path.cwd()) if PICTURE.is_relative_to(Path.cwd()) else PICTURE}")
    return rows


def _started(work: Work, folder: Path) -> Iterator[Row]:
    """Starts a retriever on a whole bundle of a million movies with people; its files are in the page cache."""
    say(f"writing a bundle of {MOVIES:,} movies with people; minutes")
    bundle, registry = work.folder / "million-bundle", work.folder / "million-registry"
    work.processes.run("benchmarks.millionth", folder, bundle)
    work.processes.run("marquee.bundle", "publish", bundle, "--registry", registry, "--force")
    work.processes.run("marquee.bundle", "activate", "--registry", registry, "--force", open_bundle(bundle).space)
    starts = []
    for _ in range(_STARTS):
        with work.processes.serve("services.retriever", "--registry", registry, "--log-format", "text") as server:
            starts.append((server.ready_s, resident_bytes(server.child.process.pid) or 0))
    seconds, resident = zip(*starts, strict=True)
    beside = f"median of {_STARTS}, {min(seconds):.1f} to {max(seconds):.1f} s; a director and a cast of five each"
    of = f"retriever over {MOVIES:,} movies"
    yield _row(f"{of}: process start to SERVING", statistics.median(seconds), "s", 15.0, beside)
    mapped = "with what is mapped of the bundle's files"
    yield _row(f"{of}: resident memory then", statistics.median(resident) / 1e6, "MB", None, mapped)


def _row(measured: str, value: float, unit: str, goal: float | None, beside: str, **options: Any) -> Row:
    return Row("retrieval", measured, value, unit, goal, beside, **options)


def _kind(kind: str, facts: dict[str, Any]) -> Iterator[Row]:
    of = f"{MOVIES:,} × {DIMENSION}, {kind}"
    parameters = ", ".join(f"{name} {value}" for name, value in facts["parameters"].items())
    people = f"{facts['queries']} people, tuned on as many others; {parameters}; {_VECTORS}"
    recall = 100 * facts["recall"]
    yield _row(f"recall@{K} of {of}", recall, "%", _LEAST.get(kind), people, details=facts, at_least=True)
    ours_ms, exact_ms = facts["latency_ms"], facts["exact_latency_ms"]
    beside = f"{exact_ms:.2f} ms over every vector, {ours_ms:.3f} ms by the index; one thread, medians"
    yield _row(
        f"throughput of {of}, of exact search",
        exact_ms / ours_ms,
        "×",
        _FASTER if kind in _LEAST else None,
        beside,
        at_least=True,
    )
    size = float(facts["bytes"])
    beside = f"{size / 1e6:.0f} MB"
    yield _row(
        f"file of {of}, of the float32 vectors", size / (4 * MOVIES * DIMENSION), "×", _LARGEST.get(kind), beside
    )
    yield _row(f"building {of}", facts["build_s"], "s", None, "one thread, without tuning")


def _opened(kind: str, facts: dict[str, Any]) -> Iterator[Row]:
    of = f"{MOVIES:,} × {DIMENSION}, {kind}"
    yield _row(f"opening {of}", facts["seconds"], "s", None, "a process of its own; without hashing the bundle's files")
    if facts["after"] is not None:
        more = (facts["after"] - facts["before"]) / 1e6
        beside = f"{facts['before'] / 1e6:.0f} MB before; with the pages of the mapped vectors that were read"
        yield _row(f"resident memory that {of} takes", more, "MB", None, beside)


def _filtered(of: str, found: list[dict[str, Any]], goal: float | None) -> Iterator[Row]:
    for one in found:
        beside = f"{one['ms']:.3f} ms, recall@{K} {one['recall']:.4f}; movies allowed {one['towards']}"
        measured = f"search of {of}, {100 * one['selectivity']:g} % allowed, of the unfiltered time"
        yield _row(measured, one["ratio"], "×", goal, beside, details=one)


def _batch(pairs: list[tuple[float, float, float]]) -> Iterator[Row]:
    for name, at in (("one by one", 1), ("as one batch", 2)):
        shares = [100 * pair[at] / pair[0] for pair in pairs]
        beside = f"{min(shares):.0f} to {max(shares):.0f} % in {len(shares)} pairs; {1e3 * pairs[0][0]:.1f} ms"
        measured = f"64 searches of {SMALL:,} × {DIMENSION} by the index, of bare FAISS {name}"
        yield _row(measured, statistics.median(shares), "%", _OF_BARE, beside, at_least=True, readings=shares)
