"""What the user encoder costs beside the floor at full load, in batches, in writes and while a bundle is swapped."""

from __future__ import annotations

import contextlib
import json
import random
import statistics
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from benchmarks import flood
from benchmarks.caller import EVENTS, draw_users, newest_events
from benchmarks.flooding import Flooded, median_answer, prime, run_flood, share_of, spread, written
from benchmarks.machine import Shares, resident_bytes, shares
from benchmarks.processes import BenchmarkFailed, pinned
from benchmarks.report import Row
from benchmarks.work import Work, say
from marquee.bundle.format import open_bundle
from marquee.v1 import live_features_pb2, user_encoder_pb2
from marquee.v1.live_features_pb2_grpc import LiveFeaturesServiceStub
from tests.redis_rigs import redis_server

_SERVICE, _BARE = "services.user_encoder", "benchmarks.bare"
_ENCODE = "/marquee.v1.UserEncoderService/Encode"
_RECORD = "/marquee.v1.LiveFeaturesService/RecordEvents"
_BATCH = 256
_RECORDED = 100
_SEED = 0


class Case(NamedTuple):
    """Is one rpc to flood: its server, its requests and the part of the floor's calls a second that is the goal."""

    name: str
    module: str
    method: str
    requests: Sequence[bytes]
    goal: float
    store: tuple[str | Path, ...]


class Requests(NamedTuple):
    """Holds serialized requests: by events, by id, one of a batch, and events to record, of one person or of many."""

    by_events: list[bytes]
    by_id: list[bytes]
    batch: bytes
    record_one: list[bytes]
    record_many: list[bytes]


def measure(work: Work) -> list[Row]:
    """Floods the encoder and the floor in turn; both on some cores, the flood on another."""
    cores = shares()
    requests = _requests(work, cores)
    sqlite = ("--store", work.store)
    cases = [
        Case(f"Encode of {EVENTS} events, without interceptors", _BARE, _ENCODE, requests.by_events, 0.75, sqlite),
        Case(f"Encode of {EVENTS} events", _SERVICE, _ENCODE, requests.by_events, 0.65, sqlite),
        Case("Encode by id, SQLite", _SERVICE, _ENCODE, requests.by_id, 0.60, sqlite),
    ]
    rows = [row for case in cases for row in _flood(work, cores, case)]
    with _redis(work, cores) as redis:
        rows += _flood(work, cores, Case("Encode by id, Redis", _SERVICE, _ENCODE, requests.by_id, 0.45, redis))
    rows += _stages(work, cores, requests.by_events)
    rows += _record(work, cores, requests.record_one, "of one person")
    rows += _record(work, cores, requests.record_many, "of as many people")
    second, sequence = _train(work, "--seed", "1"), _train(work, "--tower", "sequence")
    rows += _batches(work, cores, requests.batch, sequence)
    return [*rows, *_swap(work, cores, requests.by_events, second)]


