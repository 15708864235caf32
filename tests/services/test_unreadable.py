"""Bytes that are no request: an error of the tree to who may call, counted, and no traceback in the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from marquee.errors import InvalidRequest, MarqueeError, Unauthenticated
from services.common.policy import Role
from services.common.server import HEALTH_SERVICE
from tests.bundles import make_bundle
from tests.chain_rigs import read_metrics
from tests.encoder_rigs import refused
from tests.rigs import Rig, publish, retriever
from tests.secured import HOST, bearer, enroll

SEARCH = "/marquee.v1.RetrieverService/Search"
NO_MESSAGE: Any = b"\x0a\x05he"


@pytest.fixture
def key(tmp_path: Path) -> str:
    return enroll(tmp_path / "callers", "web", Role.READER)


@pytest.fixture
async def rig(tmp_path: Path, key: str) -> AsyncIterator[Rig]:
    registry = publish(tmp_path / "registry", make_bundle(tmp_path / "bundle")).root
    callers = tmp_path / "callers"
    async with retriever(registry, auth="keys", callers=callers, metrics_port=0, health_port=0) as running:
        yield running


async def refusal(channel: grpc.aio.Channel, method: str, key: str = "") -> MarqueeError:
    return await refused(channel.unary_unary(method)(NO_MESSAGE, timeout=10, metadata=bearer(key) if key else None))


async def test_a_caller_learns_that_it_sent_no_request(rig: Rig, key: str, caplog: pytest.LogCaptureFixture) -> None:
    error = await refusal(rig.channel, SEARCH, key)
    assert isinstance(error, InvalidRequest)
    assert f"no request of {SEARCH}; write it with the stubs" in error.message
    refused = 'grpc_server_handled_total{grpc_code="INVALID_ARGUMENT",grpc_method="Search",'
    assert refused in read_metrics(rig.life.metrics_port)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_who_may_not_call_learns_nothing_else(rig: Rig) -> None:
    assert isinstance(await refusal(rig.channel, SEARCH), Unauthenticated)


@pytest.mark.parametrize("of", ["port", "health_port"])
async def test_the_health_refuses_it_and_goes_on(rig: Rig, of: str, caplog: pytest.LogCaptureFixture) -> None:
    async with grpc.aio.insecure_channel(f"{HOST}:{getattr(rig.life, of)}") as channel:
        assert isinstance(await refusal(channel, f"/{HEALTH_SERVICE}/Check"), InvalidRequest)
        watch: Any = channel.unary_stream(f"/{HEALTH_SERVICE}/Watch")
        assert isinstance(await refused(watch(NO_MESSAGE, timeout=10).read()), InvalidRequest)
        serving = watch(b"", timeout=10)
        assert health_pb2.HealthCheckResponse.FromString(await serving.read()).status == 1
        serving.cancel()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
