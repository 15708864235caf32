"""hnswlib and usearch, each in a process of its own: `python -m benchmarks.graphs build|search NAME FOLDER`.

Runs in the environment that `benchmarks.peers_retrieval` makes for them, which has NumPy and the two libraries. Builds
an index over item_vectors.npy of the folder, or searches it with queries.npy, and prints JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.sweeping import QUERIES, VECTORS, K, Search, opened, sweep

# hnswlib's own defaults, and usearch's but for 128 candidates while building.
M, EF_CONSTRUCTION = 16, 200
VALUES = (100, 130, 170, 220, 300, 400, 600, 900, 1400)
_TYPICAL = 300

Floats = npt.NDArray[np.float32]


class Graph(Protocol):
    """Is a library with its way to build, save and open a graph of neighbours."""

    def build(self, vectors_ND: Floats, path: Path) -> None:
        """Builds on one thread, and saves."""

    def open(self, dimension: int, path: Path) -> Callable[[int], Search]:
        """Opens into memory; returns what makes a search that keeps so many candidates."""


class Hnswlib:
    """Runs hnswlib over float32."""

    def build(self, vectors_ND: Floats, path: Path) -> None:
        """Builds on one thread, and saves."""
        import hnswlib

        index = hnswlib.Index(space="ip", dim=vectors_ND.shape[1])
        index.init_index(max_elements=len(vectors_ND), M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
        index.add_items(vectors_ND, num_threads=1)
        index.save_index(str(path))

    def open(self, dimension: int, path: Path) -> Callable[[int], Search]:
        """Opens into memory; returns what makes a search that keeps so many candidates."""
        import hnswlib

        index = hnswlib.Index(space="ip", dim=dimension)
        index.load_index(str(path))

        def turn(ef: int) -> Search:
            index.set_ef(ef)
            return lambda query_D: index.knn_query(query_D[None], k=K, num_threads=1)[0][0].astype(np.int64)

        return turn


class Usearch:
    """Runs usearch over numbers of one kind: "f32" or "f16"."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def _index(self, dimension: int) -> Any:
        from usearch.index import Index

        return Index(ndim=dimension, metric="ip", dtype=self._kind, connectivity=M, expansion_add=EF_CONSTRUCTION)

    def build(self, vectors_ND: Floats, path: Path) -> None:
        """Builds on one thread, and saves."""
        index = self._index(vectors_ND.shape[1])
        index.add(np.arange(len(vectors_ND), dtype=np.uint64), vectors_ND, threads=1)
        index.save(str(path))

    def open(self, dimension: int, path: Path) -> Callable[[int], Search]:
        """Opens into memory; returns what makes a search that keeps so many candidates."""
        index = self._index(dimension)
        index.load(str(path))

        def turn(expansion: int) -> Search:
            index.expansion_search = expansion
            return lambda query_D: index.search(query_D, K, threads=1).keys.astype(np.int64)

        return turn


GRAPHS: dict[str, Graph] = {"hnswlib": Hnswlib(), "usearch f32": Usearch("f32"), "usearch f16": Usearch("f16")}


def build(name: str, folder: Path) -> dict[str, Any]:
    """Builds and saves an index; says how long it took and how large it is."""
    vectors_ND = np.load(folder / VECTORS)
    path = _file(name, folder)
    started = time.perf_counter()
    GRAPHS[name].build(vectors_ND, path)
    return {"build_s": time.perf_counter() - started, "bytes": path.stat().st_size, "version": _version(name)}


def search(name: str, folder: Path) -> dict[str, Any]:
    """Opens an index and searches it, keeping ever more candidates."""
    dimension = np.load(folder / QUERIES).shape[1]
    turn, facts = opened(lambda: GRAPHS[name].open(dimension, _file(name, folder)), _TYPICAL, folder)
    return facts | {"points": sweep(turn, VALUES, folder, name)}


def _file(name: str, folder: Path) -> Path:
    return folder / f"{name.replace(' ', '-')}.index"


def _version(name: str) -> str:
    return importlib.metadata.version(name.split()[0])


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graphs", description=__doc__, allow_abbrev=False)
    parser.add_argument("action", choices=("build", "search"), help="what to do")
    parser.add_argument("name", choices=GRAPHS, help="library, and the numbers that it keeps")
    parser.add_argument("folder", type=Path, help="folder with item_vectors.npy and queries.npy")
    options = parser.parse_args(arguments)
    run = build if options.action == "build" else search
    print(json.dumps(run(options.name, options.folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
