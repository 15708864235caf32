"""The block list: read again when it changes, kept when it breaks, and held by every answer."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import grpc.aio
import numpy as np
import pytest

from marquee.errors import ConfigError
from marquee.v1 import retriever_pb2, retriever_pb2_grpc
from services.common.settings import load_settings
from services.retriever.block_list import BlockList
from services.retriever.blocked_key import DEFAULT_KEY
from services.retriever.settings import RetrieverSettings
from tests.bundles import make_bundle
from tests.redis_rigs import RedisServer, redis_server
from tests.rigs import eventually, publish, retriever, retriever_process, run_retriever
from tests.search_twin import World, make_world, twin

MOVIES = 60
DIMENSION = 8
K = 10


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("blocked"), movies=MOVIES, dimension=DIMENSION)


def request(space: str, k: int = K) -> retriever_pb2.SearchRequest:
    return retriever_pb2.SearchRequest(vector=np.ones(DIMENSION, "<f4").tobytes(), space=space, k=k)


def replace(path: Path, text: str) -> None:
    """Writes a file the way an operator should: whole, by a rename."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    os.replace(draft, path)


async def looked_at(block_list: BlockList) -> None:
    """Lets a change be taken: a change counts from the second look that sees it."""
    await block_list.poll()
    await block_list.poll()


def test_a_file_has_an_id_a_line_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "blocked"
    path.write_bytes(b"\xef\xbb\xbf# rights ended\r\n  31 \r\n\n7  # a complaint\n9223372036854775807\n31")
    block_list = BlockList(path)
    assert block_list.ids.tolist() == [7, 31, 2**63 - 1]
    assert [block_list.holds(movie_id) for movie_id in (7, 31, 8)] == [True, True, False]


def test_without_a_file_nothing_is_blocked() -> None:
    assert BlockList().ids.tolist() == []
    assert not BlockList().holds(1)


BAD_LINES = ["0", "-4", "seven", "1 2", "1,2", "1.0", "٣", "9223372036854775808", "1" * 5000, "\x00"]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_told_with_its_file_and_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "blocked"
    path.write_text(f"1\n\n{line}\n2\n")
    with pytest.raises(ConfigError) as failure:
        BlockList(path)
    assert failure.value.message.startswith(f"{path}:3: '")
    assert "is no movie id; write one positive whole number a line, # begins a comment" in failure.value.message
    assert len(failure.value.message) < 300


def test_a_service_does_not_start_without_its_block_list(tmp_path: Path, world: World) -> None:
    missing = tmp_path / "blocked"
    done = run_retriever(f"--registry={world.registry}", f"--block-list={missing}")
    assert done.returncode == 2
    assert f"{missing}: cannot be read (No such file or directory); put the file back, or name another" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_change_is_taken_at_the_second_look(tmp_path: Path) -> None:
    path = tmp_path / "blocked"
    path.write_text("1\n")
    block_list = BlockList(path)
    path.write_text("1\n2")
    await block_list.poll()
    # Somebody is still writing: the last line was not 2 but 25.
    path.write_text("1\n25\n")
    await block_list.poll()
    assert block_list.ids.tolist() == [1]
    await block_list.poll()
    assert block_list.ids.tolist() == [1, 25]


async def test_what_breaks_keeps_the_last_good_list_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "blocked"
    path.write_text("1\n4\n")
    block_list = BlockList(path)

    async def after_looks() -> tuple[list[int], list[str]]:
        caplog.clear()
        for _ in range(3):
            await looked_at(block_list)
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        return block_list.ids.tolist(), errors

    replace(path, "1\n4\nfive\n")
    ids, errors = await after_looks()
    assert ids == [1, 4]
    assert errors == [
        f"{path}:3: 'five' is no movie id; write one positive whole number a line, # begins a comment; until "
        "then it blocks 2 movies"
    ]
    replace(path, "1\n4\n5\n")
    assert await after_looks() == ([1, 4, 5], [])
    for _ in range(2):
        path.unlink()
        ids, errors = await after_looks()
        assert ids == [1, 4, 5]
        assert [error.startswith(f"{path}: cannot be read (No such file") for error in errors] == [True]
        path.write_text("1\n4\n5\n")
        assert await after_looks() == ([1, 4, 5], [])
    path.write_text("")
    assert await after_looks() == ([], [])


