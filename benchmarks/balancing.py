"""Two encoders behind the SDK's round robin, beside their simulation: percentiles, what is answered, how far off.

Two cores are too few for two busy replicas and who calls them. So the store is made slow here: a call waits for it
for some 60 ms, in one of the few places that each encoder has, and no core is full. What is checked is what the
simulation knows of: arrivals, turns, places, queues, refusals. It gets the same arrivals, and of the service the times
that calls took while hardly anybody waited, before the loads and after them. Answers without the store are left out.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.flooding import written
from benchmarks.growing_histories import encode_requests, movies_of
from benchmarks.machine import Shares
from benchmarks.people import EVENTS, empty_redis, fill_redis, invent
from benchmarks.processes import BenchmarkFailed
from benchmarks.replicas import Seconds, Setup, arrivals, simulate
from benchmarks.towers import POOLED, registry_of
from benchmarks.work import Work, say
from marquee.v1 import user_encoder_pb2

LOADS = (0.5, 0.8, 0.95, 1.3)
SETUP = Setup(replicas=2, running=4, waiting=32, deadline_s=1.0, clients=8)
_CALM, _CALM_S = 0.15, 8.0
_SECONDS = 10.0
# About what a call holds a place for, until it is measured.
_GUESSED_S = 0.06
_RUNS = 9
_PEOPLE = 200
_SEED = 0


class _Rig(NamedTuple):
    work: Work
    cores: Shares
    addresses: list[str]


class _Held(NamedTuple):
    """Is how long calls hold a place, and what the way to it and back adds."""

    seconds: Seconds
    way_s: float


class _Asked(NamedTuple):
    load: float
    arrive_s: Seconds
    answers: dict[str, Any]


def measure(work: Work, cores: Shares) -> dict[str, Any]:
    """Measures and simulates each load; `capacity` is calls a second of both replicas with all places taken.

    How long places are held is measured before the loads and after; `capacity`, which they are parts of, before.
    """
    with _rig(work, cores) as rig:
        before = _measure_held(rig)
        capacity = SETUP.replicas * SETUP.running / float(np.mean(before.seconds))
        asked = [_load(rig, capacity, load) for load in LOADS]
        after = _measure_held(rig)
    held = _Held(np.concatenate([before.seconds, after.seconds]), (before.way_s + after.way_s) / 2)
    rows = [_compare(each, held) for each in asked]
    told = {"capacity": capacity, "held_ms": 1e3 * float(np.mean(held.seconds)), "way_ms": 1e3 * held.way_s}
    return told | {"setup": SETUP._asdict(), "rows": rows}


@contextlib.contextmanager
def _rig(work: Work, cores: Shares) -> Iterator[_Rig]:
    limits = ("--interactive-calls", str(SETUP.running), "--waiting-calls", str(SETUP.waiting))
    with contextlib.ExitStack() as stack:
        peopled = stack.enter_context(empty_redis(work, cores, "balancing"))
        fill_redis(peopled, invent(_people(), movies_of(work), EVENTS))
        to = ("--to", str(peopled.server.port))
        slow = stack.enter_context(work.processes.serve("benchmarks.delayed", *to, cores=cores.caller))
        store = ("--store", f"redis://{slow.address}", "--store-key", peopled.key, "--store-timeout-s", "1")
        told = ("--registry", str(registry_of(work, POOLED)), "--log-format", "text", *limits)
        addresses = []
        for _ in range(SETUP.replicas):
            replica = work.processes.serve("services.user_encoder", *told, *store, cores=cores.servers)
            addresses.append(stack.enter_context(replica).address)
        yield _Rig(work, cores, addresses)


def _people() -> list[str]:
    return [f"person-{number}" for number in range(_PEOPLE)]


def _measure_held(rig: _Rig) -> _Held:
    """Asks so rarely that hardly a call waits; the way is what a call takes that does not ask the store."""
    say("two encoders, hardly asked")
    calm = _CALM * SETUP.replicas * SETUP.running / _GUESSED_S
    arrive_s = arrivals(calm, _CALM_S, np.random.default_rng(_SEED))
    storeless = user_encoder_pb2.EncodeRequest(allow_cold_start=True).SerializeToString()
    way = _ask(rig, [storeless], arrive_s)
    taken = _ask(rig, encode_requests(_people()), arrive_s)
    way_s = float(np.median(way["seconds"]))
    return _Held(np.array(taken["seconds"]) - way_s, way_s)


def _ask(rig: _Rig, requests: Sequence[bytes], arrive_s: Seconds) -> dict[str, Any]:
    due = rig.work.folder / "arrivals.json"
    due.write_text(json.dumps(arrive_s.tolist()))
    told: list[str | Path] = ["--requests", written(rig.work, requests), "--arrivals", due]
    told += ["--addresses", *rig.addresses]
    how = ("--deadline-s", str(SETUP.deadline_s), "--clients", str(SETUP.clients))
    ended = rig.work.processes.run("benchmarks.balanced", *told, *how, cores=rig.cores.caller)
    answers: dict[str, Any] = json.loads(ended.stdout)
    if not answers["seconds"]:
        raise BenchmarkFailed(f"no call was answered well ({answers['ended']}); run it where nothing else runs")
    return answers


def _load(rig: _Rig, capacity: float, load: float) -> _Asked:
    say(f"two encoders, asked {load:g} times what they can")
    arrive_s = arrivals(load * capacity, _SECONDS, np.random.default_rng(_SEED))
    return _Asked(load, arrive_s, _ask(rig, encode_requests(_people()), arrive_s))


def _compare(asked: _Asked, held: _Held) -> dict[str, Any]:
    measured = _figures(np.array(asked.answers["seconds"]), len(asked.arrive_s))
    runs = [_simulated(held, asked.arrive_s, seed) for seed in range(_RUNS)]
    simulated = {name: statistics.median(run[name] for run in runs) for name in measured}
    ranges = {name: (min(run[name] for run in runs), max(run[name] for run in runs)) for name in measured}
    deviation = {name: simulated[name] / measured[name] - 1 for name in measured}
    return {
        "load": asked.load,
        "calls": len(asked.arrive_s),
        "ended": asked.answers["ended"],
        "measured": measured,
        "simulated": simulated,
        "simulated_range": ranges,
        "deviation": deviation,
    }


def _simulated(held: _Held, arrive_s: Seconds, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    serve_s = rng.choice(held.seconds, len(arrive_s))
    outcome = simulate(arrive_s, serve_s, SETUP, rng)
    return _figures(outcome.seconds + held.way_s, len(arrive_s))


def _figures(seconds: Seconds, calls: int) -> dict[str, float]:
    """Goodput is the part of all calls that was answered in time."""
    p50_s, p99_s = np.percentile(seconds, (50, 99)).tolist()
    return {"p50_ms": 1e3 * p50_s, "p99_ms": 1e3 * p99_s, "goodput": len(seconds) / calls}
