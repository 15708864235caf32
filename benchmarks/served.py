"""What a server on a core of its own comes to: its calls a second when it is full, and a call's time when it is not."""

from __future__ import annotations

import json
import statistics
from typing import NamedTuple

from benchmarks.flooding import Flooded, written
from benchmarks.machine import Shares
from benchmarks.processes import Server
from benchmarks.work import Work

_BLOCKS = 3


class Served(NamedTuple):
    """Holds calls a second of a full core, and percentiles 0 to 100 of the milliseconds of one call at a time."""

    calls_per_s: float
    alone_ms: list[float]


def calls_per_s(work: Work, cores: Shares, server: Server, flooded: Flooded) -> float:
    """Floods a server; returns the median of some blocks."""
    told = ("--addresses", server.address, "--method", flooded.method, "--pairs", str(_BLOCKS))
    requests = written(work, flooded.requests)
    ended = work.processes.run("benchmarks.flood", *told, "--requests", requests, cores=cores.caller)
    blocks: list[list[float]] = json.loads(ended.stdout)
    return statistics.median(rate for (rate,) in blocks)


def measure_served(work: Work, cores: Shares, server: Server, flooded: Flooded) -> Served:
    """Floods a server, then calls it one call at a time."""
    rate = calls_per_s(work, cores, server, flooded)
    told = ("--address", server.address, "--method", flooded.method, "--requests", written(work, flooded.requests))
    return Served(rate, json.loads(work.processes.run("benchmarks.one_by_one", *told, cores=cores.caller).stdout))
