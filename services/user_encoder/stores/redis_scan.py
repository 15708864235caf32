"""Reads which people a Redis has, a page at a time."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from services.user_encoder.stores.redis_keys import HISTORIES, HISTORY, name_in
from services.user_encoder.stores.redis_servers import SLOTS, Node, Reply, Servers

# Slots that are asked for their keys in one round trip, and keys that one SCAN looks at.
_SLOTS_AT_ONCE, _LEAST_SCAN = 512, 10
_MOST_KEYS = 1_000_000
# What a cursor starts with: it holds a number and a name, of which neither tells of a person.
_SERVER, _CLUSTER = "redis", "cluster"


class _Place(NamedTuple):
    """Is where a page of a scan starts: SCAN's cursor and the server's run, or a slot and the last tag before."""

    number: int = 0
    name: str = ""


class Found(NamedTuple):
    """Holds a page's history keys, the next page's cursor, and about how much of the store has been read by then."""

    keys: list[bytes]
    cursor: str
    part: float


async def scan_keys(servers: Servers, cluster: bool, cursor: str, limit: int) -> Found:
    """Finds about `limit` people's keys; raises ValueError for a cursor that it never gave, else redis-py's errors.

    Of a Cluster by slots, which outlive failovers, but a slot that moves meanwhile may be missed. Of a single server by
    SCAN, whose cursor a restart ends: then it starts again, and people may stand on two pages.
    """
    place = _read_cursor(cursor, cluster)
    return await (_scan_slots if cluster else _scan_server)(servers, place, limit)


async def _scan_server(servers: Servers, place: _Place, limit: int) -> Found:
    [node] = await servers.nodes()
    [info] = await _on(servers, node, ("INFO", "server"))
    run_id = str(info["run_id"])
    at = place.number if place.name == run_id else 0
    keys: list[bytes] = []
    while len(keys) < limit:
        [(at, found)] = await _on(servers, node, ("SCAN", at, "MATCH", HISTORIES, "COUNT", max(limit, _LEAST_SCAN)))
        keys += found
        if not at:
            return Found(keys, "", 1.0)
    [count] = await _on(servers, node, ("DBSIZE",))
    return Found(keys, f"{_SERVER}:{at}:{run_id}", _part_of(at, count))


async def _scan_slots(servers: Servers, place: _Place, limit: int) -> Found:
    keys: list[bytes] = []
    for first in range(place.number, SLOTS, _SLOTS_AT_ONCE):
        for slot, found in enumerate(await _keys_in_slots(servers, first, min(first + _SLOTS_AT_ONCE, SLOTS)), first):
            keys += [key for key in found if slot > place.number or name_in(key) > place.name]
            if len(keys) >= limit:
                cursor = f"{_CLUSTER}:{slot}:{name_in(keys[limit - 1])}"
                return Found(keys[:limit], cursor, slot / SLOTS)
    return Found(keys, "", 1.0)


async def _keys_in_slots(servers: Servers, first: int, end: int) -> list[list[bytes]]:
    by_node: dict[Node, list[int]] = {}
    for slot in range(first, end):
        by_node.setdefault(await servers.node_of(slot), []).append(slot)
    found: dict[int, list[bytes]] = {}
    for node, slots in by_node.items():
        commands = [("CLUSTER", "GETKEYSINSLOT", slot, _MOST_KEYS) for slot in slots]
        found |= zip(slots, await _on(servers, node, *commands), strict=True)
    return [sorted(filter(HISTORY.fullmatch, found[slot])) for slot in range(first, end)]


async def _on(servers: Servers, node: Node, *commands: tuple[Any, ...]) -> list[Reply]:
    replies = await servers.on(node, commands)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _read_cursor(cursor: str, cluster: bool) -> _Place:
    if not cursor:
        return _Place()
    kind, number, name = [*cursor.split(":"), "", ""][:3]
    whole = number.isascii() and number.isdigit() and re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{40}", name)
    if kind != (_CLUSTER if cluster else _SERVER) or cursor.count(":") != 2 or not whole or int(number) >= 2**64:
        raise ValueError(f"{cursor!r} is no cursor that this kind of Redis store gave")
    return _Place(int(number), name)


def _part_of(cursor: int, keys: int) -> float:
    """Says about how far SCAN is: its cursor counts through a table of a power of two from the highest bit down."""
    bits = max(cursor.bit_length(), keys.bit_length())
    return int(f"{cursor:0{bits}b}"[::-1], 2) / float(1 << bits)
