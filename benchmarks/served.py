"""What a server on a core of its own comes to: calls a second when it is full, a call's time and CPU when not."""

from __future__ import annotations

import json
import statistics
from typing import NamedTuple

from benchmarks import one_by_one
from benchmarks.flooding import Flooded, written
from benchmarks.machine import Shares, cpu_us
from benchmarks.processes import Server
from benchmarks.work import Work

_BLOCKS = 3


class Served(NamedTuple):
    """Holds calls a second of a full core; of one call at a time percentiles 0 to 100 of its milliseconds, and its CPU.

    A service that gathers calls takes less CPU for each of many than for one alone.
    """

    calls_per_s: float
    alone_ms: list[float]
    cpu_ms: float


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
    pid = server.child.process.pid
    before_us = cpu_us(pid)
    ended = work.processes.run("benchmarks.one_by_one", *told, cores=cores.caller)
    taken_us = cpu_us(pid) - before_us
    return Served(rate, json.loads(ended.stdout), taken_us / 1e3 / (one_by_one.WARM_UP + one_by_one.CALLS))
