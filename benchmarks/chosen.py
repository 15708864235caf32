"""The index that the export chooses, and bare FAISS on its file: `python -m benchmarks.chosen ACTION FOLDER`.

`make` makes vectors and people's queries as `benchmarks.million` does; `build` builds and tunes an index over the
first so many of them; `search` and `pairs` measure it, on one thread. Each prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.million import draft_of, make_vectors, read_chosen, write_draft
from benchmarks.sweeping import QUERIES, VECTORS, K, Search, opened, sweep
from marquee.bundle import format
from marquee.engine.engines import FaissIndex
from marquee.engine.index import Index, use_threads
from marquee.engine.kinds import EXACT, HNSW, Spec, read_spec
from marquee.features import Floats
from training.indexing import IndexConfig, Sample, write_chosen_index

OURS, BARE, HALF = "Marquee", "bare FAISS", "bare FAISS f16"
_TURNED = {HNSW: ("ef_search", (100, 150, 200, 300, 400, 600, 800))}
_LISTS = ("nprobe", (4, 8, 16, 32, 64, 128, 256))
PAIRS, _ROUNDS = 7, 4


def make(folder: Path, movies: int) -> dict[str, Any]:
    """Makes vectors and queries; tells how many."""
    folder.mkdir()
    made = make_vectors(folder, movies)
    np.save(folder / VECTORS, made.vectors_ND)
    np.save(folder / QUERIES, made.queries_QD)
    return {"movies": len(made.vectors_ND), "queries": len(made.queries_QD)}


def build(made: Path, folder: Path, movies: int) -> dict[str, Any]:
    """Builds what the export chooses over the first so many vectors; half of the queries tune, the rest are kept."""
    vectors_ND, queries_QD = np.load(made / VECTORS)[:movies], np.load(made / QUERIES)
    draft = write_draft(folder, vectors_ND)
    report = write_chosen_index(draft, Sample(queries_QD, "people"), IndexConfig())
    np.save(folder / QUERIES, queries_QD[len(queries_QD) // 2 :])
    spec = read_spec(draft.manifest.index, folder)
    (folder / "spec.json").write_text(json.dumps(spec))
    return {field.name: value for field, value in report.ListFields()} | {"parameters": spec.parameters}


def systems(spec: Spec) -> tuple[str, ...]:
    """Names what is measured: FAISS in half precision as well, where the engine scans such a copy."""
    return (OURS, BARE, HALF) if spec.kind == EXACT else (OURS, BARE)


def chosen_value(spec: Spec) -> int:
    """Tells what the turned parameter was tuned to; 0 where nothing is turned."""
    return spec.parameters[_turned(spec)[0]] if spec.kind != EXACT else 0


def search(name: str, folder: Path) -> dict[str, Any]:
    """Opens the index in one of the ways and searches it, turning what its kind turns."""
    spec = read_chosen(folder)
    chosen = chosen_value(spec)
    turn, facts = opened(partial(_OPENED[name], folder, spec), chosen, folder)
    return facts | {"points": sweep(turn, _values(spec, chosen), folder, name)}


def _turned(spec: Spec) -> tuple[str, tuple[int, ...]]:
    return _TURNED.get(spec.kind, _LISTS)


def _values(spec: Spec, chosen: int) -> Sequence[int]:
    if spec.kind == EXACT:
        return (chosen,)
    most = spec.parameters.get("nlist", max(_turned(spec)[1]))
    return sorted({chosen, *(value for value in _turned(spec)[1] if value <= most)})


def _open_ours(folder: Path, spec: Spec) -> Callable[[int], Search]:
    first = Index(draft_of(folder, spec))

    def turn(value: int) -> Search:
        index = first
        if value != chosen_value(spec):
            index = Index(draft_of(folder, spec._replace(parameters=spec.parameters | {_turned(spec)[0]: value})))
        # Row i is movie i + 1.
        return lambda query_D: index.search(query_D, K).movie_ids - 1

    return turn


def _open_bare(folder: Path, spec: Spec) -> Callable[[int], Search]:
    index = _bare(folder)

    def turn(value: int) -> Search:
        if spec.kind == HNSW:
            index.hnsw.efSearch = value
        elif spec.kind != EXACT:
            index.nprobe = value
        return lambda query_D: index.search(query_D[None], K)[1][0]

    return turn


def _open_half(folder: Path, _: Spec) -> Callable[[int], Search]:
    index = _half(folder)
    return lambda value: lambda query_D: index.search(query_D[None], K)[1][0]


def _bare(folder: Path) -> FaissIndex:
    use_threads(1)
    return faiss.read_index(str(folder / format.INDEX))


def _half(folder: Path) -> FaissIndex:
    """Makes the copy that our engine scans where every vector is compared."""
    use_threads(1)
    vectors_ND = np.load(folder / VECTORS)
    index: FaissIndex = faiss.IndexScalarQuantizer(
        vectors_ND.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.add(vectors_ND)
    return index


_OPENED: dict[str, Callable[[Path, Spec], Callable[[int], Search]]] = {
    OURS: _open_ours,
    BARE: _open_bare,
    HALF: _open_half,
}


def pairs(folder: Path) -> dict[str, Any]:
    """Searches by our index and by each bare one in turn, as tuned; the seconds of a search, a list for each round."""
    spec = read_chosen(folder)
    queries_QD = np.load(folder / QUERIES)
    index = Index(draft_of(folder, spec))
    searches: dict[str, Callable[[Floats], object]] = {OURS: lambda query_D: index.search(query_D, K)}
    for name in systems(spec)[1:]:
        searches[name] = _OPENED[name](folder, spec)(chosen_value(spec))
    for one in searches.values():
        _block(one, queries_QD)
    rounds = [[_block(one, queries_QD) for one in searches.values()] for _ in range(PAIRS)]
    return {"systems": list(searches), "rounds": rounds}


def _block(search_one: Callable[[Floats], object], queries_QD: Floats) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        for query_D in queries_QD:
            started = time.perf_counter()
            search_one(query_D)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chosen", description=__doc__, allow_abbrev=False)
    parser.add_argument("action", choices=("make", "build", "search", "pairs"), help="what to do")
    parser.add_argument("folder", type=Path, help="folder to fill, or that was filled")
    parser.add_argument("--movies", type=int, default=0, help="how many vectors to make, or to build over")
    parser.add_argument("--made", type=Path, help="folder that `make` filled, for `build`")
    parser.add_argument("--system", choices=_OPENED, default=OURS, help="how to open the index (%(default)s)")
    options = parser.parse_args(arguments)
    run: dict[str, Callable[[], dict[str, Any]]] = {
        "make": lambda: make(options.folder, options.movies),
        "build": lambda: build(options.made, options.folder, options.movies),
        "search": lambda: search(options.system, options.folder),
        "pairs": lambda: pairs(options.folder),
    }
    print(json.dumps(run[options.action]()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
