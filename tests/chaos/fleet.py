"""Two replicas of each service and their Redis, as processes that a test may kill, stop and start again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.bundles import make_bundle
from tests.chaos.load import Expected, expect
from tests.redis_rigs import RedisServer, redis_server
from tests.rigs import DEADLINE_S, Process, publish, service_process

MOVIES = 50


class Replica:
    """Is one service's process on a port that it keeps when it is started anew."""

    def __init__(self, service: str, folder: Path, registry: Path, *arguments: str) -> None:
        self.service = service
        self._folder, self._registry = folder, registry
        self.address = f"127.0.0.1:{_free_port()}"
        self._arguments = (*arguments, f"--listen={self.address}")
        self._stack = contextlib.ExitStack()
        self._started: Process | None = None

    def start(self) -> None:
        """Starts the process and waits until it serves."""
        started = service_process(self.service, self._folder, self._registry, *self._arguments)
        self._started = self._stack.enter_context(started)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal: SIGKILL, SIGSTOP, SIGCONT."""
        assert self._started is not None
        self._started.process.send_signal(number)
        if number == signal.SIGKILL:
            self._started.process.wait(DEADLINE_S)

    def stop(self) -> None:
        """Ends the process as an orchestrator does, by SIGTERM."""
        assert self._started is not None
        code, log = self._started.stop()
        assert code == 0, log

    def close(self) -> None:
        """Ends the process, whatever state it is in."""
        self._stack.close()


class Fleet(NamedTuple):
    """Is all of it."""

    replicas: dict[str, list[Replica]]
    redis: RedisServer
    expected: Expected

    def addresses(self, service: str, count: int = 2) -> list[str]:
        """Lists where the first replicas of a service listen."""
        return [replica.address for replica in self.replicas[service][:count]]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def running_fleet(folder: Path) -> Iterator[Fleet]:
    """Starts everything at once, and ends it."""
    bundle = make_bundle(folder / "bundle", movies=MOVIES)
    registry, key = folder / "registry", folder / "store.key"
    publish(registry, bundle)
    key.write_bytes(os.urandom(32))
    with contextlib.ExitStack() as stack:
        # What it was told survives it.
        redis = stack.enter_context(redis_server(folder / "redis", "--appendonly", "yes", "--save", ""))
        told = {"user_encoder": (f"--store={redis.url}", f"--store-key={key}"), "retriever": ()}
        replicas = {
            service: [Replica(service, folder, registry, *arguments) for _ in range(2)]
            for service, arguments in told.items()
        }
        everyone = [one for some in replicas.values() for one in some]
        for replica in everyone:
            stack.callback(replica.close)
        with ThreadPoolExecutor(len(everyone)) as threads:
            list(threads.map(Replica.start, everyone))
        yield Fleet(replicas, redis, expect(bundle, MOVIES))
