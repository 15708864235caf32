"""People who are put into stores in bulk are read by the stores as if they had been recorded."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.growing_users import measure as measure_users
from benchmarks.machine import Shares
from benchmarks.people import Peopled, fill_redis, fill_sqlite, invent
from benchmarks.processes import ANY_CORE, Processes
from benchmarks.work import Work
from marquee.features import Events
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.opening import open_store
from tests.redis_rigs import redis_server

MOVIE_IDS = np.arange(1, 301)
PEOPLE = [f"person-{number}" for number in range(1_200)]


def test_invented_people_rate_different_movies_in_order() -> None:
    people = dict(invent(PEOPLE[:50], MOVIE_IDS, 200))
    assert list(people) == PEOPLE[:50]
    for events in people.values():
        assert len(set(events.movie_ids.tolist())) == 200
        assert (np.diff(events.times_ms) > 0).all()
        assert set(events.values.tolist()) <= {stars / 2 for stars in range(1, 11)}


async def check(settings: UserEncoderSettings, expected: dict[str, Events]) -> None:
    async with aclosing(open_store(settings)) as store:
        for user, events in expected.items():
            found = await store.read(user)
            assert [column.tolist() for column in found] == [column.tolist() for column in events]


async def test_sqlite(tmp_path: Path) -> None:
    store = tmp_path / "features.sqlite"
    fill_sqlite(store, invent(PEOPLE, MOVIE_IDS, 20))
    await check(UserEncoderSettings(store=str(store)), dict(invent(PEOPLE, MOVIE_IDS, 20)))


async def test_redis(tmp_path: Path) -> None:
    key = tmp_path / "store.key"
    key.write_bytes(bytes(range(32)))
    with redis_server(tmp_path / "redis") as server:
        fill_redis(Peopled(server, key), invent(PEOPLE, MOVIE_IDS, 20))
        settings = UserEncoderSettings(store=server.url, store_key=key)
        await check(settings, dict(invent(PEOPLE, MOVIE_IDS, 20)))


def test_what_people_take_grows_with_them_and_goes_on_beyond(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        found = measure_users(Work(tmp_path, tmp_path, processes), Shares(ANY_CORE, ANY_CORE), 10_000)
    for store, least in (("sqlite", 50 * 21), ("redis", 50 * 21)):
        first, second, beyond = found[store]
        assert [row["people"] for row in found[store]] == [1_000, 10_000, 100_000]
        each = (second["bytes"] - first["bytes"]) / 9_000
        assert each > least
        assert beyond["bytes"] == pytest.approx(second["bytes"] + 90_000 * each)
        assert beyond["extrapolated"]
        assert "extrapolated" not in second
    bytes_each = [row["bytes"] for row in found["redis_by_events"]]
    assert bytes_each == sorted(bytes_each)
    assert bytes_each[-1] == pytest.approx(1_000 * 21, rel=0.3)
