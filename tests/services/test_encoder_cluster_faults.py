"""A Redis Cluster loses a node: its people are answered from memory, the others' are not touched, and it fails over."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc.aio
import pytest

from marquee.features import LIKED
from marquee.v1 import live_features_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, recording
from tests.fault_rigs import (
    COLD_START,
    DEADLINE_S,
    KEY,
    PATIENCE_S,
    SENT,
    STALE,
    STORE,
    encode,
    encoder_on_redis,
    recovered,
    remember,
    seen,
)
from tests.redis_rigs import NODE_TIMEOUT_MS, RedisCluster, RedisServer, redis_cluster
from tests.rigs import publish

OTHERS = {f"person-{number}": 1 + 3 * number for number in range(12)}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
async def rig(registry: Path, cluster: RedisCluster) -> AsyncIterator[EncoderRig]:
    cluster.flush()
    async with encoder_on_redis(registry, cluster.url) as running:
        await remember(running)
        for user_id, movie in OTHERS.items():
            await running.features.RecordEvents(recording(user_id, Row(movie, LIKED, 0, 1000)))
            await encode(running, user_id)
        yield running


def owner_of(cluster: RedisCluster, user_id: str) -> RedisServer:
    return cluster.owner_of(b"{" + KEY.of(user_id).hex().encode() + b"}")


async def recorded(rig: EncoderRig, request: live_features_pb2.RecordEventsRequest) -> None:
    """Sends a request until it is taken."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await rig.features.RecordEvents(request, timeout=DEADLINE_S)
                return


async def check_others(rig: EncoderRig, owners: dict[str, RedisServer], lost: RedisServer) -> None:
    """Checks that the other nodes' people are answered as always, and the lost one's as far as they are remembered."""
    request = user_encoder_pb2.BatchEncodeRequest()
    for user_id in OTHERS:
        request.items.add(user_id=user_id)
    for _ in range(10):
        results = (await rig.users.BatchEncode(request, timeout=DEADLINE_S)).results
        for user_id, result in zip(OTHERS, results, strict=True):
            alone = await encode(rig, user_id)
            for answer in (result, alone):
                assert answer.degraded == (owners[user_id] is lost)
                # Where deletions were heard from the lost node, nobody is remembered.
                assert answer.source in ((STALE, COLD_START) if answer.degraded else (STORE,))
                assert seen(answer) == ([] if answer.source == COLD_START else [OTHERS[user_id]])


@contextlib.contextmanager
def no_failover(cluster: RedisCluster) -> Iterator[None]:
    """Makes the nodes wait for a lost one."""
    for server in cluster.servers:
        server.ask.config_set("cluster-node-timeout", 60_000)
    yield
    for server in cluster.servers:
        server.ask.config_set("cluster-node-timeout", NODE_TIMEOUT_MS)


async def test_a_node_that_hangs_costs_the_others_people_nothing(rig: EncoderRig, cluster: RedisCluster) -> None:
    lost = owner_of(cluster, "ada")
    assert lost in {owner_of(cluster, user_id) for user_id in OTHERS} != {lost}
    with no_failover(cluster):
        owners = {user_id: owner_of(cluster, user_id) for user_id in OTHERS}
        lost.signal(signal.SIGSTOP)
        await check_others(rig, owners, lost)
        lost.signal(signal.SIGCONT)
        await recovered(rig)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_cluster_that_fails_over(rig: EncoderRig, cluster: RedisCluster, number: signal.Signals) -> None:
    lost = owner_of(cluster, "ada")
    lost.signal(number)
    await recovered(rig)
    await recorded(rig, recording("ada", SENT))
    assert seen(await encode(rig, "ada")) == [1, 4, 7]
    if number == signal.SIGSTOP:
        lost.signal(signal.SIGCONT)
    else:
        lost.start()
