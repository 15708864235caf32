"""What every feature store does, whatever keeps the bytes: each new store joins `STORES` and passes all of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee.errors import StoreUnavailable
from marquee.features import LIKED, MAX_EVENTS, NO_EVENTS, RATED, RETRACTED, Events, union, user_hash
from services.user_encoder.stores.base import FeatureStore, UserWrite, Written, pack, unpack
from services.user_encoder.stores.redis_store import RedisStore
from services.user_encoder.stores.redis_url import parse_redis_url
from services.user_encoder.stores.sqlite import SqliteStore
from services.user_encoder.stores.tags import KEY_BYTES, Tags

TAGS = Tags(bytes(KEY_BYTES))

OpenStore = Callable[[], FeatureStore]


def sqlite_store(request: pytest.FixtureRequest) -> FeatureStore:
    return SqliteStore(request.getfixturevalue("tmp_path") / "features.sqlite")


def redis_store(request: pytest.FixtureRequest) -> FeatureStore:
    return RedisStore(parse_redis_url(request.getfixturevalue("redis_one").url), TAGS)


def cluster_store(request: pytest.FixtureRequest) -> FeatureStore:
    return RedisStore(parse_redis_url(request.getfixturevalue("redis_six").url), TAGS)


STORES = {"sqlite": sqlite_store, "redis": redis_store, "cluster": cluster_store}
SERVERS = {"redis": "redis_one", "cluster": "redis_six"}


@pytest.fixture(params=STORES)
async def open_store(request: pytest.FixtureRequest) -> AsyncIterator[OpenStore]:
    """Opens the same storage again with each call, as another process would."""
    if request.param in SERVERS:
        request.getfixturevalue(SERVERS[request.param]).flush()
    async with AsyncExitStack() as stack:

        def open_one() -> FeatureStore:
            store = STORES[request.param](request)
            stack.push_async_callback(store.aclose)
            return store

        yield open_one


@pytest.fixture
def store(open_store: OpenStore) -> FeatureStore:
    return open_store()


def events(*rows: tuple[int, int, float, int]) -> Events:
    movie_ids, kinds, values, times_ms = zip(*rows, strict=True)
    return Events(
        np.array(movie_ids, np.int64),
        np.array(kinds, np.int64),
        np.array(values, np.float32),
        np.array(times_ms, np.int64),
    )


def rated(movie: int, stars: float, time_ms: int) -> Events:
    return events((movie, RATED, stars, time_ms))


def equal(one: Events, other: Events) -> bool:
    return all(getattr(one, name).tolist() == getattr(other, name).tolist() for name in Events._fields)


async def movies_of(store: FeatureStore, *user_ids: str) -> list[list[int]]:
    read = await store.read_many(user_ids)
    return [one.movie_ids.tolist() for one in read if isinstance(one, Events)]


async def test_nobody_is_there_at_first(store: FeatureStore) -> None:
    assert (await store.read("ada")).size == 0
    assert await movies_of(store, "ada", "bob") == [[], []]


async def test_what_was_written_is_read(store: FeatureStore, open_store: OpenStore) -> None:
    written = events((7, RATED, 4.5, 1_000), (2**62, LIKED, 0, 2_000))
    assert await store.write([UserWrite("ada", written)]) == [Written(True)]
    assert equal(await store.read("ada"), written)
    assert equal(await open_store().read("ada"), written)
    assert (await store.read("Ada")).size == 0


async def test_histories_are_read_in_the_order_asked(store: FeatureStore) -> None:
    await store.write([UserWrite("ada", rated(1, 4, 10)), UserWrite("bob", rated(2, 4, 10))])
    assert await movies_of(store, "bob", "nobody", "ada", "bob") == [[2], [], [1], [2]]


async def test_writing_again_changes_nothing(store: FeatureStore) -> None:
    write = UserWrite("ada", rated(1, 4, 10), ("a-request",))
    assert await store.write([write, UserWrite("bob", rated(1, 4, 10))]) == [Written(True), Written(True)]
    before = await store.read("ada")
    assert await store.write([write, UserWrite("bob", rated(2, 4, 10))]) == [Written(False), Written(True)]
    assert equal(await store.read("ada"), before)


async def test_the_later_write_wins_at_equal_time(store: FeatureStore) -> None:
    await store.write([UserWrite("ada", rated(1, 4, 10)), UserWrite("ada", rated(1, 2, 10))])
    assert (await store.read("ada")).values.tolist() == [2]
    await store.write([UserWrite("ada", rated(1, 5, 10))])
    assert (await store.read("ada")).values.tolist() == [5]


async def test_a_late_older_event_stays_retracted(store: FeatureStore) -> None:
    await store.write([UserWrite("ada", rated(1, 4, 10))])
    await store.write([UserWrite("ada", events((1, RETRACTED, 0, 20)))])
    assert await store.write([UserWrite("ada", rated(1, 3, 15))]) == [Written(False)]
    assert (await store.read("ada")).kinds.tolist() == [RETRACTED]
    await store.write([UserWrite("ada", rated(1, 3, 21))])
    assert (await store.read("ada")).kinds.tolist() == [RETRACTED, RATED]


async def test_the_oldest_events_go_first(store: FeatureStore) -> None:
    movie_ids = np.arange(1, MAX_EVENTS + 1)
    full = Events(movie_ids, np.full(MAX_EVENTS, LIKED), np.zeros(MAX_EVENTS, np.float32), movie_ids * 10)
    await store.write([UserWrite("ada", full)])
    await store.write([UserWrite("ada", rated(77_777, 4, 15))])
    kept = await store.read("ada")
    assert kept.size == MAX_EVENTS
    assert kept.movie_ids[:3].tolist() == [77_777, 2, 3]
    assert await store.write([UserWrite("ada", rated(88_888, 4, 5))]) == [Written(False)]


async def test_a_store_keeps_what_union_says(store: FeatureStore) -> None:
    rng = np.random.default_rng(3)
    expected = NO_EVENTS
    for _ in range(30):
        size = int(rng.integers(1, 8))
        some = Events(
            rng.integers(1, 6, size),
            rng.choice([RATED, LIKED, RETRACTED], size),
            (rng.integers(1, 11, size) / 2).astype(np.float32),
            rng.integers(0, 20, size),
        )
        expected = union(expected, some, user_hash("ada"))
        await store.write([UserWrite("ada", some)])
        assert equal(await store.read("ada"), expected)


async def test_writes_at_once_lose_nothing(store: FeatureStore, open_store: OpenStore) -> None:
    other = open_store()
    writers = [store, other] * 50
    writes = [one.write([UserWrite("ada", rated(movie, 4, movie))]) for movie, one in enumerate(writers, 1)]
    assert await asyncio.gather(*writes) == [[Written(True)]] * 100
    assert (await store.read("ada")).movie_ids.tolist() == list(range(1, 101))


async def test_each_of_the_writes_at_once_gets_its_own_answer(store: FeatureStore) -> None:
    await store.write([UserWrite("old", rated(1, 4, 10))])
    old, new = UserWrite("old", rated(1, 4, 10)), UserWrite("new", rated(1, 4, 10))
    answers = await asyncio.gather(store.write([old]), store.write([old, new]), store.write([]), store.write([old]))
    assert list(answers) == [[Written(False)], [Written(False), Written(True)], [], [Written(False)]]


async def test_a_caller_that_gives_up_takes_no_other_along(store: FeatureStore) -> None:
    first, second = (asyncio.ensure_future(store.write([UserWrite(name, rated(1, 4, 10))])) for name in ("ada", "bob"))
    await asyncio.wait([first, second], timeout=0)
    first.cancel()
    assert await second == [Written(True)]
    assert first.cancelled()


async def test_a_deleted_person_is_gone_and_late_events_do_not_bring_them_back(
    store: FeatureStore, open_store: OpenStore
) -> None:
    await store.write([UserWrite("ada", rated(1, 4, 10), ("a-request",)), UserWrite("bob", rated(1, 4, 10))])
    await store.write([UserWrite("ada", rated(2, 4, 500))])
    assert await store.delete("ada", 100) is True
    other = open_store()
    assert await movies_of(other, "ada", "bob") == [[], [1]]
    assert await other.write([UserWrite("ada", rated(3, 4, 100), ("late",))]) == [Written(False, 100)]
    mixed = UserWrite("ada", events((4, RATED, 4, 99), (5, RATED, 4, 101), (6, RATED, 4, 100)), ("x", "y", "z"))
    assert await store.write([mixed, mixed]) == [Written(True, 100), Written(False, 100)]
    assert await movies_of(other, "ada", "bob") == [[5], [1]]


async def test_deleting_says_whether_there_was_somebody(store: FeatureStore) -> None:
    assert await store.delete("ada", 100) is False
    assert await store.write([UserWrite("ada", rated(1, 4, 100))]) == [Written(False, 100)]
    await store.write([UserWrite("ada", rated(1, 4, 101))])
    assert await store.delete("ada", 150) is True
    assert await store.delete("ada", 150) is False


async def test_a_tombstone_never_moves_back(store: FeatureStore) -> None:
    for at_ms, stands in ((100, 100), (99, 100), (9, 100), (1_000, 1_000), (999, 1_000), (2**62, 2**62)):
        await store.delete("ada", at_ms)
        assert await store.write([UserWrite("ada", rated(1, 4, 5))]) == [Written(False, stands)]


async def test_writers_do_not_bring_back_whom_another_deletes(store: FeatureStore, open_store: OpenStore) -> None:
    other = open_store()
    await store.write([UserWrite("ada", rated(1, 4, 1))])
    writes = [(store, other)[at % 2].write([UserWrite("ada", rated(at, 4, at))]) for at in range(1, 61)]
    written = asyncio.gather(*writes)
    await asyncio.sleep(0)
    deleted = await other.delete("ada", 40)
    outcomes = await written
    assert deleted
    kept = await movies_of(store, "ada")
    # What was written after the deletion is there; older events are not, whenever they came.
    assert kept == [[at for at in kept[0] if at > 40]]
    refused = {at for at, [one] in enumerate(outcomes, 1) if isinstance(one, Written) and one.deleted_at_ms}
    assert {at for at in refused if at > 40} <= set(kept[0])


async def scan(store: FeatureStore, open_store: OpenStore, limit: int) -> list[tuple[str, list[int]]]:
    """Reads everybody, each page with a store of its own."""
    found: list[tuple[str, list[int]]] = []
    page = await store.scan("", limit)
    while True:
        found += [(user_id, history.movie_ids.tolist()) for user_id, history in page.people]
        assert 0 <= page.part <= 1
        if not page.cursor:
            return found
        page = await open_store().scan(page.cursor, limit)


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_a_scan_finds_everybody_once(store: FeatureStore, open_store: OpenStore, limit: int) -> None:
    people = {f"person {number} {{1}}": [number] for number in range(1, 16)}
    await store.write([UserWrite(user_id, rated(movies[0], 4, 10)) for user_id, movies in people.items()])
    await store.write([UserWrite("person 1 {1}", events((1, RETRACTED, 0, 20))), UserWrite("gone", rated(1, 4, 10))])
    await store.delete("gone", 100)
    found = await scan(store, open_store, limit)
    assert sorted(found) == sorted(people.items())


async def test_a_scan_of_nobody_ends(store: FeatureStore) -> None:
    assert await store.scan("", 10) == ([], "", 1.0)


async def test_people_who_come_and_go_do_not_hide_others(store: FeatureStore, open_store: OpenStore) -> None:
    people = [f"person {number}" for number in range(20)]
    await store.write([UserWrite(user_id, rated(1, 4, 10)) for user_id in people])
    page = await store.scan("", 5)
    found = [user_id for user_id, _ in page.people]
    await store.delete(found[-1], 100)
    await store.write([UserWrite(f"newcomer {number}", rated(1, 4, 10)) for number in range(20)])
    while page.cursor:
        page = await store.scan(page.cursor, 5)
        found += [user_id for user_id, _ in page.people]
    assert set(people) <= set(found)


STRANGE = [
    "x",
    "ada",
    "-1",
    "\u0663",
    "sqlite:",
    "sqlite:1e3",
    f"sqlite:{2**63}",
    "redis:1:",
    "redis:x:y",
    "redis:1:2:3",
]
STRANGE += ["cluster:1:zz", "cluster:-1:"]


@pytest.mark.parametrize("cursor", STRANGE)
async def test_a_strange_cursor_is_refused(store: FeatureStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="is no cursor"):
        await store.scan(cursor, 10)


async def test_deletions_by_others_are_told(store: FeatureStore, open_store: OpenStore) -> None:
    await store.write([UserWrite("ada", rated(1, 4, 10))])
    heard: asyncio.Queue[bytes | None] = asyncio.Queue()
    async with asyncio.timeout(30):
        watching = asyncio.ensure_future(store.watch_deletions(heard.put_nowait))
        other = open_store()
        for user_id, at_ms in (("ada", 100), ("bob", 100), ("ada", 200)):
            # A store that could have missed some says so first; who is told so hears of all that comes then.
            while True:
                await other.delete(user_id, at_ms)
                with contextlib.suppress(TimeoutError):
                    while await asyncio.wait_for(heard.get(), 2.0) != store.digest(user_id):
                        pass
                    break
        watching.cancel()
        await asyncio.wait([watching])
    assert watching.cancelled()


NAMES = ["a", "'; DROP TABLE histories; --", "日本", "%", "a" * 256, "e\u0301", "\u00e9", " ", "\U0001f3ac" * 64]


async def test_every_name_is_its_own_person(store: FeatureStore) -> None:
    await store.write([UserWrite(name, rated(at, 4, 10)) for at, name in enumerate(NAMES, 1)])
    assert await movies_of(store, *NAMES) == [[at] for at in range(1, len(NAMES) + 1)]


async def test_an_answered_write_outlives_the_store(open_store: OpenStore) -> None:
    # Opened and closed by hand: the write that closing has to wait for was never awaited.
    async with aclosing(open_store()) as first:
        running = asyncio.ensure_future(first.write([UserWrite("ada", rated(1, 4, 10))]))
        await asyncio.wait([running], timeout=0)
    assert await running == [Written(True)]
    assert (await open_store().read("ada")).size == 1


COLUMN = st.tuples(st.integers(1, 2**63 - 1), st.integers(1, 8), st.floats(0, 5, width=32), st.integers(0, 2**63 - 1))


@given(st.lists(COLUMN, max_size=9))
def test_packing_keeps_every_bit(rows: list[tuple[int, int, float, int]]) -> None:
    history = events(*rows) if rows else NO_EVENTS
    blob = pack(history)
    assert len(blob) == 21 * history.size
    assert equal(unpack(blob), history)


def test_a_packed_history_is_little_endian_columns() -> None:
    packed = pack(events((2, LIKED, 0, 256), (3, RATED, 0.5, 257)))
    assert packed.hex() == (
        "0001000000000000" "0101000000000000"  # times
        "0200000000000000" "0300000000000000"  # movies
        "00000000" "0000003f"  # values
        "02" "01"  # kinds
    )  # fmt: skip


def test_a_cut_history_is_refused() -> None:
    with pytest.raises(StoreUnavailable, match="no whole number of events"):
        unpack(b"\0" * 22)
