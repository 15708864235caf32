"""What a call costs its caller: the composed recommendation and its rpcs, beside the floor of an empty rpc."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

from benchmarks.flooding import spread
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
    return [row for at, case in enumerate(cases) for row in _rows(case, None if at else _GOAL_MS, str(cores))]


def _rows(case: dict[str, Any], goal_ms: float | None, cores: str) -> list[Row]:
    taken, floor, ratios = case["ms"], case["floor_ms"], case["ratios"]
    of = f"p95 {taken['p95']:.2f}, p99 {taken['p99']:.2f} ms of {case['calls']:,} calls"
    against = f"{spread(ratios)}; the floor's p50 is {floor['p50']:.2f} ms"
    what = f"{case['name']}: p50"
    return [
        Row("latency", what, taken["p50"], "ms", goal_ms, of, case | {"cores": cores}),
        Row("latency", f"{what}, against the floor's", case["ratio"], "×", None, against, readings=ratios),
    ]