def _requests(work: Work, cores: Shares) -> Requests:
    users = draw_users(work.data)
    with (
        work.processes.serve(_SERVICE, *work.arguments("user_encoder"), cores=cores.servers) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        histories = [newest_events(LiveFeaturesServiceStub(channel), user) for user in users]
    most = max(len(events.movie_ids) for events in histories)
    full = [events for events in histories if len(events.movie_ids) == most]
    movies = sorted({movie for events in histories for movie in events.movie_ids})
    batch = user_encoder_pb2.BatchEncodeRequest(
        items=[user_encoder_pb2.BatchEncodeItem(events=events) for events in islice(cycle(full), _BATCH)]
    )
    return Requests(
        [user_encoder_pb2.EncodeRequest(events=events).SerializeToString() for events in full],
        [user_encoder_pb2.EncodeRequest(user_id=user).SerializeToString() for user in users],
        batch.SerializeToString(),
        _recordings(users, movies, 1),
        _recordings(users, movies, _RECORDED),
    )


def _recordings(users: list[str], movies: list[int], people: int) -> list[bytes]:
    """Draws calls that each record events of so many people, dated by the server."""
    drawn = random.Random(_SEED)

    def recording() -> live_features_pb2.RecordEventsRequest:
        request = live_features_pb2.RecordEventsRequest()
        for user in drawn.choices(users, k=people) * (_RECORDED // people):
            request.events.add(user_id=user, movie_id=drawn.choice(movies), kind="EVENT_KIND_WATCHED")
        return request

    return [recording().SerializeToString() for _ in range(200)]


def _flood(work: Work, cores: Shares, case: Case) -> list[Row]:
    say(f"flooding: {case.name}")
    flooded = Flooded(case.name, case.method, case.requests)
    with (
        work.processes.serve(case.module, *_arguments(work), *case.store, cores=cores.servers) as ours,
        work.processes.serve("benchmarks.floor", cores=cores.servers) as floor,
    ):
        prime(floor, median_answer(ours, flooded))
        pairs = run_flood(work, cores, flooded, [ours, floor])
        resident = resident_bytes(ours.child.process.pid)
    value, beside, ratios = share_of(pairs)
    what = f"{case.name}: calls a second, against the floor's"
    rows = [_row(what, value, "×", case.goal, beside, {"pairs": pairs}, at_least=True, readings=ratios)]
    if resident is not None and case.module == _SERVICE:
        rows.append(_row(f"{case.name}: memory of the worker after it", resident / 1e6, "MB", 300.0, "resident"))
    return rows


def _stages(work: Work, cores: Shares, requests: Sequence[bytes]) -> list[Row]:
    """Times the stages of encoding one person, and 32 together; the sum is the figure, the stages stand beside it."""
    say("timing the stages of Encode in process")
    told = ("--registry", work.registry, "--requests", written(work, requests))
    timed: dict[str, dict[str, float]] = json.loads(
        work.processes.run("benchmarks.stages", *told, cores=cores.servers).stdout
    )

    def row(people: str, stages: dict[str, float]) -> Row:
        beside = ", ".join(f"{stage} {us:.1f}" for stage, us in stages.items())
        what = f"Encode of {EVENTS} events in process, {people} at once: a person"
        return Row("encoding", what, sum(stages.values()), "µs", None, beside, stages)

    return [row(people, stages) for people, stages in timed.items()]


def _arguments(work: Work) -> tuple[str | Path, ...]:
    return ("--registry", work.registry, "--log-format", "text")


@contextlib.contextmanager
def _redis(work: Work, cores: Shares) -> Iterator[tuple[str | Path, ...]]:
    """Runs a Redis with the same events, on the caller's core, where another machine would run it."""
    say("starting and filling a Redis")
    key, folder = work.folder / "store.key", work.folder / "redis"
    key.write_bytes(random.Random(_SEED).randbytes(32))
    folder.mkdir()
    with pinned(cores.caller):
        stack = contextlib.ExitStack()
        server = stack.enter_context(redis_server(folder))
    with stack:
        store = ("--store", server.url, "--store-key", key)
        work.processes.run(_SERVICE, "import-events", "--data", work.data, *store)
        yield store


def _record(work: Work, cores: Shares, requests: Sequence[bytes], whose: str) -> list[Row]:
    say(f"flooding: RecordEvents {whose}")
    flooded = Flooded("RecordEvents", _RECORD, requests)
    with work.processes.serve(_SERVICE, *work.arguments("user_encoder"), cores=cores.servers) as server:
        blocks = run_flood(work, cores, flooded, [server])
    rates = [block[0] * _RECORDED for block in blocks]
    beside = f"{min(rates):,.0f} to {max(rates):,.0f} in {len(rates)} blocks, {flood.IN_FLIGHT} calls in flight"
    what = f"RecordEvents({_RECORDED}) {whose}, SQLite: events a second"
    return [_row(what, statistics.median(rates), "/s", 20_000.0, beside, at_least=True, readings=rates)]


def _train(work: Work, *arguments: str) -> Path:
    """Trains a bundle for a moment: how fast a tower is does not depend on how good it is."""
    say(f"training with {' '.join(arguments)} --epochs 1")
    out = work.folder / "-".join(("bundle", *arguments))
    work.processes.run("training", "--data", work.data, "--out", out, "--epochs", "1", *arguments)
    return out


def _batches(work: Work, cores: Shares, request: bytes, sequence: Path) -> list[Row]:
    file = work.folder / "batch.bin"
    file.write_bytes(request)
    pooled = _time_batch(work, cores, file, "")
    whole, read, bare = (statistics.median(pair[at] for pair in pooled) for at in range(3))
    ratios = [ours / (read + bare) for ours, read, bare in pooled]
    beside = f"{whole * 1e3:.1f} ms whole, reading {read * 1e3:.1f} ms, ONNX Runtime {bare * 1e3:.1f} ms; in process"
    rows = [
        _row(
            f"BatchEncode({_BATCH}): time, against reading plus bare ONNX Runtime",
            statistics.median(ratios),
            "×",
            1.3,
            f"{spread(ratios)}; {beside}",
            {"seconds": pooled},
            readings=ratios,
        )
    ]
    work.processes.run("marquee.bundle", "publish", sequence, "--registry", work.registry, "--force")
    long = _time_batch(work, cores, file, open_bundle(sequence).space)
    parts = [bare / ours for ours, _, bare in long]
    what = f"BatchEncode({_BATCH}), sequence tower: speed, against bare ONNX Runtime"
    beside = f"{spread(parts)}; in process"
    details = {"seconds": long}
    return [*rows, _row(what, statistics.median(parts), "×", 0.9, beside, details, at_least=True, readings=parts)]


def _time_batch(work: Work, cores: Shares, request: Path, space: str) -> list[list[float]]:
    say(f"timing BatchEncode in process, {'the sequence tower' if space else 'the pooled tower'}")
    store = work.folder / "batching.sqlite"
    told = ("--registry", work.registry, "--store", store, "--request", request, "--space", space)
    measured = json.loads(work.processes.run("benchmarks.batching", *told, cores=cores.servers).stdout)
    pairs: list[list[float]] = measured["pairs"]
    return pairs


def _swap(work: Work, cores: Shares, requests: Sequence[bytes], bundle: Path) -> list[Row]:
    say("swapping a bundle under load")
    with work.processes.serve(_SERVICE, *work.arguments("user_encoder"), cores=cores.servers) as server:
        registry = ("--registry", work.registry, "--bundle", bundle)
        told = ("--service", "user_encoder", "--address", server.address, *registry)
        swapped = work.processes.run(
            "benchmarks.swap", *told, "--requests", written(work, requests), cores=cores.caller
        )
    found = json.loads(swapped.stdout)
    if found["failed"]:
        raise BenchmarkFailed(f"{found['failed']} of {found['calls']} calls failed while a bundle was swapped")
    steady, during = found["steady_ms"]["p99"], found["during_ms"]["p99"]
    beside = f"{during:.1f} and {steady:.1f} ms; {found['during']} calls in its {found['swap_s']:.1f} s; none failed"
    return [_row("Encode's p99 while a bundle is swapped, against steady", during / steady, "×", 2.0, beside, found)]


def _row(
    what: str,
    value: float,
    unit: str,
    goal: float,
    beside: str,
    details: dict[str, Any] | None = None,
    *,
    at_least: bool = False,
    readings: Sequence[float] = (),
) -> Row:
    return Row("encoding", what, value, unit, goal, beside, details or {}, at_least=at_least, readings=readings)
