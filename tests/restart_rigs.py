"""Stops and starts replicas in turn while an SDK client calls at a fixed rate, and counts what became of its calls."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from marquee.client import AsyncRecommender
from marquee.errors import MarqueeError
from tests.chain_rigs import read_metrics
from tests.rigs import Process, eventually, service_process

_RATE = 100


class Counts(NamedTuple):
    """Says what became of the calls; `retried` is the attempts that were not the first, as the replicas saw them.

    `latest_start_s` is how long after its time a call was begun at worst: what the client itself was held up for.
    """

    calls: int
    failed: int
    retried: int
    slowest_s: float
    latest_start_s: float
    errors: str


class _Replica:
    """Is a replica on ports of its own, which it keeps when it is started anew."""

    def __init__(self, folder: Path, registry: Path) -> None:
        self._folder, self._registry = folder, registry
        self.port, self._metrics_port = _free_port(), _free_port()
        self.stack = contextlib.ExitStack()
        self._process: Process | None = None

    def start(self) -> None:
        arguments = (f"--listen=127.0.0.1:{self.port}", f"--metrics-port={self._metrics_port}")
        # Otherwise a replica that starts would take the CPU of the one that serves and of their client.
        started = service_process("retriever", self._folder, self._registry, *arguments, own_session=True)
        self._process = self.stack.enter_context(started)

    def stop(self) -> tuple[int, str]:
        assert self._process is not None
        return self._process.stop()

    def retried(self) -> int:
        """Reads how many calls it had that were not the first attempt."""
        return self._sum("marquee_retriever_calls_retried_total")

    def answered(self) -> int:
        """Reads how many calls it has answered since it was started."""
        return self._sum("grpc_server_handled_total")

    def _sum(self, name: str) -> int:
        lines = read_metrics(self._metrics_port).splitlines()
        found = [line for line in lines if re.match(rf"{name}\W", line)]
        return sum(int(float(line.rpartition(" ")[2])) for line in found)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


class _Load:
    """Calls at a fixed rate, answered or not."""

    def __init__(self, sdk: AsyncRecommender, movie: int) -> None:
        self._sdk, self._movie = sdk, movie
        self._calls: set[asyncio.Task[None]] = set()
        self.began = 0
        self.slowest_s = self.latest_start_s = 0.0
        self.failed: Counter[str] = Counter()

    async def run(self) -> None:
        due = time.monotonic()
        while True:
            due += 1 / _RATE
            await asyncio.sleep(due - time.monotonic())
            self.latest_start_s = max(self.latest_start_s, time.monotonic() - due)
            self.began += 1
            call = asyncio.ensure_future(self._call())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self) -> None:
        began = time.monotonic()
        try:
            await self._sdk.movie(self._movie)
        except MarqueeError as error:
            self.failed[f"{type(error).__name__}: {error.message}"] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    async def finish(self) -> None:
        while self._calls:
            await asyncio.wait(list(self._calls))


async def restart(folder: Path, registry: Path, movie: int, rounds: int, deadline_s: float) -> Counts:
    """Stops one of two replicas with SIGTERM and starts it again, so many times, the other one next."""
    replicas = [_Replica(folder, registry) for _ in range(2)]
    retried = 0
    with contextlib.ExitStack() as stack:
        for replica in replicas:
            stack.enter_context(replica.stack)
            replica.start()
        addresses = [f"127.0.0.1:{replica.port}" for replica in replicas]
        async with AsyncRecommender(addresses, addresses, deadline_s=deadline_s) as sdk, _loading(sdk, movie) as load:
            for number in range(rounds):
                stopping, staying = replicas[number % 2], replicas[(number + 1) % 2]
                before = await asyncio.to_thread(staying.retried)
                code, log = await asyncio.to_thread(stopping.stop)
                assert code == 0, log
                retried += await asyncio.to_thread(staying.retried) - before
                await asyncio.to_thread(stopping.start)
                # As a roll-out does: the next one stops when this one has taken up its part.
                await eventually(partial(_takes_part, stopping))
        errors = "; ".join(f"{times} x {error}" for error, times in load.failed.items())
    return Counts(load.began, load.failed.total(), retried, load.slowest_s, load.latest_start_s, errors)


async def _takes_part(replica: _Replica) -> bool:
    return await asyncio.to_thread(replica.answered) > 0


@contextlib.asynccontextmanager
async def _loading(sdk: AsyncRecommender, movie: int) -> AsyncIterator[_Load]:
    await sdk.movie(movie, deadline_s=10.0)
    load = _Load(sdk, movie)
    running = asyncio.ensure_future(load.run())
    try:
        yield load
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await load.finish()
