"""How long a Search takes and how much memory a retriever has, from a thousand movies to a million."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask

from benchmarks.flooding import Flooded
from benchmarks.machine import Shares, first_cores, resident_bytes
from benchmarks.served import measure_served
from benchmarks.towers import activate
from benchmarks.work import Work, say
from marquee.bundle.format import open_bundle
from marquee.features import Floats
from marquee.v1 import retriever_pb2

LARGEST = 1_000_000
# The export compares every vector below 100,000.
_SIZES = (1_000, 10_000, 99_999, 1_000_000)
_LISTS = (10, 50, 100)
_LIST = 10
# Lists of other lengths are asked of a retriever of this size.
_LISTED = 10_000
_SEEN = 100
# What many_movies, which needs PyTorch, calls it.
_QUERIES = "queries.npy"
_SEARCH = "/marquee.v1.RetrieverService/Search"
_SEED = 0


def measure(work: Work, cores: Shares, largest: int = LARGEST) -> dict[str, Any]:
    """Makes whole bundles, serves each, and searches it for lists with details, without what somebody saw."""
    sizes = [size for size in _SIZES if size <= largest]
    say(f"making bundles of {', '.join(f'{size:,}' for size in sizes)} movies; minutes")
    folder = work.folder / "many-movies"
    asked: list[str | Path] = [folder, "--sizes", *map(str, sizes)]
    made = json.loads(work.processes.run("benchmarks.many_movies", *asked, cores=first_cores(1)).stdout)
    queries_QD = np.load(folder / _QUERIES)
    served = [_serve(work, cores, folder / f"bundle-{size}", size, queries_QD) for size in sizes]
    rows = [
        one | found["lists"][0] | {"resident_bytes": found["resident_bytes"]}
        for one, found in zip(made["rows"], served, strict=True)
    ]
    lists_of = min(_LISTED, sizes[-1])
    told = {"dimension": made["dimension"], "k": _LIST, "seen": _SEEN, "lists_of": lists_of}
    return told | {"rows": rows, "lists": served[sizes.index(lists_of)]["lists"]}


def _serve(work: Work, cores: Shares, bundle: Path, size: int, queries_QD: Floats) -> dict[str, Any]:
    registry = bundle.with_name(f"registry-{size}")
    activate(work, bundle, registry)
    told = ("--registry", registry, "--log-format", "text")
    with work.processes.serve("services.retriever", *told, cores=cores.servers) as server:
        lists = []
        for k in _LISTS if size == _LISTED else (_LIST,):
            say(f"searching {size:,} movies for {k}")
            flooded = Flooded("Search", _SEARCH, _requests(open_bundle(bundle).space, size, queries_QD, k))
            lists.append({"k": k, **measure_served(work, cores, server, flooded)._asdict()})
        return {"lists": lists, "resident_bytes": resident_bytes(server.child.process.pid) or 0}


def _requests(space: str, size: int, queries_QD: Floats, k: int) -> Sequence[bytes]:
    rng = np.random.default_rng(_SEED)

    def request(query_D: Floats) -> retriever_pb2.SearchRequest:
        seen = np.sort(rng.choice(size, min(_SEEN, size // 2), replace=False) + 1).astype("<i8")
        return retriever_pb2.SearchRequest(
            vector=query_D.astype("<f4").tobytes(),
            space=space,
            k=k,
            exclude_packed=seen.tobytes(),
            details=FieldMask(paths=["*"]),
        )

    return [request(query_D).SerializeToString() for query_D in queries_QD]
