"""What offline scoring in process costs beside its parts: `python -m benchmarks.scoring` times both, and prints JSON.

Whole: people's events in memory in, lists in memory out, and written as Parquet. Parts, with everything prepared: ONNX
Runtime on the runs that the whole makes, and FAISS's exact search: for the k nearest of all movies, all people at once;
and for the k nearest of those that each has not seen, one by one, by either of FAISS's two selectors. One thread each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from benchmarks.noting import NotingEncoder
from clients.batch.folder import RunFolder, begin, read_manifest
from clients.batch.in_process import InProcess, Model
from clients.batch.lists import Origin, Wanted
from marquee.bundle.format import Bundle, open_bundle
from marquee.engine.index import use_blas_threads, use_threads
from marquee.histories import Pair, merge_many, seen_many
from marquee.v1 import types_pb2

PAIRS = 7
K = 10


class _Parts(NamedTuple):
    onnx: Callable[[], object]
    nearest: Callable[[], object]
    by_ids: Callable[[], object]
    by_bits: Callable[[], object]


def measure(bundle: Path, events: Path) -> dict[str, Any]:
    """Times the whole and its parts in turn, in seconds a person."""
    scoring = InProcess(bundle, events, in_registry=False, threads=1)
    origin, user_ids = scoring.origin(""), scoring.people()
    wanted = Wanted(K, types_pb2.MovieFilter(), True, time.time_ns() // 1_000_000)
    model, people = scoring.model, scoring.pairs(user_ids)
    use_threads(1)
    use_blas_threads(1)
    parts = _parts(model, open_bundle(bundle), people, wanted)
    with tempfile.TemporaryDirectory() as name:
        folder = _begun(Path(name), origin, wanted, user_ids)
        calls: list[Callable[[], object]] = [
            lambda: scoring.recommend(user_ids, wanted, origin, lambda _: None),
            lambda: folder.add(scoring.recommend(user_ids, wanted, origin, lambda _: None)),
            *parts,
        ]
        for call in calls:
            call()
        rounds = [[_timed(call) / len(user_ids) for call in calls] for _ in range(PAIRS)]
    names = ("whole", "written", *_Parts._fields)
    return {"people": len(user_ids), "rounds": [dict(zip(names, one, strict=True)) for one in rounds]}


def _begun(folder: Path, origin: Origin, wanted: Wanted, user_ids: list[str]) -> RunFolder:
    begin(folder, {}, origin, wanted.as_of_ms, user_ids)
    return RunFolder(folder, read_manifest(folder) or {})


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _parts(model: Model, bundle: Bundle, people: list[Pair], wanted: Wanted) -> _Parts:
    histories = merge_many(people)
    encoded = model.encoder.prepare_many(histories, np.full(len(people), wanted.as_of_ms))
    noting = NotingEncoder(bundle)
    vectors_BD = noting.run(encoded.tower)
    # FAISS's stubs do not know what its own wrappers take.
    library: Any = faiss
    parameters = library.SearchParameters
    index = library.IndexFlatIP(model.index.dimension)
    index.add(model.index.vectors(model.index.movie_ids))
    seen = [model.index.rows(ids) for ids in seen_many(histories)]
    bits = [_all_but(rows, model.index.count) for rows in seen]

    def select(selectors: list[Any]) -> None:
        for vector_D, selector in zip(vectors_BD, selectors, strict=True):
            index.search(vector_D[None], K, params=parameters(sel=selector))

    return _Parts(
        onnx=lambda: [model.encoder.session.run(None, feed) for feed in noting.noted],
        nearest=lambda: index.search(vectors_BD, K),
        by_ids=lambda: select([library.IDSelectorNot(library.IDSelectorBatch(rows)) for rows in seen]),
        by_bits=lambda: select([library.IDSelectorBitmap(one) for one in bits]),
    )


def _all_but(rows: Any, count: int) -> Any:
    mask = np.ones(count, bool)
    mask[rows] = False
    return np.packbits(mask, bitorder="little")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of a bundle")
    parser.add_argument("--events", type=Path, required=True, help="folder with people's events")
    options = parser.parse_args(arguments)
    print(json.dumps(measure(options.bundle, options.events)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
