"""The channel on which a Redis tells of deletions, to whoever listens meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError, TimeoutError

from services.user_encoder.stores.redis_keys import CHANNEL
from services.user_encoder.stores.redis_servers import Node, Servers
from services.user_encoder.stores.redis_words import what_to_do

_log = logging.getLogger(__name__)

# The longest silence on the channel until it is asked whether it still lives.
_SILENCE_S = 5.0
_RECONNECT_S = 0.5


async def watch(
    servers: Servers, where: str, forget: Callable[[bytes | None], None], listening: Callable[[], Awaitable[None]]
) -> None:
    """Tells of deletions until cancelled; after each time the channel was lost, that some may have been missed.

    Calls `listening` as soon as it hears again.
    """
    told = ""
    while True:
        try:
            await _listen(servers, random.choice(await servers.nodes()), forget, listening)
        except (RedisError, OSError) as error:
            # Seen with connections that are cut: a cancellation comes out of redis-py as a lost connection.
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError from error
            if what_to_do(error) != told:
                told = what_to_do(error)
                _log.warning("Redis at %s: deletions by others are heard of later: %s", where, told)
        await asyncio.sleep(_RECONNECT_S)


async def _listen(
    servers: Servers, node: Node, forget: Callable[[bytes | None], None], listening: Callable[[], Awaitable[None]]
) -> None:
    connection = servers.connection(node)
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("SUBSCRIBE", CHANNEL)
        await connection.read_response()
        # What was deleted before could not be heard.
        forget(None)
        await listening()
        async for tag in _messages(connection):
            forget(tag)
    finally:
        await connection.disconnect(nowait=True)


async def _messages(connection: Connection) -> AsyncIterator[bytes]:
    """Reads what comes on a channel; raises where the server is silent, even when it is asked."""
    asked = False
    while True:
        message = await connection.read_response(timeout=_SILENCE_S)
        if message is None and asked:
            raise TimeoutError("its channel is silent")
        if message is None:
            await connection.send_command("PING")
        elif message[0] == b"message":
            yield message[2]
        asked = message is None
