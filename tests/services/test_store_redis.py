"""What only the Redis store does: its keys, its servers, their files, a Cluster that changes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio.connection import Connection
from redis.crc import key_slot
from redis.exceptions import ConnectionError

from marquee.errors import StoreUnavailable
from marquee.features import LIKED, Events
from services.user_encoder.stores.base import UserWrite, Written, pack
from services.user_encoder.stores.redis_store import RedisStore
from services.user_encoder.stores.redis_url import parse_redis_url
from services.user_encoder.stores.tags import KEY_BYTES, Tags
from tests.redis_rigs import RedisCluster, RedisServer, redis_cluster, redis_server, until
from tests.rigs import eventually

TAGS = Tags(bytes(KEY_BYTES))
PATIENCE_S = 30.0


def open_store(server: RedisServer | RedisCluster, tags: Tags = TAGS) -> RedisStore:
    return RedisStore(parse_redis_url(server.url), tags, read_timeout_s=1.0, write_timeout_s=2.0)


@pytest.fixture
def server(redis_one: RedisServer) -> RedisServer:
    redis_one.flush()
    return redis_one


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    async with aclosing(open_store(server)) as opened:
        yield opened


@pytest.fixture
def cluster(redis_six: RedisCluster) -> RedisCluster:
    redis_six.flush()
    return redis_six


def liked(*movies: int) -> Events:
    ids = np.array(movies, np.int64)
    return Events(ids, np.full(len(ids), LIKED), np.zeros(len(ids), np.float32), ids * 1000)


def key_of(user_id: str, what: str = "history") -> bytes:
    return f"marquee:{{{TAGS.of(user_id).hex()}}}:{what}".encode()


async def test_names_of_keys_tell_nobodys_id(store: RedisStore, server: RedisServer) -> None:
    await store.write([UserWrite("{ada}", liked(1), ("led-by",)), UserWrite("bob", liked(1))])
    await store.delete("bob", 10**9)
    expected = [key_of("bob", "deleted"), key_of("{ada}"), key_of("{ada}", "requests"), b"marquee:key-check"]
    # Until the files are written anew.
    expected.append(b"marquee:files-to-clean")
    assert sorted(server.ask.keys()) == sorted(expected)
    assert server.ask.get(key_of("bob", "deleted")) == b"1000000000"
    assert server.ask.get(key_of("{ada}", "requests")) == b'[[1000,1,2,"led-by"]]'
    assert server.ask.get(key_of("{ada}")).startswith(pack(liked(1)) + b"{ada}")


async def test_a_write_that_changes_nothing_writes_nothing(store: RedisStore, server: RedisServer) -> None:
    write = UserWrite("ada", liked(1), ("led-by",))
    await store.write([write])
    before = server.ask.get(key_of("ada"))
    assert await store.write([write]) == [Written(False)]
    assert server.ask.get(key_of("ada")) == before


async def test_a_read_is_one_command(store: RedisStore, server: RedisServer) -> None:
    await store.write([UserWrite("ada", liked(1))])
    await store.read("ada")
    before = server.ask.info("stats")["total_commands_processed"]
    await store.read("ada")
    # And the one that asks.
    assert server.ask.info("stats")["total_commands_processed"] == before + 2


@pytest.mark.parametrize("value", [b"", b"short", b"x" * 60, None])
async def test_a_damaged_value_is_told(store: RedisStore, server: RedisServer, value: bytes | None) -> None:
    await store.write([UserWrite("ada", liked(1)), UserWrite("bob", liked(1))])
    server.ask.set(key_of("ada"), server.ask.get(key_of("bob")) if value is None else value)
    with pytest.raises(StoreUnavailable, match="the store is damaged"):
        await store.read("ada")
    found = await store.read_many(["ada", "bob"])
    assert [one.size if isinstance(one, Events) else "damaged" for one in found] == ["damaged", 1]
    written = await store.write([UserWrite("ada", liked(2)), UserWrite("bob", liked(2))])
    assert [one if isinstance(one, Written) else "damaged" for one in written] == ["damaged", Written(True)]


async def test_another_key_is_refused(store: RedisStore, server: RedisServer) -> None:
    await store.write([UserWrite("ada", liked(1))])
    async with aclosing(open_store(server, Tags(b"k" * KEY_BYTES))) as other:
        for call in (other.read("ada"), other.write([UserWrite("ada", liked(2))]), other.delete("ada", 1)):
            with pytest.raises(StoreUnavailable, match="give every encoder the same key file"):
                await call


async def test_a_full_redis_takes_deletions(store: RedisStore, server: RedisServer) -> None:
    await store.write([UserWrite("ada", liked(1))])
    server.ask.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable, match=r"is full.*nothing was recorded; give it more memory"):
            await store.write([UserWrite("ada", liked(2))])
        assert await store.delete("ada", 10**9) is True
        assert server.ask.keys("*ada*") == []
    finally:
        server.ask.config_set("maxmemory", "0")
    assert await store.write([UserWrite("ada", liked(2))]) == [Written(False, 10**9)]


async def test_a_cluster_that_is_taken_for_one_server_is_told(cluster: RedisCluster) -> None:
    url = parse_redis_url(cluster.servers[0].url)
    async with aclosing(RedisStore(url, TAGS)) as store:
        with pytest.raises(StoreUnavailable, match=r"is a Cluster; write redis\+cluster:// in MARQUEE_STORE"):
            await store.read_many([f"person {number}" for number in range(30)])


async def test_one_server_that_is_taken_for_a_cluster_is_told(server: RedisServer) -> None:
    url = parse_redis_url(server.url.replace("redis:", "redis+cluster:"))
    async with aclosing(RedisStore(url, TAGS)) as store:
        with pytest.raises(StoreUnavailable, match=r"is no Cluster; write redis:// in MARQUEE_STORE"):
            await store.read("ada")


async def test_nobody_listens(tmp_path: Path) -> None:
    with redis_server(tmp_path) as gone:
        url = parse_redis_url(gone.url.replace("//", "//ada:s3cret@"))
    async with aclosing(RedisStore(url, TAGS)) as store:
        with pytest.raises(StoreUnavailable, match=rf"Redis at 127.0.0.1:{gone.port}: cannot be used") as caught:
            await store.read("ada")
    assert "s3cret" not in str(caught.value)


async def test_a_password_is_asked_for(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--save", "") as locked:
        locked.ask.config_set("requirepass", "p@ss:w/rd")
        async with aclosing(RedisStore(parse_redis_url(locked.url), TAGS)) as store:
            with pytest.raises(StoreUnavailable, match="refuses the user or the password; see MARQUEE_STORE"):
                await store.read("ada")
        url = parse_redis_url(locked.url.replace("//", "//:p%40ss%3Aw%2Frd@"))
        async with aclosing(RedisStore(url, TAGS)) as store:
            assert await store.write([UserWrite("ada", liked(1))]) == [Written(True)]


async def test_a_lost_channel_is_told_and_found_again(store: RedisStore, server: RedisServer) -> None:
    heard: asyncio.Queue[bytes | None] = asyncio.Queue()
    watching = asyncio.ensure_future(store.watch_deletions(heard.put_nowait))
    async with asyncio.timeout(PATIENCE_S):
        assert await heard.get() is None
        await store.delete("ada", 1)
        assert await heard.get() == TAGS.of("ada")
        server.ask.client_kill_filter(_type="pubsub")
        assert await heard.get() is None
        await store.delete("bob", 1)
        assert await heard.get() == TAGS.of("bob")
    watching.cancel()
    await asyncio.wait([watching])


async def test_a_deletion_is_heard_on_every_node_of_a_cluster(cluster: RedisCluster) -> None:
    async with aclosing(open_store(cluster)) as store:
        await store.write([UserWrite("ada", liked(1))])
        listeners = [server.ask.pubsub() for server in cluster.servers]
        for listener in listeners:
            listener.subscribe("marquee:deletions")
            assert listener.get_message(timeout=PATIENCE_S)["type"] == "subscribe"
        await store.delete("ada", 1)
        for listener in listeners:
            assert listener.get_message(timeout=PATIENCE_S)["data"] == TAGS.of("ada")
            listener.close()


async def test_a_scan_starts_again_after_a_restart(tmp_path: Path) -> None:
    people = {f"person {number}" for number in range(40)}
    with redis_server(tmp_path, "--appendonly", "yes") as kept:
        async with aclosing(open_store(kept)) as store:
            await store.write([UserWrite(user_id, liked(1)) for user_id in people])
            # SCAN looks at a thousand keys at least: others' keys lie between people's.
            kept.ask.mset({f"other {number}": "" for number in range(20_000)})
            page = await store.scan("", 3)
            assert page.cursor
            assert 0 < page.part < 1
        kept.signal(signal.SIGKILL)
        kept.start()
        found: set[str] = set()
        async with aclosing(open_store(kept)) as store:
            while page.cursor:
                page = await store.scan(page.cursor, 3)
                found |= {user_id for user_id, _ in page.people}
    assert found == people


async def test_a_page_may_end_within_a_slot(cluster: RedisCluster) -> None:
    slot = key_slot(key_of("person 0"))
    together = [f"person {number}" for number in range(60_000) if key_slot(key_of(f"person {number}")) == slot]
    assert len(together) > 2
    async with aclosing(open_store(cluster)) as store:
        await store.write([UserWrite(user_id, liked(1)) for user_id in together])
        found: list[str] = []
        page = await store.scan("", 2)
        while True:
            found += [user_id for user_id, _ in page.people]
            if not page.cursor:
                break
            page = await store.scan(page.cursor, 2)
    assert sorted(found) == sorted(together)


async def test_a_slot_that_moves_loses_nothing(cluster: RedisCluster) -> None:
    key = key_of("ada")
    slot, source = key_slot(key), cluster.owner_of(key)
    target = next(server for server in cluster.primaries if server is not source)
    ids = {server: server.ask.cluster("MYID").decode() for server in (source, target)}

    async with aclosing(open_store(cluster)) as store:
        await store.write([UserWrite("ada", liked(1)), UserWrite("bob", liked(1))])
        target.ask.cluster("SETSLOT", slot, "IMPORTING", ids[source])
        source.ask.cluster("SETSLOT", slot, "MIGRATING", ids[target])
        # Of a person's keys, the one that is there is still at the source, and the others would be made at the target.
        writing = asyncio.ensure_future(store.write([UserWrite("ada", liked(2)), UserWrite("bob", liked(2))]))
        await asyncio.sleep(0.05)
        assert (await store.read("ada")).size == 1
        source.ask.migrate("127.0.0.1", target.port, [key], 0, 5000)
        # The source answers ASK.
        assert (await store.read("ada")).size == 1
        for server in (target, source):
            server.ask.cluster("SETSLOT", slot, "NODE", ids[target])
        # And from here on MOVED.
        assert await writing == [Written(True)] * 2
        assert (await store.read("ada")).size == 2
        assert target.ask.get(key) is not None
        assert await store.delete("ada", 10**9) is True
    until(lambda: cluster.owner_of(key) is target, "all to know the new owner")


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    with redis_cluster(tmp_path / "cluster", "--appendonly", "yes") as started:
        yield started


async def test_a_cluster_that_loses_a_primary_goes_on(own_cluster: RedisCluster) -> None:
    async with aclosing(open_store(own_cluster)) as store:
        people = [f"person {number}" for number in range(60)]
        await store.write([UserWrite(user_id, liked(1)) for user_id in people])
        lost = own_cluster.owner_of(key_of(people[0]))
        of_lost = {user_id for user_id in people if own_cluster.owner_of(key_of(user_id)) is lost}
        lost.ask.wait(1, 5000)
        lost.signal(signal.SIGKILL)
        # The others' people are read as before, at once.
        found = await store.read_many(people)
        assert {user_id for user_id, one in zip(people, found, strict=True) if isinstance(one, Events)} >= (
            set(people) - of_lost
        )
        written = await store.write([UserWrite(user_id, liked(1)) for user_id in people])
        assert {user_id for user_id, one in zip(people, written, strict=True) if isinstance(one, Written)} >= (
            set(people) - of_lost
        )
        await eventually(lambda: _written(store, people[0]))

        async def all_are_read() -> bool:
            found = await store.read_many(people)
            return [one.size if isinstance(one, Events) else 0 for one in found] == [2] + [1] * 59

        await eventually(all_are_read)
        lost.start()
        await eventually(lambda: _written(store, people[0]))


async def _written(store: RedisStore, user_id: str) -> bool:
    [written] = await store.write([UserWrite(user_id, liked(2))])
    return isinstance(written, Written)


PLANTED_ID, PLANTED_MOVIE = "the-planted-person@example.org", 0x4D4F564945


def planted(folder: Path) -> bool:
    """Says whether the planted person's id or movie is in any file of a server."""
    kept = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    return PLANTED_ID.encode() in kept or PLANTED_MOVIE.to_bytes(8, "little") in kept


