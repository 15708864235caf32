"""The servers of a Redis: one, or those of a Cluster, where each key's slot says which one has it.

redis-py keeps the connections. It is not asked to follow the Cluster: its cluster client asks for the whole map again
after any node's failure, before the next call to any other node, and a lost node then fails the calls of all others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from services.common.breaker import Breaker
from services.user_encoder.stores.base import MEANWHILE
from services.user_encoder.stores.redis_url import RedisUrl

_log = logging.getLogger(__name__)

SLOTS = 16_384
# Follows a slot that moves while a call runs, and no chain of servers that know no better: for two seconds and a half.
_TRIES, _FIRST_PAUSE_S = 8, 0.01
_CONNECTIONS = 64
# After these, another node may have the slots.
_LOST = (ConnectionError, TimeoutError, OSError, ClusterDownError)

# What a server answers, or why it did not.
Reply = Any
Command = tuple[Any, ...]
Node = tuple[str, int]


class Call(NamedTuple):
    """Holds a command about a key."""

    key: bytes
    command: Command


class Servers:
    """Runs commands where their keys are.

    A call waits `timeout_s` for a connection, and as long for each answer. Errors are redis-py's, or OSError.
    """

    def __init__(self, url: RedisUrl, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._clients: dict[Node, Redis] = {}
        # In a Cluster, the node of each slot, as far as it is known.
        self._nodes: list[Node | None] = [None if url.cluster else url.nodes[0]] * SLOTS
        self._mapping: asyncio.Task[None] | None = None
        # Of the nodes of a Cluster that have failed.
        self._breakers: dict[Node, Breaker] = {}

    async def run_one(self, call: Call) -> Reply | Exception:
        """Runs a call, with nothing of what several need: half of the time that `run` takes for it."""
        node = self._nodes[key_slot(call.key)]
        reply = None if node is None else (await self.on(node, [call.command]))[0]
        if node is None or self._is_elsewhere(reply):
            [reply] = await self.run([call])
        return reply

    async def run(self, calls: Sequence[Call]) -> list[Reply | Exception]:
        """Runs calls, in one round trip to each server; returns each one's reply or error, in their order."""
        replies: list[Reply | Exception] = [None] * len(calls)
        todo = list(range(len(calls)))
        for attempt in range(_TRIES):
            await self._run_some(calls, todo, replies)
            todo = [at for at in todo if self._is_elsewhere(replies[at])]
            if not todo:
                break
            if any(isinstance(replies[at], TryAgainError) for at in todo):
                # While a slot moves, nobody has all of a person's keys.
                await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
        return replies

    def _is_elsewhere(self, reply: Reply | Exception) -> bool:
        return self._url.cluster and isinstance(reply, (AskError, TryAgainError))

    async def _run_some(self, calls: Sequence[Call], todo: list[int], replies: list[Reply | Exception]) -> None:
        by_node: dict[Node, list[tuple[int, Command]]] = {}
        for at in todo:
            node, commands = await self._route(calls[at], replies[at])
            by_node.setdefault(node, []).extend((at, command) for command in commands)
        batches = [self.on(node, [command for _, command in numbered]) for node, numbered in by_node.items()]
        for numbered, answers in zip(by_node.values(), await asyncio.gather(*batches), strict=True):
            for (at, _), answer in zip(numbered, answers, strict=True):
                # Of ASKING and its command, the command's answer stays.
                replies[at] = answer

    async def _route(self, call: Call, before: Reply | Exception) -> tuple[Node, list[Command]]:
        """Chooses a call's node; `before` is what it was answered the last time."""
        if isinstance(before, AskError) and not isinstance(before, MovedError):
            return (before.host, before.port), [("ASKING",), call.command]
        if isinstance(before, MovedError):
            self._nodes[before.slot_id] = (before.host, before.port)
            self._map_soon()
        return await self.node_of(key_slot(call.key)), [call.command]

    async def node_of(self, slot: int) -> Node:
        """Says which node has a slot."""
        node = self._nodes[slot]
        if node is None:
            await asyncio.shield(self._map_soon())
            node = self._nodes[slot]
        if node is None:
            raise ClusterDownError(f"no node of the Cluster has slot {slot}")
        return node

    async def on(self, node: Node, commands: Sequence[Command]) -> list[Reply | Exception]:
        """Runs commands on one node, in one round trip; a node of a Cluster that keeps failing is not waited for."""
        breaker = self._breakers.get(node) if self._url.cluster else None
        if breaker is not None and not breaker.lets_through(time.monotonic()):
            self._map_soon()
            return [ConnectionError(breaker.last_error)] * len(commands)
        try:
            return await self._run_on(node, commands)
        except (RedisError, OSError) as error:
            self._note_failure(node, error)
            return [error] * len(commands)
        except asyncio.CancelledError:
            # A caller that has waited in vain, as far as this can tell.
            self._note_failure(node, TimeoutError("it did not answer in time"))
            raise

    async def _run_on(self, node: Node, commands: Sequence[Command]) -> list[Reply | Exception]:
        if len(commands) == 1:
            replies = [await self._ask(node, commands[0])]
        else:
            # Closed by hand: the pipeline's own `async with` costs more than the rest of a short one.
            pipeline = self._client(node).pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            replies = await pipeline.execute(raise_on_error=False)
        if self._breakers:
            self._note_success(node)
        return cast("list[Reply | Exception]", replies)

    def _note_failure(self, node: Node, error: Exception) -> None:
        """Has a Cluster's map read again where a node may be lost."""
        if self._url.cluster and isinstance(error, _LOST):
            breaker = self._breakers.setdefault(node, Breaker(f"the Redis node at {node[0]}:{node[1]}", MEANWHILE))
            breaker.failed(f"{node[0]}:{node[1]}: {error}", time.monotonic())
            self._map_soon()

    def _note_success(self, node: Node) -> None:
        if (breaker := self._breakers.get(node)) is not None:
            breaker.succeeded()

    async def _ask(self, node: Node, command: Command) -> Reply:
        return await self._client(node).execute_command(*command)  # type: ignore[no-untyped-call]

    def _client(self, node: Node) -> Redis:
        client = self._clients.get(node)
        if client is None:
            client = self._clients[node] = Redis(connection_pool=self._pool(node))
        return client

    def _pool(self, node: Node) -> BlockingConnectionPool:
        return BlockingConnectionPool(
            max_connections=_CONNECTIONS, timeout=self._timeout_s, connection_class=self._kind, **self._options(node)
        )

    @property
    def _kind(self) -> type[Connection]:
        return SSLConnection if self._url.tls else Connection

    def _options(self, node: Node) -> dict[str, Any]:
        # A connection that the server closed meanwhile, being restarted, is opened once more. Who waits for an answer
        # in vain is told: the caller knows better whether to ask again.
        retry = Retry(NoBackoff(), 1, supported_errors=(ConnectionError,))
        return {
            **self._url.options,
            "host": node[0],
            "port": node[1],
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
            "retry": retry,
            "protocol": 2,
            "driver_info": None,
        }

    def connection(self, node: Node) -> Connection:
        """Makes a connection of its own to a node, not yet open."""
        return self._kind(**self._options(node))

    async def nodes(self) -> list[Node]:
        """Lists all servers, replicas of a Cluster among them."""
        if not self._url.cluster:
            return [self._url.nodes[0]]
        ranges = await self._ask_ranges()
        return list(dict.fromkeys(node for _, _, nodes in ranges for node in nodes))

    def _map_soon(self) -> asyncio.Task[None]:
        """Asks the Cluster where its slots are, once for all who need it now."""
        if self._mapping is None or self._mapping.done():
            self._mapping = asyncio.ensure_future(self._map())
            self._mapping.add_done_callback(_look)
        return self._mapping

    async def _map(self) -> None:
        for first, last, nodes in await self._ask_ranges():
            self._nodes[first : last + 1] = [nodes[0]] * (last + 1 - first)

    async def _ask_ranges(self) -> list[tuple[int, int, list[Node]]]:
        """Asks all known nodes at once, and takes the first answer: a dead one must not be waited for."""
        known = dict.fromkeys([*self._url.nodes, *self._clients])
        asking = {asyncio.ensure_future(self._ask_node(node)) for node in known}
        failure: BaseException | None = None
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    return await answer
                except (RedisError, OSError) as error:
                    failure = error
        finally:
            await _cancel(asking)
        raise failure or ConnectionError("no node of the Cluster is known")

    async def _ask_node(self, node: Node) -> list[tuple[int, int, list[Node]]]:
        rows = await self._ask(node, ("CLUSTER", "SLOTS"))
        if not rows:
            raise ClusterDownError(f"{node[0]}:{node[1]} knows no slots")
        # A node that does not know its own address yet says nothing for it.
        return [
            (first, last, [(host.decode() or node[0], port) for host, port, *_ in nodes])
            for first, last, *nodes in rows
        ]

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._mapping is not None:
            await _cancel({self._mapping})
        for client in self._clients.values():
            await client.aclose()
            await client.connection_pool.disconnect()


def _look(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.debug("the Cluster's map could not be had: %r", error)


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
