"""What Encodes of both towers and RecordEvents cost by the length of a person's history, and Redis beside them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.flooding import Flooded
from benchmarks.machine import Shares, cpu_us, resident_bytes
from benchmarks.people import Peopled, empty_redis, fill_redis, invent
from benchmarks.processes import Server
from benchmarks.served import measure_served
from benchmarks.towers import POOLED, TOWERS, registry_of
from benchmarks.work import Work, say
from marquee.bundle.format import MOVIE_IDS
from marquee.bundle.registry import Registry
from marquee.features import Int64s
from marquee.v1 import live_features_pb2, user_encoder_pb2

LENGTHS = (10, 100, 300, 1000)
_RECORDED = (10, 100, 1000)
_ENCODE = "/marquee.v1.UserEncoderService/Encode"
_RECORD = "/marquee.v1.LiveFeaturesService/RecordEvents"
_PEOPLE = 200
# So many that a few events are recorded of each, and a history stays about as long as it was.
_RECORDED_PEOPLE = 2_000
_SEED = 0


class _Spent(NamedTuple):
    seconds: float
    commands: int


def measure(work: Work, cores: Shares) -> dict[str, Any]:
    """Encodes people of each length by id, from a Redis, with each tower; then records events of such people."""
    movie_ids = movies_of(work)
    with empty_redis(work, cores, "histories") as peopled:
        for length in LENGTHS:
            fill_redis(peopled, invent(_people(length), movie_ids, length))
        towers = {tower: _tower(work, cores, tower, peopled) for tower in TOWERS}
        return {"towers": towers, "recorded": _recorded(work, cores, peopled, movie_ids)}


def movies_of(work: Work) -> Int64s:
    """Reads the ids of the movies that the towers know."""
    registry = Registry(registry_of(work, POOLED))
    return np.asarray(registry.open(registry.read().active).array(MOVIE_IDS), np.int64)


def encode_requests(people: Sequence[str]) -> list[bytes]:
    """Writes an Encode by id for each person."""
    return [user_encoder_pb2.EncodeRequest(user_id=user).SerializeToString() for user in people]


def _people(length: int) -> list[str]:
    return [f"person-{length}-{number}" for number in range(_PEOPLE)]


def _tower(work: Work, cores: Shares, tower: str, peopled: Peopled) -> dict[str, Any]:
    told = ("--registry", registry_of(work, tower), "--log-format", "text", *peopled.store)
    with work.processes.serve("services.user_encoder", *told, cores=cores.servers) as server:
        rows = []
        for length in LENGTHS:
            say(f"encoding histories of {length:,}, {tower}")
            flooded = Flooded("Encode", _ENCODE, encode_requests(_people(length)))
            rows.append({"events": length, **_measured(work, cores, peopled, server, flooded, "get")})
        return {"rows": rows, "resident_bytes": resident_bytes(server.child.process.pid) or 0}


def _recorded(work: Work, cores: Shares, peopled: Peopled, movie_ids: Int64s) -> list[dict[str, Any]]:
    """Makes calls that each record one event of somebody with so many of them."""
    told = ("--registry", registry_of(work, POOLED), "--log-format", "text", *peopled.store)
    with work.processes.serve("services.user_encoder", *told, cores=cores.servers) as server:
        rows = []
        for length in _RECORDED:
            say(f"recording events of people with {length:,}")
            people = [f"recorded-{length}-{number}" for number in range(_RECORDED_PEOPLE)]
            fill_redis(peopled, invent(people, movie_ids, length))
            flooded = Flooded("RecordEvents", _RECORD, _record_requests(people, movie_ids))
            rows.append({"events": length, **_measured(work, cores, peopled, server, flooded, "eval")})
        return rows


def _record_requests(people: Sequence[str], movie_ids: Int64s) -> list[bytes]:
    drawn, requests = random.Random(_SEED), []
    for user in people:
        request = live_features_pb2.RecordEventsRequest()
        request.events.add(user_id=user, movie_id=drawn.choice(movie_ids.tolist()), kind="EVENT_KIND_WATCHED")
        requests.append(request.SerializeToString())
    return requests


def _measured(
    work: Work, cores: Shares, peopled: Peopled, server: Server, flooded: Flooded, command: str
) -> dict[str, Any]:
    """Measures calls, and the CPU that Redis takes for each; every call gives it `command` once, and maybe others."""
    before = _spent(peopled, command)
    served = measure_served(work, cores, server, flooded)
    after = _spent(peopled, command)
    return served._asdict() | {"redis_s": (after.seconds - before.seconds) / (after.commands - before.commands)}


def _spent(peopled: Peopled, command: str) -> _Spent:
    told = peopled.server.ask.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return _Spent(cpu_us(peopled.server.process.pid) / 1e6, told["calls"])