async def test_a_blocked_movie_gives_way_to_the_next(tmp_path: Path, world: World) -> None:
    path = tmp_path / "blocked"
    path.write_text("")
    block_list = BlockList(path)
    space = world.bundle.space
    async with retriever(world.registry, block_list) as rig:
        before = await rig.search.Search(request(space, K + 3))
        # One that no bundle has is no error.
        blocked = [*before.movie_ids[:3], 10**12]
        path.write_text("\n".join(map(str, blocked)))
        await looked_at(block_list)
        after = await rig.search.Search(request(space))
        batch = await rig.search.BatchSearch(
            retriever_pb2.BatchSearchRequest(
                queries=[
                    retriever_pb2.BatchSearchQuery(
                        vector=request(space).vector, k=K, options=retriever_pb2.SearchOptions(diversity=dial)
                    )
                    for dial in (0, 0.7)
                ],
                space=space,
            )
        )
        similar = await rig.search.SearchSimilar(
            retriever_pb2.SearchSimilarRequest(movie_ids=before.movie_ids[:1], k=MOVIES)
        )
        wanted = request(space)
        wanted.filter.include_ids.extend(before.movie_ids)
        filtered = await rig.search.Search(wanted)
        everything = await rig.search.Search(request(space, MOVIES))
    assert list(after.movie_ids) == before.movie_ids[3:]
    assert list(batch.results[0].movie_ids) == before.movie_ids[3:]
    assert list(filtered.movie_ids) == before.movie_ids[3:]
    varied = retriever_pb2.BatchSearchQuery(
        vector=request(space).vector, k=K, options=retriever_pb2.SearchOptions(diversity=0.7)
    )
    assert list(batch.results[1].movie_ids) == twin(world, varied, blocked=frozenset(blocked)).movie_ids
    assert len(similar.movie_ids) == MOVIES - 3
    assert not set(similar.movie_ids) & set(blocked)
    assert (len(everything.movie_ids), everything.short_reason) == (
        MOVIES - 3,
        retriever_pb2.SHORT_REASON_EXCLUDED,
    )


async def test_a_process_blocks_within_five_seconds_in_every_space(tmp_path: Path) -> None:
    """Without a restart, while callers ask, and for a bundle that is loaded later, too."""
    first = make_bundle(tmp_path / "first", movies=MOVIES, dimension=DIMENSION, seed=1)
    second = make_bundle(tmp_path / "second", movies=MOVIES, dimension=DIMENSION, seed=2)
    later = make_bundle(tmp_path / "later", movies=MOVIES, dimension=DIMENSION, seed=3)
    publish(tmp_path / "registry", first)
    registry = publish(tmp_path / "registry", second, activate=False)
    path = tmp_path / "blocked"
    path.write_text("")
    with retriever_process(tmp_path, registry.root, f"--block-list={path}", "--poll-s=0.05") as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            stub = cast(
                "retriever_pb2_grpc.RetrieverServiceAsyncStub", retriever_pb2_grpc.RetrieverServiceStub(channel)
            )
            shown = [(await stub.Search(request(bundle.space))).movie_ids[0] for bundle in (first, second)]
            replace(path, "\n".join(map(str, shown)))
            began = time.monotonic()
            for bundle in (first, second):
                while set(shown) & set((answer := await stub.Search(request(bundle.space))).movie_ids):
                    assert len(answer.movie_ids) == K
                    assert time.monotonic() < began + 5.0
                    await asyncio.sleep(0.02)
                assert len(answer.movie_ids) == K
            registry.publish(later.path, check=None)
            await eventually(partial(_is_loaded, stub, later.space))
            answer = await stub.Search(request(later.space, MOVIES))
            assert len(answer.movie_ids) == MOVIES - len(set(shown))
            assert not set(shown) & set(answer.movie_ids)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


async def test_a_key_of_a_redis_holds_the_text_of_a_file(redis: RedisServer) -> None:
    redis.ask.set("films:gone", "31 # rights ended\n7\n")
    block_list = BlockList(f"{redis.url}/0?key=films:gone")
    assert block_list.ids.tolist() == [7, 31]
    redis.ask.set("films:gone", "8")
    await looked_at(block_list)
    assert block_list.ids.tolist() == [8]
    redis.ask.set("films:gone", "")
    await looked_at(block_list)
    assert block_list.ids.tolist() == []


