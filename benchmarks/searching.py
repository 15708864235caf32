"""What the retriever costs beside the floor at full load, in batches, for titles, in memory and while it swaps."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import grpc
import numpy as np

from benchmarks.caller import draw_users
from benchmarks.flooding import Flooded, median_answer, prime, run_flood, share_of, written
from benchmarks.machine import Shares, peak_bytes, resident_bytes, shares
from benchmarks.processes import BenchmarkFailed, Server, pinned
from benchmarks.report import Row
from benchmarks.titles import recombined
from benchmarks.work import Work, publish, say
from marquee.bundle.catalog import Catalog, write_catalog
from marquee.bundle.format import CATALOG, INDEX, Bundle, BundleWriter, open_bundle
from marquee.v1 import catalog_pb2, retriever_pb2, user_encoder_pb2
from marquee.v1.catalog_pb2_grpc import CatalogServiceStub
from marquee.v1.retriever_pb2_grpc import RetrieverServiceStub
from marquee.v1.user_encoder_pb2_grpc import UserEncoderServiceStub

_SERVICE, _BARE = "services.retriever", "benchmarks.bare_search"
_SEARCH = "/marquee.v1.RetrieverService/Search"
_BATCH_SEARCH = "/marquee.v1.RetrieverService/BatchSearch"
_DIMENSION, _K, _BATCH = 64, 100, 64
_TITLES, _ASKED = 60_000, 1000
_DEADLINE_S = 10.0
_LOADED_S = 120.0
_SEED = 0


class Requests(NamedTuple):
    """Holds serialized requests: for everything, less what people saw, and batches of 64 and of one for everything."""

    plain: list[bytes]
    unseen: list[bytes]
    batch: bytes
    one: bytes


def measure(work: Work) -> list[Row]:
    """Trains three spaces for a moment each, and measures the retriever over them; both cores, as for the encoder."""
    work = work._replace(folder=work.folder / "searching")
    work.folder.mkdir()
    cores = shares()
    first, second, third = (_train(work, seed) for seed in (1, 2, 3))
    shutil.move(first, work.bundle)
    publish(work)
    requests = _requests(work, cores)
    of = f"{open_bundle(work.bundle).manifest.movies:,} × {_DIMENSION}, k = {_K}"
    rows = [
        _share(work, cores, _BARE, Flooded(f"Search over {of}, without interceptors", _SEARCH, requests.plain), 0.68),
        _share(work, cores, _SERVICE, Flooded(f"Search over {of}", _SEARCH, requests.plain), 0.60),
        _share(work, cores, _SERVICE, Flooded(f"Search over {of}, less what was seen", _SEARCH, requests.unseen), None),
        _bare(work, cores, of, requests),
        _batch(work, cores, of, requests.batch),
        _titles(work, cores),
    ]
    return [*rows, *_memory(work, cores, second, third), _swap(work, cores, requests.plain, third)]


def _train(work: Work, seed: int) -> Path:
    """Trains a bundle for a moment: how fast it is searched does not depend on how good it is."""
    say(f"training a pooled tower, seed {seed}")
    out = work.folder / f"bundle-{seed}"
    shape = ("--dimension", str(_DIMENSION), "--epochs", "1", "--seed", str(seed))
    work.processes.run("training", "--data", work.data, "--out", out, *shape)
    return out


def _requests(work: Work, cores: Shares) -> Requests:
    with (
        work.processes.serve("services.user_encoder", *work.arguments("user_encoder"), cores=cores.servers) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = UserEncoderServiceStub(channel)
        asked = [user_encoder_pb2.EncodeRequest(user_id=user) for user in draw_users(work.data)]
        answers = [stub.Encode(request, timeout=_DEADLINE_S) for request in asked]
    plain = [retriever_pb2.SearchRequest(vector=one.vector, space=one.space, k=_K) for one in answers]
    unseen = [
        retriever_pb2.SearchRequest(vector=one.vector, space=one.space, k=_K, exclude_packed=one.seen)
        for one in answers
    ]
    queries = [retriever_pb2.BatchSearchQuery(vector=one.vector, k=_K) for one in islice(cycle(answers), _BATCH)]
    batches = (
        retriever_pb2.BatchSearchRequest(queries=some, space=answers[0].space).SerializeToString()
        for some in (queries, queries[:1])
    )
    return Requests(_serialized(plain), _serialized(unseen), *batches)


def _serialized(requests: Iterable[retriever_pb2.SearchRequest]) -> list[bytes]:
    return [request.SerializeToString() for request in requests]


def _retriever(work: Work) -> list[str | Path]:
    return work.arguments("retriever")


def _share(work: Work, cores: Shares, module: str, flooded: Flooded, goal: float | None) -> Row:
    say(f"flooding: {flooded.name}")
    with (
        work.processes.serve(module, *_retriever(work), cores=cores.servers) as ours,
        work.processes.serve("benchmarks.floor", cores=cores.servers) as floor,
    ):
        prime(floor, median_answer(ours, flooded))
        pairs = run_flood(work, cores, flooded, [ours, floor])
    value, beside, ratios = share_of(pairs)
    what = f"{flooded.name}: calls a second, against the floor's"
    return _row(what, value, "×", goal, beside, {"pairs": pairs}, at_least=True, readings=ratios)


def _bare(work: Work, cores: Shares, of: str, requests: Requests) -> Row:
    """Measures how near to the floor any service could come that has FAISS compare a query with every vector."""
    flooded = Flooded(f"bare FAISS behind an empty handler, over {of}", _SEARCH, requests.plain)
    say(f"flooding: {flooded.name}")
    with (
        work.processes.serve(_SERVICE, *_retriever(work), cores=cores.servers) as ours,
        work.processes.serve("benchmarks.scanning", *_scanned(work, requests.one), cores=cores.servers) as bare,
        work.processes.serve("benchmarks.floor", cores=cores.servers) as floor,
    ):
        answer = median_answer(ours, flooded)
        prime(bare, answer)
        prime(floor, answer)
        shared = share_of(pairs := run_flood(work, cores, flooded, [bare, floor]))
    what = f"{flooded.name}: calls a second, against the floor's"
    return _row(what, shared.ratio, "×", None, shared.beside, {"pairs": pairs}, readings=shared.ratios)


def _scanned(work: Work, request: bytes) -> list[str | Path]:
    """Says what the empty handler that searches by FAISS is started with."""
    file = work.folder / "batch.bin"
    file.write_bytes(request)
    return ["--index", work.bundle / INDEX, "--request", file]


def _batch(work: Work, cores: Shares, of: str, request: bytes) -> Row:
    flooded = Flooded(f"BatchSearch({_BATCH}) over {of}", _BATCH_SEARCH, [request])
    say(f"flooding: {flooded.name}")
    with (
        work.processes.serve(_SERVICE, *_retriever(work), cores=cores.servers) as ours,
        work.processes.serve("benchmarks.scanning", *_scanned(work, request), cores=cores.servers) as bare,
    ):
        prime(bare, median_answer(ours, flooded))
        pairs = run_flood(work, cores, flooded, [ours, bare])
    value, beside, ratios = share_of(pairs)
    what = f"{flooded.name}: calls a second, against bare FAISS behind an empty handler"
    return _row(what, value, "×", 0.8, beside, {"pairs": pairs}, at_least=True, readings=ratios)


def _titles(work: Work, cores: Shares) -> Row:
    """Types titles of 60,000, up to some letter each, one call at a time."""
    say(f"searching {_TITLES:,} titles over the wire")
    bundle = _with_titles(open_bundle(work.bundle), work.folder / "titles")
    registry = work.folder / "titles-registry"
    _publish(work, bundle, registry)
    _activate(work, bundle, registry)
    with Catalog(bundle.file(CATALOG)) as catalog:
        titles = [movie.title for movie in catalog.all()]
    drawn = random.Random(_SEED)
    queries = [title[: drawn.randint(1, len(title))] for title in drawn.sample(titles, min(_ASKED, len(titles)))]
    with work.processes.serve(_SERVICE, "--registry", registry, cores=cores.servers) as server:
        taken_ms = _ask_titles(server, queries, cores)
    p50, p99 = np.percentile(taken_ms, [50, 99])
    beside = f"p50 {p50:.2f} ms; {len(queries)} queries, one at a time, gRPC and its client included"
    return _row(f"SearchMovies over {len(titles):,} titles: p99", float(p99), "ms", 5.0, beside)


def _with_titles(bundle: Bundle, destination: Path) -> Bundle:
    """Writes the bundle again with a larger catalogue: the index stays."""
    with BundleWriter(destination) as writer:
        for entry in bundle.manifest.files:
            shutil.copy(bundle.file(entry.name), writer.folder / entry.name)
        with Catalog(bundle.file(CATALOG)) as catalog:
            movies = recombined(catalog.all(), _TITLES, seed=_SEED)
        write_catalog(writer.folder / CATALOG, movies)
        return writer.finish(bundle.manifest, bundle.report())


def _ask_titles(server: Server, queries: Sequence[str], cores: Shares) -> list[float]:
    with pinned(cores.caller), grpc.insecure_channel(server.address) as channel:
        stub, taken = CatalogServiceStub(channel), []
        for query in ["warm up", *queries]:
            started = perf_counter()
            stub.SearchMovies(catalog_pb2.SearchMoviesRequest(query=query), timeout=_DEADLINE_S)
            taken.append(1e3 * (perf_counter() - started))
    return taken[1:]


def _memory(work: Work, cores: Shares, second: Path, third: Path) -> Iterable[Row]:
    """Looks at the worker's memory with active and standby loaded, and at its peak while a third space loads."""
    say("measuring memory with two spaces and with a third on its way")
    _publish(work, open_bundle(second), work.registry)
    with work.processes.serve(_SERVICE, *_retriever(work), cores=cores.servers) as server:
        pid = server.child.process.pid
        both = resident_bytes(pid)
        _publish(work, open_bundle(third), work.registry)
        _await_space(server, open_bundle(third).space)
        peak, after = peak_bytes(pid), resident_bytes(pid)
    if both is None or peak is None or after is None:
        return
    yield _row("retriever: resident memory with active and standby", both / 1e6, "MB", None, "of the process, SERVING")
    beside = f"{after / 1e6:.0f} MB once it has, with the space that retires"
    yield _row("retriever: peak of the resident memory while a third space loads", peak / 1e6, "MB", None, beside)


