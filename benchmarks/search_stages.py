"""Where the time of a Search goes: `python -m benchmarks.search_stages` times its stages in this process, prints JSON.

Microseconds a query, alone and in a batch; what `benchmarks.stages` says of tight loops holds here, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.layers import noted_searches, products
from benchmarks.noting import NotingFlat
from benchmarks.stages import Clock
from marquee.bundle.format import INDEX
from marquee.bundle.registry import Registry
from marquee.engine.index import Hits, Index, use_blas_threads, use_threads
from marquee.features import Floats
from marquee.v1 import retriever_pb2
from services.retriever.queries import Wanted
from services.retriever.retrieval import Retrieval
from services.retriever.running import read_query

ENGINE = "FAISS or BLAS"
_REPEATS, _REPEATS_OF_BATCHES = 300, 30


def measure(model: Retrieval, flat: NotingFlat, requests: Sequence[bytes]) -> dict[str, float]:
    """Takes queries through the stages one by one; returns medians."""
    clock, vectors_ND = Clock(1), model.index.vectors(model.index.movie_ids)
    for at in range(_REPEATS):
        flat.noted.clear()
        query_D = _search(model, requests[at % len(requests)], clock)
        # A long list is a matrix product.
        clock(ENGINE, flat.noted[-1] if flat.noted else partial(np.matmul, vectors_ND, query_D))
    return _without(clock.medians(), "ordering", ENGINE)


def _search(model: Retrieval, written: bytes, clock: Clock) -> Floats:
    request = clock("parsing", lambda: retriever_pb2.SearchRequest.FromString(written))
    query_D, wanted = clock("reading the query", lambda: read_query(model, request, ""))
    mask = clock("what may be found", lambda: model.filters.matching(wanted.filter, wanted.excluded))
    hits = clock("ordering", lambda: model.index.search(query_D, wanted.k, mask))
    clock("writing the answer", lambda: _answer(hits.movie_ids.tolist(), hits.scores.tolist()))
    return query_D


def _without(medians: dict[str, float], whole: str, part: str) -> dict[str, float]:
    """Takes a part out of the whole that it was timed in."""
    return medians | {whole: medians[whole] - medians[part]}


def _answer(movie_ids: list[int], scores: list[float]) -> bytes:
    return retriever_pb2.SearchResponse(
        movie_ids=movie_ids, scores=scores, space="0" * 64, bundle_id="0" * 64, request_id="0" * 32
    ).SerializeToString()


def measure_batch(model: Retrieval, written: bytes) -> dict[str, float]:
    """Takes a batch without filters through the stages, in as many parts as the service; returns medians a query."""
    request = retriever_pb2.BatchSearchRequest.FromString(written)
    again, clock = list(products(model, [query.vector for query in request.queries])), Clock(len(request.queries))
    for _ in range(_REPEATS_OF_BATCHES):
        _search_batch(model, written, clock)
        clock(ENGINE, lambda: [multiply() for multiply in again])
    return _without(clock.medians(), "ordering", ENGINE)


def _search_batch(model: Retrieval, written: bytes, clock: Clock) -> None:
    request = clock("parsing", lambda: retriever_pb2.BatchSearchRequest.FromString(written))
    ready = clock("reading the query", lambda: [read_query(model, query, "") for query in request.queries])
    lists = clock("ordering", lambda: _search_many(model.index, ready))
    clock("writing the answer", lambda: _answers(lists))


def _search_many(index: Index, ready: Sequence[tuple[Floats, Wanted]]) -> list[Hits]:
    found: list[Hits] = []
    for start in range(0, len(ready), index.together):
        queries, wanted = zip(*ready[start : start + index.together], strict=True)
        found += index.search_many(np.stack(queries), [each.k for each in wanted], [None] * len(wanted))
    return found


def _answers(lists: Sequence[Hits]) -> bytes:
    results = [
        retriever_pb2.BatchSearchResult(movie_ids=hits.movie_ids.tolist(), scores=hits.scores.tolist())
        for hits in lists
    ]
    return retriever_pb2.BatchSearchResponse(results=results, space="0" * 64).SerializeToString()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_stages", description=__doc__)
    parser.add_argument("--registry", type=Path, required=True, help="registry whose active bundle is searched")
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of SearchRequests, hex")
    parser.add_argument("--batch", type=Path, required=True, help="file of a BatchSearchRequest")
    options = parser.parse_args(arguments)
    use_threads(1)
    use_blas_threads(1)
    registry = Registry(options.registry)
    bundle = registry.open(registry.read().active)
    model = Retrieval(bundle)
    batch = measure_batch(model, options.batch.read_bytes())
    requests = [bytes.fromhex(each) for each in json.loads(options.requests.read_text())]
    alone = measure(model, noted_searches(model, bundle.file(INDEX)), requests)
    print(json.dumps({"alone": alone, "batch": batch}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
