"""The user encoder as a process: what it acknowledged outlives it, and its end loses nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc.aio
import pytest

from marquee.features import LIKED
from marquee.v1 import live_features_pb2, user_encoder_pb2
from services.user_encoder.stores.tags import KEY_BYTES
from tests.bundles import make_bundle
from tests.encoder_rigs import Row, Stubs, recording, stubs
from tests.redis_rigs import RedisServer
from tests.rigs import Process, eventually, publish, run_service_process, service_process


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Is the flags of a store that is empty."""
    if request.param == "sqlite":
        return [f"--store={tmp_path / 'store' / 'features.sqlite'}"]
    server: RedisServer = request.getfixturevalue("redis_one")
    server.flush()
    (tmp_path / "store.key").write_bytes(bytes(KEY_BYTES))
    return [f"--store={server.url}", f"--store-key={tmp_path / 'store.key'}"]


@contextmanager
def running(folder: Path, registry: Path, store: list[str]) -> Iterator[Process]:
    with service_process("user_encoder", folder, registry, *store, "--drain-s=0.1") as process:
        yield process


def channel_to(process: Process) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{process.port}")


def liked(movie: int, user_id: str = "ada") -> live_features_pb2.RecordEventsRequest:
    return recording(user_id, Row(movie, LIKED, 0, movie))


async def total(process: Process, user_id: str = "ada") -> int:
    async with channel_to(process) as channel:
        answer = await stubs(channel).features.GetHistory(live_features_pb2.GetHistoryRequest(user_id=user_id))
    return answer.total


async def test_what_was_acknowledged_under_load_outlives_kill_9(
    tmp_path: Path, registry: Path, store: list[str]
) -> None:
    acknowledged = {f"person-{at}": 0 for at in range(16)}
    with running(tmp_path, registry, store) as process:
        async with channel_to(process) as channel:
            callers = [
                asyncio.ensure_future(record_until_killed(stubs(channel), name, acknowledged)) for name in acknowledged
            ]
            await asyncio.gather(*(stubs(channel).features.RecordEvents(liked(movie)) for movie in range(1, 101)))
            await eventually(lambda: min(acknowledged.values()) > 0)
            process.process.send_signal(signal.SIGKILL)
            await asyncio.gather(*callers)
    with running(tmp_path, registry, store) as process:
        assert await total(process) == 100
        for name, count in acknowledged.items():
            # What was cut off may have been written too; what was acknowledged must have been.
            assert await total(process, name) in (count, count + 1)


async def record_until_killed(caller: Stubs, user_id: str, acknowledged: dict[str, int]) -> None:
    """Records event after event until the server is gone, and counts what it acknowledges."""
    with suppress(grpc.aio.AioRpcError):
        for movie in itertools.count(1):
            await caller.features.RecordEvents(liked(movie, user_id))
            acknowledged[user_id] = movie


async def test_the_next_encode_on_any_process_sees_what_one_has_recorded(
    tmp_path: Path, registry: Path, store: list[str]
) -> None:
    with running(tmp_path, registry, store) as one, running(tmp_path, registry, store) as other:
        async with channel_to(one) as to_one, channel_to(other) as to_other:
            for movie in range(1, 101):
                writer, reader = (stubs(to_one), stubs(to_other)) if movie % 2 else (stubs(to_other), stubs(to_one))
                await writer.features.RecordEvents(liked(movie))
                answer = await reader.users.Encode(user_encoder_pb2.EncodeRequest(user_id="ada"))
                assert answer.events_used + answer.events_unknown + answer.events_truncated == movie


# What the SDK asks for too: replicas that say NOT_SERVING get no more calls.
HEALTHY_ONLY = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": "marquee.v1.LiveFeaturesService"},
    }
)


async def test_sigterm_under_load_loses_no_call_and_no_event(tmp_path: Path, registry: Path, store: list[str]) -> None:
    with running(tmp_path, registry, store) as stopping, running(tmp_path, registry, store) as staying:
        target = f"ipv4:127.0.0.1:{stopping.port},127.0.0.1:{staying.port}"
        async with grpc.aio.insecure_channel(target, options=[("grpc.service_config", HEALTHY_ONLY)]) as channel:
            ended = asyncio.Event()
            callers = [asyncio.ensure_future(record_until(ended, stubs(channel), at)) for at in range(8)]
            # Each of these comes after some of the callers' own.
            await asyncio.gather(*(stubs(channel).features.RecordEvents(liked(movie)) for movie in range(1, 101)))
            exit_code, log = await asyncio.to_thread(stopping.stop)
            ended.set()
            answered = sum(await asyncio.gather(*callers))
        assert (exit_code, "Traceback" in log) == (0, False), log
        assert answered > 0
        assert await total(staying) == answered + 100


async def record_until(ended: asyncio.Event, caller: Stubs, at: int) -> int:
    """Records event after event, each of which must be answered; returns how many."""
    number = 0
    while not ended.is_set():
        await caller.features.RecordEvents(liked(101 + at + 8 * number), timeout=20)
        number += 1
    return number


def test_a_store_that_cannot_be_opened_ends_the_start(tmp_path: Path, registry: Path) -> None:
    ended = run_service_process("user_encoder", "--listen=127.0.0.1:0", f"--registry={registry}", f"--store={tmp_path}")
    assert ended.returncode == 2
    assert "cannot be opened as a feature store" in ended.stderr
