"""Indexes over a million movies, measured in this process: `python -m benchmarks.million DIR` prints JSON.

The vectors are a trained item tower's: a small pooled tower is trained on generated events of other, fewer movies, and
embeds a million invented films from their content, each with the id half of some trained movie. Queries are held-out
people of the same training through its user tower. `--open KIND` opens an index that is there, and does no more.

Letters in array names: N movies, Q queries, D dimension, T content tokens.
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

import faiss
import numpy as np
from rich.console import Console

from benchmarks.machine import resident_bytes
from marquee.bundle import format
from marquee.bundle.format import Bundle
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.encoder import Encoder, ItemTower
from marquee.engine.index import ROUNDING, Index, Mask, use_blas_threads
from marquee.engine.kinds import EXACT, HNSW, IVF, IVF_FP16, IVF_SQ8, Spec, read_spec, write_index
from marquee.features import Floats, content_ids
from marquee.movies import MovieRecord
from training.config import TrainConfig
from training.data import load_dataset
from training.evaluate import query_vectors
from training.export import export_towers, history_table
from training.generate import write_generated
from training.generate.films import invent_films
from training.generate.process import Process, build_world
from training.indexing import IndexConfig, Sample, measure, search_exactly, write_chosen_index
from training.model import TowerConfig
from training.split import splits
from training.train import spec_of, train

MOVIES, DIMENSION, K = 1_000_000, 64, 100
SMALL = 9_724
KINDS = (IVF, IVF_FP16, IVF_SQ8, HNSW)
# What is turned for a curve: lists that are compared, or candidates that a walk keeps.
_LISTS = ("nprobe", (4, 8, 16, 32, 64, 128, 256))
_SWEEPS = dict.fromkeys(KINDS, _LISTS) | {HNSW: ("ef_search", (100, 150, 200, 300, 400, 600, 800))}
SELECTIVITIES = (1.0, 0.5, 0.1, 0.03, 0.01, 0.001, 0.0001)
TOWARDS = {"random": 0.0, "near the query": 20.0, "far from it": -20.0}
_QUERIES, _FILTERED = 300, 8
_SEED = 5
_PART = 20_000
_BATCH = 64


class Made(NamedTuple):
    """Holds the vectors of movies and of people."""

    vectors_ND: Floats
    queries_QD: Floats


def make_vectors(folder: Path, movies: int = MOVIES, dimension: int = DIMENSION, epochs: int = 2) -> Made:
    """Trains a small tower, and embeds so many invented films and some held-out people with it."""
    generated = folder / "generated"
    write_generated(generated, people=2000, movies=2500, events=100_000, seed=_SEED)
    data, tower = load_dataset(generated), TowerConfig(dimension=dimension)
    split = splits(data, spec_of(tower), "last")[0]
    trained = train(data, split, tower, TrainConfig(epochs=epochs), Console(stderr=True))
    table_ND = history_table(trained)
    draft = Bundle(folder, "", bundle_pb2.Manifest(features=trained.spec, tower=bundle_pb2.TowerSpec(kind=tower.kind)))
    export_towers(trained, folder)
    np.save(draft.file(format.HISTORY_IDS), data.movie_ids.astype(np.int64))
    np.save(draft.file(format.HISTORY_TABLE), table_ND)
    np.save(draft.file(format.MOVIE_IDS), data.movie_ids.astype(np.int64))
    item_tower = ItemTower(draft)
    np.save(draft.file(format.ITEM_VECTORS), item_tower.embed(table_ND, trained.content_NT))
    queries_QD = query_vectors(data, split.test.sample(_QUERIES), Encoder(draft))
    own_ND = table_ND - item_tower.content_rows(trained.content_NT, dimension)
    return Made(_embed(item_tower, own_ND, films(movies), trained.spec), queries_QD)


def films(movies: int = MOVIES) -> list[MovieRecord]:
    """Invents films: titles, years and genres."""
    invented = invent_films(build_world(Process(), movies, _SEED), _SEED)
    # Titles end in the year: Silent Harbour 17 (1994).
    return [
        MovieRecord(movie_id, title[:-7], int(title[-5:-1]), tuple(genres.split("|")))
        for movie_id, title, genres in zip(invented.movie_ids.tolist(), invented.titles, invented.genres, strict=True)
    ]


def _embed(item_tower: ItemTower, own_ND: Floats, movies: list[MovieRecord], spec: bundle_pb2.FeatureSpec) -> Floats:
    rng, parts = np.random.default_rng(_SEED), []
    for start in range(0, len(movies), _PART):
        content_NT = content_ids(movies[start : start + _PART], spec)
        rows_ND = item_tower.content_rows(content_NT, own_ND.shape[1]) + rng.choice(own_ND, len(content_NT))
        parts.append(item_tower.embed(rows_ND, content_NT))
    return np.concatenate(parts)


def draft_of(folder: Path, spec: Spec | None = None, dimension: int = DIMENSION) -> Bundle:
    """Names what there is of a bundle in a folder: the vectors, and maybe the index."""
    features = bundle_pb2.FeatureSpec(dimension=dimension)
    return Bundle(folder, "", bundle_pb2.Manifest(features=features, index=spec.message() if spec else None))


def read_chosen(folder: Path) -> Spec:
    """Reads the kind and the parameters that were chosen for the index in a folder."""
    return Spec(*json.loads((folder / "spec.json").read_text()))


def write_draft(folder: Path, vectors_ND: Floats) -> Bundle:
    """Writes vectors as a bundle has them."""
    folder.mkdir()
    np.save(folder / format.MOVIE_IDS, np.arange(1, len(vectors_ND) + 1))
    np.save(folder / format.ITEM_VECTORS, vectors_ND)
    return draft_of(folder, dimension=vectors_ND.shape[1])


def measure_kind(draft: Bundle, kind: str, made: Made) -> dict[str, Any]:
    """Builds an index of a kind, tunes it and sweeps how much it looks at."""
    report = write_chosen_index(draft, Sample(made.queries_QD, "people"), IndexConfig(kind))
    spec = read_spec(draft.manifest.index, draft.path)
    (draft.path / "spec.json").write_text(json.dumps(spec))
    few = made.queries_QD[:100]
    least = search_exactly(Index(draft), few).least
    parameter, values = _SWEEPS[kind]
    curve = []
    for value in values:
        draft.manifest.index.CopyFrom(spec._replace(parameters=spec.parameters | {parameter: value}).message())
        found = measure(Index(draft), few, least)
        curve.append((value, found.recall, 1e3 * found.seconds))
    draft.manifest.index.CopyFrom(spec.message())
    facts = {field.name: value for field, value in report.ListFields()}
    return facts | {"parameters": spec.parameters, "curve": curve}


def measure_filtered(index: Index, queries_QD: Floats, vectors_ND: Floats) -> list[dict[str, Any]]:
    """Searches under masks of every selectivity; ratios are to the unfiltered search of the same query."""
    found = []
    for name, towards in TOWARDS.items():
        for selectivity in SELECTIVITIES:
            rng, cases = np.random.default_rng(_SEED), []
            for query_D in queries_QD[:_FILTERED]:
                mask_N = _mask(rng, vectors_ND @ query_D, selectivity, towards)
                cases.append(_case(index, query_D, mask_N, vectors_ND))
            ratios, milliseconds, recalls = zip(*cases, strict=True)
            figures = {"ratio": np.median(ratios), "ms": np.median(milliseconds), "recall": np.mean(recalls)}
            numbers = {figure: float(value) for figure, value in figures.items()}
            found.append({"towards": name, "selectivity": selectivity} | numbers)
    return found


def _mask(rng: np.random.Generator, cosines_N: Floats, selectivity: float, towards: float) -> Mask:
    """Allows movies at random, or the more likely the nearer to the query or the farther from it."""
    count = max(1, round(selectivity * len(cosines_N)))
    mask_N = np.ones(len(cosines_N), bool)
    lot_N = towards * cosines_N + rng.gumbel(size=len(cosines_N)).astype(np.float32)
    mask_N[np.argpartition(lot_N, len(lot_N) - count)[: len(lot_N) - count]] = False
    return mask_N


def _case(index: Index, query_D: Floats, mask_N: Mask, vectors_ND: Floats) -> tuple[float, float, float]:
    rows = np.flatnonzero(mask_N)
    truth = np.sort(vectors_ND[rows] @ query_D)[-K:]
    hits = index.search(query_D, K, mask_N)
    recall = float(np.count_nonzero(hits.scores >= truth[0] - ROUNDING)) / len(truth)
    free_s = _best(lambda: index.search(query_D, K))
    filtered_s = _best(lambda: index.search(query_D, K, mask_N))
    return filtered_s / free_s, 1e3 * filtered_s, recall


def _best(call: Callable[[], object], times: int = 5) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def measure_batch(folder: Path, made: Made) -> dict[str, Any]:
    """Runs 64 queries as BatchSearch does, and through FAISS alone, one by one and together."""
    vectors_ND = made.vectors_ND[:SMALL]
    draft = write_draft(folder, vectors_ND)
    write_index(draft.file(format.INDEX), vectors_ND)
    draft.manifest.index.CopyFrom(Spec(EXACT, {}).message())
    index, bare = Index(draft), faiss.read_index(str(draft.file(format.INDEX)))
    queries_QD = np.ascontiguousarray(made.queries_QD[:_BATCH])
    pairs = []
    for _ in range(7):
        ours_s = _best(lambda: _together(index, queries_QD))
        single_s = _best(lambda: [bare.search(query_D[None], K) for query_D in queries_QD])
        together_s = _best(lambda: bare.search(queries_QD, K))
        pairs.append((ours_s, single_s, together_s))
    filtered = measure_filtered(index, queries_QD, vectors_ND)
    return {"pairs": pairs, "filtered": filtered}


def _together(index: Index, queries_QD: Floats) -> None:
    for start in range(0, len(queries_QD), index.together):
        some_QD = queries_QD[start : start + index.together]
        index.search_many(some_QD, [K] * len(some_QD), [None] * len(some_QD))


def draw(path: Path, kinds: dict[str, dict[str, Any]]) -> None:
    """Draws recall against latency, a line a kind."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for kind, facts in kinds.items():
        values, recalls, milliseconds = zip(*facts["curve"], strict=True)
        axes.plot(milliseconds, recalls, marker="o", label=f"{kind} ({_SWEEPS[kind][0]})")
        for value, recall, at in zip(values, recalls, milliseconds, strict=True):
            axes.annotate(str(value), (at, recall), textcoords="offset points", xytext=(4, -10), fontsize=7)
    exact_ms = next(iter(kinds.values()))["exact_latency_ms"]
    axes.axvline(exact_ms, color="grey", linestyle=":", label="every vector")
    axes.set(
        xscale="log",
        xlabel="milliseconds a search, one thread",
        ylabel=f"recall@{K}",
        title=f"{MOVIES:,} × {DIMENSION}; points are what the parameter in brackets is",
    )
    axes.legend()
    figure.savefig(path, dpi=120)


