"""What an Encode costs by the length of a person's history, both towers; what recording and a Redis take beside it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.flooding import Flooded
from benchmarks.machine import Shares, resident_bytes
from benchmarks.people import EVENTS, Peopled, empty_redis, fill_redis, invent
from benchmarks.processes import Server
from benchmarks.served import calls_per_s, measure_served
from benchmarks.towers import POOLED, TOWERS, registry_of
from benchmarks.work import Work, say
from marquee.bundle.format import MOVIE_IDS
from marquee.bundle.registry import Registry
from marquee.features import Int64s
from marquee.v1 import live_features_pb2, user_encoder_pb2

LENGTHS = (10, 30, 100, 300, 1000)
_ENCODE = "/marquee.v1.UserEncoderService/Encode"
_RECORD = "/marquee.v1.LiveFeaturesService/RecordEvents"
_PEOPLE = 200
_SEED = 0


class _Spent(NamedTuple):
    seconds: float
    commands: int


def measure(work: Work, cores: Shares) -> dict[str, Any]:
    """Encodes people of each length by id, from a Redis, with each tower; then records events one by one."""
    movie_ids = movies_of(work)
    with empty_redis(work, cores, "histories") as peopled:
        for length in LENGTHS:
            fill_redis(peopled, invent(_people(length), movie_ids, length))
        before = _spent(peopled)
        towers = {tower: _tower(work, cores, tower, peopled) for tower in TOWERS}
        after = _spent(peopled)
        recorded_per_s = _record(work, cores, peopled, movie_ids)
    return {
        "towers": towers,
        "recorded_per_s": recorded_per_s,
        "redis_s_per_command": (after.seconds - before.seconds) / (after.commands - before.commands),
    }


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
        rows = [_length(work, cores, tower, server, length) for length in LENGTHS]
        return {"rows": rows, "resident_bytes": resident_bytes(server.child.process.pid) or 0}


def _length(work: Work, cores: Shares, tower: str, server: Server, length: int) -> dict[str, Any]:
    say(f"encoding histories of {length:,}, {tower}")
    flooded = Flooded("Encode", _ENCODE, encode_requests(_people(length)))
    return {"events": length, **measure_served(work, cores, server, flooded)._asdict()}


def _record(work: Work, cores: Shares, peopled: Peopled, movie_ids: Int64s) -> float:
    """Floods with calls that each record one event of somebody with EVENTS of them; returns events a second."""
    say("recording events one by one")
    people = [f"recorded-{number}" for number in range(_PEOPLE)]
    fill_redis(peopled, invent(people, movie_ids, EVENTS))
    drawn, requests = random.Random(_SEED), []
    for user in people:
        request = live_features_pb2.RecordEventsRequest()
        request.events.add(user_id=user, movie_id=drawn.choice(movie_ids.tolist()), kind="EVENT_KIND_WATCHED")
        requests.append(request.SerializeToString())
    told = ("--registry", registry_of(work, POOLED), "--log-format", "text", *peopled.store)
    with work.processes.serve("services.user_encoder", *told, cores=cores.servers) as server:
        return calls_per_s(work, cores, server, Flooded("RecordEvents", _RECORD, requests))


def _spent(peopled: Peopled) -> _Spent:
    told = peopled.server.ask.info()
    return _Spent(told["used_cpu_user"] + told["used_cpu_sys"], told["total_commands_processed"])
