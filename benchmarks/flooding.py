"""What every part that floods servers has in common: the floor that is primed, the flood that is run, its pairs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from benchmarks import flood
from benchmarks.floor import REMEMBER
from benchmarks.machine import Shares
from benchmarks.processes import Server
from benchmarks.work import Work

_DEADLINE_S = 10.0


class Flooded(NamedTuple):
    """Is one rpc to flood: its name, its path and its requests."""

    name: str
    method: str
    requests: Sequence[bytes]


def run_flood(
    work: Work,
    cores: Shares,
    flooded: Flooded,
    servers: Sequence[Server],
    *,
    pairs: int = flood.PAIRS,
    block_s: float = flood.BLOCK_S,
) -> list[list[float]]:
    """Floods servers in turn; returns the calls a second of each, pair by pair."""
    told = ("--addresses", *(server.address for server in servers), "--method", flooded.method)
    pace = ("--pairs", str(pairs), "--block-s", str(block_s))
    requests = written(work, flooded.requests)
    ended = work.processes.run("benchmarks.flood", *told, *pace, "--requests", requests, cores=cores.caller)
    rates: list[list[float]] = json.loads(ended.stdout)
    return rates


def prime(floor: Server, answer: bytes) -> None:
    """Tells a floor what to answer."""
    with grpc.insecure_channel(floor.address) as channel:
        remember: Any = channel.unary_unary(REMEMBER)
        remember(answer, timeout=_DEADLINE_S)


def median_answer(server: Server, flooded: Flooded) -> bytes:
    """Asks everything once; returns the answer of median size."""
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.unary_unary(flooded.method)
        answers = sorted((call(request, timeout=_DEADLINE_S) for request in flooded.requests), key=len)
    middle: bytes = answers[len(answers) // 2]
    return middle


def written(work: Work, requests: Sequence[bytes]) -> Path:
    """Writes requests as the flood and others read them."""
    file = work.folder / "requests.json"
    file.write_text(json.dumps([request.hex() for request in requests]))
    return file


class Shared(NamedTuple):
    """Is what pairs came to: the median of the ratios of the first to the second, that in words, and the ratios."""

    ratio: float
    beside: str
    ratios: list[float]


def share_of(pairs: Sequence[Sequence[float]]) -> Shared:
    """Compares calls a second in pairs."""
    ratios = [ours / floor for ours, floor in pairs]
    ours, floor = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    beside = f"{spread(ratios)}; {ours:,.0f} of {floor:,.0f} calls/s, {flood.IN_FLIGHT} in flight"
    return Shared(statistics.median(ratios), beside, ratios)


def spread(ratios: Sequence[float]) -> str:
    """Words the range of ratios."""
    return f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} pairs"