def opened(folder: Path) -> dict[str, Any]:
    """Opens an index as a service does, and searches once."""
    draft = draft_of(folder, read_chosen(folder))
    before = resident_bytes(os.getpid())
    started = time.perf_counter()
    index = Index(draft)
    seconds = time.perf_counter() - started
    index.search(index.vectors(np.array([1]))[0], K)
    return {"seconds": seconds, "before": before, "after": resident_bytes(os.getpid())}


def run(folder: Path, picture: Path) -> dict[str, Any]:
    """Makes everything and measures it."""
    folder.mkdir()
    made = make_vectors(folder)
    # As the retriever does when it starts.
    use_blas_threads(1)
    kinds = {kind: measure_kind(write_draft(folder / kind, made.vectors_ND), kind, made) for kind in KINDS}
    draw(picture, kinds)
    chosen = draft_of(folder / IVF_FP16, read_chosen(folder / IVF_FP16))
    filtered = measure_filtered(Index(chosen), made.queries_QD, made.vectors_ND)
    return {"kinds": kinds, "filtered": filtered, "small": measure_batch(folder / "small", made)}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to make everything in; it must not be there yet")
    parser.add_argument("--picture", type=Path, default=Path("recall-latency.png"), help="PNG to draw (%(default)s)")
    parser.add_argument("--open", choices=KINDS, help="open the index of this kind that is in the folder")
    options = parser.parse_args(arguments)
    print(json.dumps(opened(options.folder / options.open) if options.open else run(options.folder, options.picture)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
