"""Clients that keep to no rule, all at once, against both services: what they get is theirs alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import http2
from marquee.client import AsyncRecommender
from marquee.v1 import catalog_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.chaos.handles import peak_mib, resident_mib
from tests.chaos.load import expect, loading, record_people
from tests.chaos.promises import Happened, promise
from tests.raw_http2 import Raw, raw
from tests.rigs import DEADLINE_S, publish, service_process

# A kind of frame that nobody else here sends.
CONTINUATION = 9

MOVIES = 50
SECONDS = 5.0
RECOVERY_S = 5.0
# What a service may take for all of them together: for some hundred connections, and for messages on their way.
ALLOWED_MIB = 256
KINDS = {"silent", "slow", "resetting", "deaf", "garbage", "giant_headers", "many_headers", "endless_headers", "pings"}
SILENT, SLOW, RESETTING, DEAF = 200, 20, 3, 5
METHODS = {
    "user_encoder": ("/marquee.v1.UserEncoderService/Encode", user_encoder_pb2.EncodeRequest(allow_cold_start=True)),
    "retriever": ("/marquee.v1.CatalogService/TopMovies", catalog_pb2.TopMoviesRequest(k=MOVIES)),
}


class Enemy:
    """Knows where a service is and what it answers; each method of it attacks until it is cancelled."""

    def __init__(self, service: str, port: int) -> None:
        method, request = METHODS[service]
        self._port, self._method, self._request = port, method, request.SerializeToString()
        self._random = random.Random(7)
        self.done: Counter[str] = Counter()

    def attacks(self) -> list[Awaitable[None]]:
        """Begins everything at once, each on connections of its own."""
        many = [(self._silent, SILENT), (self._slow, SLOW), (self._resetting, RESETTING), (self._deaf, DEAF)]
        one_each = (self._garbage, self._giant_headers, self._many_headers, self._endless_headers, self._pings)
        return [self._again(attack) for attack, times in [*many, *((one, 1) for one in one_each)] for _ in range(times)]

    async def _again(self, attack: Callable[[Raw], Awaitable[None]]) -> None:
        """Attacks over a new connection each time that the service has had enough of one."""
        while True:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                async with raw(self._port, begin=False) as connection:
                    self.done[attack.__name__.strip("_")] += 1
                    await attack(connection)
            await asyncio.sleep(0.02)

    async def _silent(self, connection: Raw) -> None:
        """Opens a connection, says half of a greeting, and no more."""
        connection.send(http2.opening()[:12])
        await connection.closed()

    async def _slow(self, connection: Raw) -> None:
        """Sends headers byte by byte."""
        connection.open()
        connection.call(1, self._method, self._request)
        for byte in http2.frame(http2.HEADERS, http2.END_HEADERS, 3, bytes(200)):
            connection.send(bytes([byte]))
            await asyncio.sleep(0.05)
        await connection.closed()

    async def _resetting(self, connection: Raw) -> None:
        """Cancels every call as soon as it has sent it (CVE-2023-44487)."""
        connection.open()
        reading = asyncio.ensure_future(connection.closed())
        for stream in itertools.count(1, 2):
            if reading.done():
                return
            connection.call(stream, self._method, self._request)
            connection.reset(stream)
            if stream % 100 == 1:
                await asyncio.sleep(0.01)

    async def _deaf(self, connection: Raw) -> None:
        """Asks, and never reads an answer."""
        connection.open()
        for stream in range(1, 1001, 2):
            connection.call(stream, self._method, self._request)
        await asyncio.Event().wait()

    async def _garbage(self, connection: Raw) -> None:
        """Sends noise, half of the time after a greeting."""
        if self._random.random() < 0.5:
            connection.open()
        connection.send(self._random.randbytes(self._random.randrange(1, 100_000)))
        await connection.closed()

    async def _giant_headers(self, connection: Raw) -> None:
        """Sends headers of four times what may be, in frames that are allowed."""
        connection.open()
        value = b"\0\7x-large" + b"\x7f\x81\xff\x03" + b"x" * 65_536
        parts = [value[at : at + 16_000] for at in range(0, len(value), 16_000)]
        kinds = [http2.HEADERS] + [CONTINUATION] * (len(parts) - 1)
        for kind, part in zip(kinds, parts, strict=True):
            connection.send(http2.frame(kind, http2.END_HEADERS if part is parts[-1] else 0, 1, part))
        await connection.closed()

    async def _many_headers(self, connection: Raw) -> None:
        """Sends a thousand headers with every call."""
        connection.open()
        reading = asyncio.ensure_future(connection.closed())
        for stream in range(1, 201, 2):
            connection.call(stream, self._method, self._request, **{f"x-{number}": "y" * 8 for number in range(1000)})
            await asyncio.sleep(0.05)
        await reading

    async def _endless_headers(self, connection: Raw) -> None:
        """Sends headers that never end (CVE-2024-27316)."""
        connection.open()
        reading = asyncio.ensure_future(connection.closed())
        connection.send(http2.frame(http2.HEADERS, 0, 1, b""))
        while not reading.done():
            connection.send(http2.frame(CONTINUATION, 0, 1, b"\0\1x\1y" * 2000))
            await asyncio.sleep(0.01)

    async def _pings(self, connection: Raw) -> None:
        """Pings without a pause."""
        connection.open()
        reading = asyncio.ensure_future(connection.closed())
        while not reading.done():
            connection.ping()
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def attacked(enemies: Sequence[Enemy]) -> AsyncIterator[None]:
    """Attacks until the end of the block."""
    tasks = [asyncio.ensure_future(attack) for enemy in enemies for attack in enemy.attacks()]
    try:
        yield
    finally:
        failed = [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not failed, "an attack ended by itself"


async def serving_throughout(port: int) -> list[int]:
    """Asks for the health all the time, on a connection of its own; returns the answers."""
    answers = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            request = health_pb2.HealthCheckRequest(service="readiness")
            answers.append((await health.Check(request, timeout=DEADLINE_S)).status)
            await asyncio.sleep(0.05)
    return answers


@promise(
    "hostile clients: silent, slow, deaf, resetting, pinging, with garbage or endless headers, all at once for 5 s",
    "both services go on, SERVING; none grows by more than 256 MiB; the SDK has its lists within 5 s",
)
async def test_hostile_clients(tmp_path: Path, happened: Happened) -> None:
    bundle = make_bundle(tmp_path / "bundle", movies=MOVIES)
    registry, store = tmp_path / "registry", f"--store={tmp_path / 'features.sqlite'}"
    publish(registry, bundle)
    with (
        service_process("user_encoder", tmp_path, registry, store) as users,
        service_process("retriever", tmp_path, registry) as movies,
    ):
        services = {"user_encoder": users, "retriever": movies}
        async with AsyncRecommender(f"127.0.0.1:{users.port}", f"127.0.0.1:{movies.port}") as sdk:
            await record_people(sdk)
            before = {name: resident_mib(one.process.pid) for name, one in services.items()}
            enemies = [Enemy(name, one.port) for name, one in services.items()]
            async with attacked(enemies):
                health = await asyncio.gather(*(serving_throughout(one.port) for one in services.values()))
            ended = time.monotonic()
            async with loading(sdk, expect(bundle, MOVIES)):
                back_s = time.monotonic() - ended
        grown = {name: peak_mib(one.process.pid) - before[name] for name, one in services.items()}
        assert [one.process.poll() for one in services.values()] == [None, None]
    assert {status for answers in health for status in answers} == {health_pb2.HealthCheckResponse.SERVING}
    assert all(mib < ALLOWED_MIB for mib in grown.values()), grown
    assert back_s < RECOVERY_S
    came = sum((enemy.done for enemy in enemies), Counter())
    assert set(came) == KINDS
    most = ", ".join(f"{name} +{max(mib, 0):.0f} MiB" for name, mib in grown.items())
    asked = sum(map(len, health))
    happened(
        f"{came.total()} hostile connections; SERVING {asked} of {asked} times; {most}; lists after {back_s:.1f} s"
    )
