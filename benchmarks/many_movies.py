"""Whole bundles of ever more movies: `python -m benchmarks.many_movies DIR --sizes N ...` makes them, and prints JSON.

The vectors are made as those of `benchmarks.million`, by one item tower, of the dimension that towers have unless they
are told another, after one epoch; a smaller bundle has the first of them. Each has the kind of index that the export
chooses for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.million import Made, films, make_vectors, write_draft
from benchmarks.millionth import with_people, write_bundle
from marquee.engine.index import use_blas_threads
from marquee.movies import MovieRecord
from training.indexing import IndexConfig, Sample, write_chosen_index
from training.model import TowerConfig

QUERIES = "queries.npy"
_DIMENSION = TowerConfig().dimension


def run(folder: Path, sizes: Sequence[int]) -> dict[str, Any]:
    """Makes a bundle of each size, and the vectors of held-out people; returns what the export measured of each."""
    folder.mkdir()
    made = make_vectors(folder, max(sizes), _DIMENSION, epochs=1)
    # As the retriever does when it starts.
    use_blas_threads(1)
    np.save(folder / QUERIES, made.queries_QD)
    movies = list(with_people(films(max(sizes))))
    return {"dimension": _DIMENSION, "rows": [_bundle(folder, made, movies[:size]) for size in sizes]}


def _bundle(folder: Path, made: Made, movies: list[MovieRecord]) -> dict[str, Any]:
    draft = write_draft(folder / f"draft-{len(movies)}", made.vectors_ND[: len(movies)])
    report = write_chosen_index(draft, Sample(made.queries_QD, "people"), IndexConfig())
    write_bundle(folder, draft, movies, folder / f"bundle-{len(movies)}")
    return {"movies": len(movies)} | {field.name: value for field, value in report.ListFields()}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_movies", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to make everything in; it must not be there yet")
    parser.add_argument("--sizes", type=int, nargs="+", required=True, metavar="N", help="movies of each bundle")
    options = parser.parse_args(arguments)
    print(json.dumps(run(options.folder, options.sizes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
