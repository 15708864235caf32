"""Health on a port of its own: alive while it loads, ready when it serves, told to the end."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.server import AddressUnavailable, Life
from tests.chain_rigs import SERVICE, ended, serving, settings_for

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def probe(channel: grpc.aio.Channel, name: str) -> int:
    """Asks for a name's health, as a probe does."""
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
    status: int = answer.status
    return status


async def test_a_process_that_loads_is_alive_and_not_ready(tmp_path: Path) -> None:
    life = Life(settings_for(tmp_path, health_port=0), [SERVICE])
    async with life, grpc.aio.insecure_channel(f"127.0.0.1:{life.health_port}") as probes:
        assert await probe(probes, "liveness") == SERVING
        for name in ("readiness", "", SERVICE):
            assert await probe(probes, name) == NOT_SERVING
        running = asyncio.ensure_future(life.run())
        watch = health_pb2_grpc.HealthStub(probes).Watch(health_pb2.HealthCheckRequest(service="readiness"))
        while (await watch.read()).status != SERVING:
            pass
        assert await probe(probes, "readiness") == SERVING
        life.stop()
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        await running


async def test_a_process_that_drains_is_alive_and_not_ready(tmp_path: Path) -> None:
    held = asyncio.Event()

    async def hold(request: bytes, context: object) -> bytes:
        await held.wait()
        return b"done"

    async with serving(tmp_path, {"Hold": hold}, health_port=0, grace_s=20.0) as served:
        call = asyncio.ensure_future(served.call("Hold"))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.life.health_port}") as probes:
            watch = health_pb2_grpc.HealthStub(probes).Watch(health_pb2.HealthCheckRequest(service="readiness"))
            assert (await watch.read()).status == SERVING
            served.life.stop()
            assert (await watch.read()).status == NOT_SERVING
            # The server waits for the call: probes are answered on their own port meanwhile.
            assert await probe(probes, "liveness") == SERVING
            assert await probe(probes, "readiness") == NOT_SERVING
            held.set()
            assert await call == b"done"


async def test_the_port_has_nothing_but_the_health(tmp_path: Path) -> None:
    async def here(request: bytes, context: object) -> bytes:
        return b"here"

    async with serving(tmp_path, {"Here": here}, health_port=0) as served:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.life.health_port}") as probes:
            failed = await ended(served._replace(channel=probes).call("Here"))
        assert isinstance(failed, grpc.aio.AioRpcError)
        assert failed.code() == grpc.StatusCode.UNIMPLEMENTED
        assert await served.call("Here") == b"here"


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        match = f"cannot listen on 127.0.0.1:{port} .address already in use.; .* with --health-port"
        with pytest.raises(AddressUnavailable, match=match):
            await Life(settings_for(tmp_path, health_port=port), [SERVICE]).__aenter__()
