"""What a Redis has on disk: its append-only file and its snapshot keep what was deleted until they are written anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any, cast

from redis.exceptions import RedisError, ResponseError

from services.user_encoder.stores.redis_keys import TO_CLEAN
from services.user_encoder.stores.redis_servers import Call, Node, Servers

_log = logging.getLogger(__name__)

# Deletions that come together share one rewriting.
_TOGETHER_S = 0.5
_POLL_S = 0.2
_RETRY_S = 5.0
_CURE = "run BGREWRITEAOF and BGSAVE on each of its servers, replicas too, where it keeps such files"
# Takes the note back, unless there is another by now.
_DONE = b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"


class FileCleaner:
    """Has all servers write their files anew after deletions, in the background; says so where it cannot."""

    def __init__(self, servers: Servers, where: str) -> None:
        self._servers = servers
        self._where = where
        self._wanted = False
        self._hurry = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    async def announce(self) -> None:
        """Notes that files will have to be written anew, for when this process does not come to it."""
        # A full Redis does not take the note; the deletion must not fail for that.
        await self._servers.run_one(Call(TO_CLEAN, ("SET", TO_CLEAN, os.urandom(8))))

    async def go_on(self) -> None:
        """Does what an encoder noted that did not come to it."""
        if await self._noted() is not None:
            self.clean()

    async def _noted(self) -> bytes | None:
        reply = await self._servers.run_one(Call(TO_CLEAN, ("GET", TO_CLEAN)))
        if isinstance(reply, Exception):
            raise reply
        return cast("bytes | None", reply)

    def clean(self) -> None:
        """Asks for files without what has been deleted until now."""
        self._wanted = True
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        told = False
        while self._wanted:
            await self._pause(_TOGETHER_S)
            self._wanted = False
            try:
                noted = await self._noted() or b""
                await self._clean_all()
                await self._servers.run_one(Call(TO_CLEAN, ("EVAL", _DONE, 1, TO_CLEAN, noted)))
            except (RedisError, OSError) as error:
                # Where it may not be asked that at all, asking again would not help.
                self._wanted = not isinstance(error, ResponseError)
                if not told:
                    _log.error("Redis at %s: its files still hold what was deleted (%s); %s", self._where, error, _CURE)
                told = True
                await self._pause(_RETRY_S)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)

    async def _clean_all(self) -> None:
        nodes = await self._servers.nodes()
        states = [await self._info(node, "replication") for node in nodes]
        ends = {state["master_replid"]: state["master_repl_offset"] for state in states if state["role"] == "master"}
        if len(nodes) == 1 and states[0].get("connected_slaves"):
            _log.warning("Redis at %s has replicas, whose files are not seen to from here; %s", self._where, _CURE)
        outcomes = await asyncio.gather(*(self._clean_one(node, ends) for node in nodes), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _clean_one(self, node: Node, ends: dict[str, int]) -> None:
        # A replica's file loses a person only after the deletion has come there.
        await self._wait(node, "replication", lambda state: _caught_up(state, ends))
        if (await self._info(node, "persistence"))["aof_enabled"]:
            await self._start(node, "BGREWRITEAOF")
        if await self._has_snapshot(node):
            await self._start(node, "BGSAVE", "SCHEDULE")
        await self._wait(node, "persistence", _at_rest)
        state = await self._info(node, "persistence")
        if "err" in (state["aof_last_bgrewrite_status"], state["rdb_last_bgsave_status"]):
            raise ResponseError(f"{node[0]}:{node[1]} could not write them; see its log, and its disk")

    async def _has_snapshot(self, node: Node) -> bool:
        """Says whether there may be a snapshot: one that keeps nothing at all must not begin to."""
        state = await self._info(node, "persistence") | await self._info(node, "replication")
        # A replica was filled from one, and left it where it is.
        if state["aof_enabled"] or state["rdb_last_bgsave_time_sec"] >= 0 or state["role"] != "master":
            return True
        return bool((await self._ask(node, "CONFIG", "GET", "save"))[1])

    async def _start(self, node: Node, *command: str) -> None:
        """Starts a rewriting; one that runs already began before the deletion, and is waited for."""
        while True:
            try:
                await self._ask(node, *command)
            except ResponseError as error:
                if "in progress" not in str(error):
                    raise
                await asyncio.sleep(_POLL_S)
            else:
                return

    async def _wait(self, node: Node, section: str, done: Callable[[dict[str, Any]], bool]) -> None:
        while not done(await self._info(node, section)):
            await asyncio.sleep(_POLL_S)

    async def _info(self, node: Node, section: str) -> dict[str, Any]:
        state: dict[str, Any] = await self._ask(node, "INFO", section)
        return state

    async def _ask(self, node: Node, *command: str) -> Any:
        [reply] = await self._servers.on(node, [command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None:
        """Waits a moment for what is not done yet, and says so where it still is not."""
        if self._working is None:
            return
        self._hurry.set()
        await asyncio.wait([self._working], timeout=_RETRY_S)
        if not self._working.done():
            _log.error("Redis at %s: its files may still hold what was deleted; %s", self._where, _CURE)
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)


def _caught_up(state: dict[str, Any], ends: dict[str, int]) -> bool:
    return state["role"] == "master" or int(state["slave_repl_offset"]) >= ends.get(state["master_replid"], 0)


def _at_rest(state: dict[str, Any]) -> bool:
    busy = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
    return not any(state[name] for name in busy)