async def test_a_redis_that_is_away_keeps_the_last_good_list_and_is_logged_once(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis.ask.set(DEFAULT_KEY, "1\n4")
    block_list = BlockList(redis.url)

    async def after_looks() -> tuple[list[int], list[str]]:
        caplog.clear()
        for _ in range(3):
            await looked_at(block_list)
        return block_list.ids.tolist(), [
            record.getMessage() for record in caplog.records if record.levelname == "ERROR"
        ]

    redis.signal(signal.SIGKILL)
    ids, errors = await after_looks()
    assert ids == [1, 4]
    assert [error.startswith(f"{redis.url}: cannot be read (ConnectionError: ") for error in errors] == [True]
    assert errors[0].endswith("until then it blocks 2 movies")
    # It comes back without its memory: that unblocks nothing.
    redis.start()
    ids, errors = await after_looks()
    assert ids == [1, 4]
    assert [f"the key {DEFAULT_KEY} is not there; an empty one blocks nothing" in error for error in errors] == [True]
    redis.ask.set(DEFAULT_KEY, "1\nfour")
    ids, errors = await after_looks()
    assert (ids, len(errors)) == ([1, 4], 1)
    assert errors[0].startswith(f"{redis.url}:2: 'four' is no movie id")
    redis.ask.lpush("another kind", "1")
    redis.ask.rename("another kind", DEFAULT_KEY)
    ids, errors = await after_looks()
    assert (ids, ["WRONGTYPE" in error for error in errors]) == ([1, 4], [True])
    redis.ask.set(DEFAULT_KEY, "5")
    assert await after_looks() == ([5], [])


async def test_a_redis_that_hangs_holds_nobody_up(redis: RedisServer) -> None:
    redis.ask.set(DEFAULT_KEY, "1")
    block_list = BlockList(redis.url)
    redis.signal(signal.SIGSTOP)
    began = time.monotonic()
    await block_list.poll()
    assert time.monotonic() < began + 5.0
    redis.signal(signal.SIGCONT)
    redis.ask.set(DEFAULT_KEY, "2")
    await eventually(partial(_blocks, block_list, [2]))


async def _blocks(block_list: BlockList, ids: list[int]) -> bool:
    await block_list.poll()
    return bool(block_list.ids.tolist() == ids)


async def test_a_process_follows_a_redis_within_five_seconds(tmp_path: Path, redis: RedisServer, world: World) -> None:
    redis.ask.set("gone", "")
    url = f"{redis.url}/0?key=gone"
    with retriever_process(tmp_path, world.registry, f"--block-list={url}") as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            stub = cast(
                "retriever_pb2_grpc.RetrieverServiceAsyncStub", retriever_pb2_grpc.RetrieverServiceStub(channel)
            )
            shown = (await stub.Search(request(world.bundle.space))).movie_ids[0]
            redis.ask.set("gone", str(shown))
            began = time.monotonic()
            while shown in (answer := await stub.Search(request(world.bundle.space))).movie_ids:
                assert time.monotonic() < began + 5.0
                await asyncio.sleep(0.02)
            assert len(answer.movie_ids) == K


def test_a_service_does_not_start_without_its_redis(world: World) -> None:
    url = "redis://me:secret@127.0.0.1:1/0?key=gone"
    done = run_retriever(f"--registry={world.registry}", f"--block-list={url}")
    assert done.returncode == 2
    assert "redis://127.0.0.1:1/0?key=gone: cannot be read (ConnectionError: " in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


BAD_URLS = [
    "http://host/0",
    "redis://",
    "redis:///0",
    "redis://host/films",
    "redis://host/0?name=x",
    "redis://host/0#x",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_names_no_key_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"--block-list: .* must (be a file, or redis://|have nothing behind)"):
        load_settings(RetrieverSettings, ["--block-list", url], {})


def test_without_a_client_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match="needs the Redis client; pip install 'redis>=8', or name a file"):
        BlockList("redis://127.0.0.1:1")


async def _is_loaded(stub: retriever_pb2_grpc.RetrieverServiceAsyncStub, space: str) -> bool:
    loaded = (await stub.GetIndex(retriever_pb2.GetIndexRequest())).state.bundles
    return any(one.space == space for one in loaded)
