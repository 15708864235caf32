"""How fast ratings are imported into either store, and what a person takes in a Redis."""

from __future__ import annotations

import random
import re
import statistics
from pathlib import Path

from benchmarks.report import Row
from benchmarks.work import Work, say
from marquee.features import MAX_EVENTS
from tests.redis_rigs import RedisServer, redis_server

_TIMES = 5
_FEW = 50
_RATE = re.compile(r"\(([\d,]+) rows/s\)")


def measure(work: Work) -> list[Row]:
    """Imports the data into new stores, in turn, and then two people, of whom one has all events that are kept."""
    say("importing events into SQLite and Redis")
    key, folder = work.folder / "stores.key", work.folder / "stores-redis"
    key.write_bytes(random.Random(0).randbytes(32))
    folder.mkdir()
    with redis_server(folder) as server:
        redis = ("--store", server.url, "--store-key", key)
        rates: dict[str, list[float]] = {"SQLite": [], "Redis": []}
        for number in range(_TIMES):
            rates["SQLite"].append(_import(work, work.data, number, "--store", work.folder / f"stores-{number}.sqlite"))
            server.flush()
            rates["Redis"].append(_import(work, work.data, number, *redis))
        server.flush()
        _import(work, _two_people(work.folder / "two-people"), 0, *redis)
        sizes = _sizes(server)
    return [*(_rate_row(store, found) for store, found in rates.items()), *_size_rows(sizes)]


def _import(work: Work, data: str | Path, number: int, *store: str | Path) -> float:
    """Imports from the start; returns rows a second, as the command says."""
    progress = work.folder / f"{Path(data).name}-{number}-{Path(store[1]).name}.json"
    told = ("--data", data, "--progress", progress, *store)
    said = work.processes.run("services.user_encoder", "import-events", *told).stdout
    found = _RATE.search(said)
    assert found is not None, said
    return float(found[1].replace(",", ""))


def _two_people(folder: Path) -> Path:
    folder.mkdir()
    rows = [
        f"{user},{movie},4.0,{1_500_000_000 + movie}"
        for user, count in ((1, _FEW), (2, MAX_EVENTS))
        for movie in range(1, count + 1)
    ]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows, ""]))
    return folder


def _sizes(server: RedisServer) -> list[int]:
    return sorted(server.ask.memory_usage(key) for key in server.ask.keys("marquee:*:history"))


def _rate_row(store: str, rates: list[float]) -> Row:
    beside = f"{min(rates):,.0f} to {max(rates):,.0f} in {len(rates)} new stores; as the command says"
    return Row(
        "stores",
        f"import-events, {store}: events a second",
        statistics.median(rates),
        "/s",
        50_000.0,
        beside,
        at_least=True,
        readings=rates,
    )


def _size_rows(sizes: list[int]) -> list[Row]:
    counts = (_FEW, MAX_EVENTS)
    return [
        Row("stores", f"a person of {count:,} events in a Redis", size / 1e3, "kB", None, "MEMORY USAGE of the history")
        for count, size in zip(counts, sizes, strict=True)
    ]