async def plant_and_delete(store: RedisStore, servers: list[RedisServer]) -> None:
    await store.write([UserWrite(PLANTED_ID, liked(PLANTED_MOVIE), ("led-by",)), UserWrite("bob", liked(1))])
    for server in servers:
        server.ask.config_set("appendfsync", "always")
        server.ask.save()
    assert any(planted(server.folder) for server in servers)
    assert await store.delete(PLANTED_ID, 2**62) is True


async def check_it_is_gone(store: RedisStore, servers: list[RedisServer]) -> None:
    await eventually(lambda: not any(planted(server.folder) for server in servers))
    names = {key for server in servers for key in server.ask.keys(f"*{TAGS.of(PLANTED_ID).hex()}*")}
    assert names == {key_of(PLANTED_ID, "deleted")}


@pytest.mark.parametrize("kept", ["appendonly", "save"])
async def test_a_deletion_leaves_nothing_in_the_files(tmp_path: Path, kept: str) -> None:
    with redis_server(tmp_path / "kept", "--appendonly", "yes" if kept == "appendonly" else "no") as server:
        server.ask.config_set("save", "3600 1" if kept == "save" else "")
        async with aclosing(open_store(server)) as store:
            await plant_and_delete(store, [server])
            await check_it_is_gone(store, [server])
        server.signal(signal.SIGKILL)
        assert not planted(server.folder)
        server.start()
        async with aclosing(open_store(server)) as store:
            assert (await store.read("bob")).size == 1
            assert await store.write([UserWrite(PLANTED_ID, liked(PLANTED_MOVIE))]) == [Written(False, 2**62)]


