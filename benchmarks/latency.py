"""What a call costs its caller: the composed recommendation and its rpcs, beside the floor of an empty rpc."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

from benchmarks.machine import shares
from benchmarks.report import Row
from benchmarks.startup import SERVICES
from benchmarks.work import Work, say

_GOAL_MS = 3.0


def measure(work: Work) -> list[Row]:
    """Starts services and floors on some cores and one caller on another; the first case is the one with a goal."""
    say("latency")
    cores = shares()
    with ExitStack() as stack:
        services, floors = [], []
        for name in SERVICES:
            serving = work.processes.serve(f"services.{name}", *work.arguments(name), cores=cores.servers)
            services.append(stack.enter_context(serving).address)
            floors.append(stack.enter_context(work.processes.serve("benchmarks.floor", cores=cores.servers)).address)
        told = ("--services", *services, "--floors", *floors)
        ended = work.processes.run("benchmarks.caller", "--data", work.data, *told, cores=cores.caller)
    cases = json.loads(ended.stdout)
    return [_row(case, None if at else _GOAL_MS, str(cores)) for at, case in enumerate(cases)]


def _row(case: dict[str, Any], goal_ms: float | None, cores: str) -> Row:
    taken, floor, ratios = case["ms"], case["floor_ms"], case["ratios"]
    beside = (
        f"p95 {taken['p95']:.2f}, p99 {taken['p99']:.2f} ms of {case['calls']:,} calls; floor {floor['p50']:.2f} ms; "
        f"{case['ratio']:.2f} × the floor ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} pairs)"
    )
    return Row("latency", f"{case['name']}: p50", taken["p50"], "ms", goal_ms, beside, case | {"cores": cores})