def _await_space(server: Server, space: str) -> None:
    until = perf_counter() + _LOADED_S
    with grpc.insecure_channel(server.address) as channel:
        stub = RetrieverServiceStub(channel)
        while perf_counter() < until:
            state = stub.GetIndex(retriever_pb2.GetIndexRequest(), timeout=_DEADLINE_S).state
            if any(one.space == space for one in state.bundles):
                return
    raise BenchmarkFailed(f"the retriever did not load space {space} in {_LOADED_S:.0f} s; see its log")


def _swap(work: Work, cores: Shares, requests: Sequence[bytes], bundle: Path) -> Row:
    say("swapping a bundle under load")
    # A registry of its own: nothing but the space that is swapped in is to be loaded meanwhile.
    registry = work.folder / "swap-registry"
    _publish(work, open_bundle(work.bundle), registry)
    _activate(work, open_bundle(work.bundle), registry)
    with work.processes.serve(_SERVICE, "--registry", registry, cores=cores.servers) as server:
        told = ("--service", "retriever", "--address", server.address, "--registry", registry, "--bundle", bundle)
        ended = work.processes.run("benchmarks.swap", *told, "--requests", written(work, requests), cores=cores.caller)
    found = json.loads(ended.stdout)
    if found["failed"]:
        raise BenchmarkFailed(f"{found['failed']} of {found['calls']} calls failed while a bundle was swapped")
    steady, during = found["steady_ms"]["p99"], found["during_ms"]["p99"]
    beside = (
        f"{during:.1f} and {steady:.1f} ms; {found['during']} calls in its {found['swap_s']:.1f} s; none failed, none "
        "was retried"
    )
    return _row("Search's p99 while a bundle is swapped, against steady", during / steady, "×", 2.0, beside, found)


def _publish(work: Work, bundle: Bundle, registry: Path) -> None:
    work.processes.run("marquee.bundle", "publish", bundle.path, "--registry", registry, "--force")


def _activate(work: Work, bundle: Bundle, registry: Path) -> None:
    work.processes.run("marquee.bundle", "activate", "--registry", registry, "--force", bundle.space)


def _row(
    what: str,
    value: float,
    unit: str,
    goal: float | None,
    beside: str,
    details: dict[str, Any] | None = None,
    *,
    at_least: bool = False,
    readings: Sequence[float] = (),
) -> Row:
    return Row("searching", what, value, unit, goal, beside, details or {}, at_least=at_least, readings=readings)