async def test_a_redis_that_keeps_nothing_is_not_made_to(tmp_path: Path) -> None:
    with redis_server(tmp_path / "kept", "--save", "") as server:
        async with aclosing(open_store(server)) as store:
            await store.delete("ada", 1)
        assert [file.name for file in server.folder.iterdir()] == ["server.log"]


async def test_a_deletion_leaves_nothing_in_the_files_of_a_cluster(own_cluster: RedisCluster) -> None:
    async with aclosing(open_store(own_cluster)) as store:
        await plant_and_delete(store, own_cluster.servers)
        await check_it_is_gone(store, own_cluster.servers)


async def test_closing_waits_for_the_files(tmp_path: Path) -> None:
    with redis_server(tmp_path / "kept", "--appendonly", "yes") as server:
        async with aclosing(open_store(server)) as store:
            await plant_and_delete(store, [server])
        assert not planted(server.folder)


async def test_another_encoder_sees_to_the_files_that_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path / "kept", "--appendonly", "yes") as server:
        async with aclosing(open_store(server)) as killed, aclosing(open_store(server)) as other:
            monkeypatch.setattr(killed._files, "clean", lambda: None)
            await plant_and_delete(killed, [server])
            watching = asyncio.ensure_future(other.watch_deletions(lambda _: None))
            await check_it_is_gone(other, [server])
            await eventually(lambda: server.ask.get("marquee:files-to-clean") is None)
            watching.cancel()
            await asyncio.wait([watching])


async def test_a_redis_that_may_not_be_asked_for_new_files_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server(tmp_path / "kept", "--appendonly", "yes", "--rename-command", "BGREWRITEAOF", "") as kept:
        async with aclosing(open_store(kept)) as store:
            assert await store.delete("ada", 1) is False
        assert "its files still hold what was deleted" in caplog.text
        assert "run BGREWRITEAOF and BGSAVE on each of its servers" in caplog.text


async def test_listening_ends_also_where_the_library_makes_an_error_of_a_cancellation(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, waits = Connection.read_response, asyncio.Event()

    async def read_response(self: Connection, *arguments: Any, **options: Any) -> Any:
        if "timeout" in options:
            waits.set()
        try:
            return await read(self, *arguments, **options)
        except asyncio.CancelledError as error:
            raise ConnectionError("lost") from error

    monkeypatch.setattr(Connection, "read_response", read_response)
    listening = asyncio.ensure_future(store.watch_deletions(lambda _: None))
    await asyncio.wait_for(waits.wait(), PATIENCE_S)
    listening.cancel()
    done, _ = await asyncio.wait([listening], timeout=PATIENCE_S)
    assert done
    assert listening.cancelled()
