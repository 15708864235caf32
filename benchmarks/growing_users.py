"""What people take in a feature store, and how long one of them takes to read: from a thousand to a million."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.curves import Curve
from benchmarks.growing_histories import LENGTHS
from benchmarks.machine import Shares
from benchmarks.people import EVENTS, Peopled, empty_redis, fill_redis, fill_sqlite, invent
from benchmarks.processes import pinned
from benchmarks.work import Work, say
from marquee.features import Int64s
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.opening import open_store

LARGEST = 1_000_000
_SMALLEST = 1_000
# A million are a file of 4.7 GB, which is on its way to the disk while the rest is measured.
_MOST_IN_SQLITE = 100_000
# Not measured: the lines of what was go on to it.
_BEYOND = 10
_MOVIE_IDS: Int64s = np.arange(1, 10_001)
_READS, _WARM_UP = 3_000, 300
_OF_EACH_LENGTH = 1_000
_SEED = 0


def measure(work: Work, cores: Shares, largest: int) -> dict[str, Any]:
    """Fills a SQLite file and a Redis, ten times as many each time, and reads people at random in this process."""
    sizes = [10**power for power in range(round(math.log10(_SMALLEST)), 1 + int(math.log10(largest)))]
    path = work.folder / "growing.sqlite"
    with pinned(cores.servers):
        fewer = [size for size in sizes if size <= _MOST_IN_SQLITE]
        sqlite = [_sqlite(path, before, size) for before, size in zip([0, *fewer], fewer, strict=False)]
        path.unlink()
        with empty_redis(work, cores, "growing") as peopled:
            redis = [_redis(peopled, before, size) for before, size in zip([0, *sizes], sizes, strict=False)]
            by_events = [_by_events(peopled, length) for length in LENGTHS]
    return {
        "events": EVENTS,
        "sqlite": [*sqlite, _extrapolated(sqlite)],
        "redis": [*redis, _extrapolated(redis)],
        "redis_by_events": by_events,
    }


def _people(first: int, last: int) -> list[str]:
    return [f"person-{number}" for number in range(first, last)]


def _sqlite(path: Path, before: int, size: int) -> dict[str, Any]:
    say(f"{size:,} people in SQLite")
    fill_sqlite(path, invent(_people(before, size), _MOVIE_IDS, EVENTS))
    return {"people": size, "bytes": path.stat().st_size, **_read(UserEncoderSettings(store=str(path)), size)}


def _redis(peopled: Peopled, before: int, size: int) -> dict[str, Any]:
    say(f"{size:,} people in Redis")
    fill_redis(peopled, invent(_people(before, size), _MOVIE_IDS, EVENTS))
    # Long, so that a hiccup is measured and not refused.
    settings = UserEncoderSettings(store=peopled.server.url, store_key=peopled.key, store_timeout_s=5.0)
    memory = peopled.server.ask.info("memory")
    told = {"bytes": memory["used_memory"], "resident_bytes": memory["used_memory_rss"]}
    return {"people": size, **told, **_read(settings, size)}


def _by_events(peopled: Peopled, events: int) -> dict[str, Any]:
    """Compares what people with so many events take with what nobody takes."""
    peopled.server.flush()
    empty = _used_memory(peopled)
    fill_redis(peopled, invent(_people(0, _OF_EACH_LENGTH), _MOVIE_IDS, events))
    return {"events": events, "bytes": (_used_memory(peopled) - empty) / _OF_EACH_LENGTH}


def _used_memory(peopled: Peopled) -> int:
    return int(peopled.server.ask.info("memory")["used_memory"])


def _read(settings: UserEncoderSettings, people: int) -> dict[str, float]:
    taken_ms = uvloop.run(_timed_reads(settings, people))
    return {"p50_ms": float(np.percentile(taken_ms, 50)), "p99_ms": float(np.percentile(taken_ms, 99))}


async def _timed_reads(settings: UserEncoderSettings, people: int) -> list[float]:
    drawn, taken_ms = random.Random(_SEED), []
    async with aclosing(open_store(settings)) as store:
        for number in range(_WARM_UP + _READS):
            user = f"person-{drawn.randrange(people)}"
            started = time.perf_counter()
            history = await store.read(user)
            if number >= _WARM_UP:
                taken_ms.append(1e3 * (time.perf_counter() - started))
            assert history.size == EVENTS, f"{user} has {history.size} events"
    return taken_ms


def _extrapolated(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Goes on with the lines through the last two sizes: bytes by people, milliseconds by their logarithm."""
    people = [row["people"] for row in rows]
    beyond = _BEYOND * people[-1]
    magnitudes = list(map(math.log10, people))
    read = {at: Curve(magnitudes, [row[at] for row in rows]).at(math.log10(beyond)) for at in ("p50_ms", "p99_ms")}
    size = Curve(people, [row["bytes"] for row in rows]).at(beyond)
    return {"people": beyond, "bytes": size, **read, "extrapolated": True}
