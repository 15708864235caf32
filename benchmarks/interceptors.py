"""What the chain around every call costs: calls a second of an empty handler behind it, against the same without."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.chained import METHOD, NOTHING, STAGES, TRACING
from benchmarks.machine import shares
from benchmarks.report import Row
from benchmarks.work import Work, say
from services.common.callers import line_for, new_key
from services.common.policy import Role

# What the whole chain may cost, in percent.
_GOAL = 13.0
_REQUEST = bytes(64)
# Cases of one round, as words to the server: those that are compared with one without interceptors.
_CASES: dict[str, Sequence[str]] = {
    "the whole chain": ("--stages", *STAGES),
    "the interceptor without a stage": ("--stages", NOTHING),
    **{f"the interceptor with {stage} alone": ("--stages", stage) for stage in STAGES},
    **{
        f"the interceptor with tracing alone, of {share:.0%} of the calls": (
            "--stages",
            TRACING,
            f"--trace-share={share}",
        )
        for share in (1.0, 0.01)
    },
}


def measure(work: Work) -> list[Row]:
    """Floods servers with and without stages in turn; all on some cores, the flood on another."""
    key, callers = new_key("flood"), work.folder / "callers"
    callers.write_text(line_for("flood", [Role.READER], key) + "\n")
    requests = work.folder / "empty.json"
    requests.write_text(json.dumps([_REQUEST.hex()]))
    rounds = _flood(work, callers, ("--requests", requests, "--header", f"authorization=Bearer {key}"))
    return [_row(name, rounds, at) for at, name in enumerate(_CASES, start=1)]


def _flood(work: Work, callers: Path, told: tuple[str | Path, ...]) -> list[list[float]]:
    """Returns the calls a second of each round: without interceptors first, then each case."""
    say("flooding an empty handler behind each stage of the chain")
    cores = shares()
    with ExitStack() as stack:
        # It takes any bytes, and reads none.
        collector = stack.enter_context(work.processes.serve("benchmarks.floor", cores=cores.caller))
        told_all = ("--callers", callers, f"--otlp-endpoint=http://{collector.address}")
        servers = [
            stack.enter_context(work.processes.serve("benchmarks.chained", *told_all, *words, cores=cores.servers))
            for words in ((), *_CASES.values())
        ]
        addresses = ("--addresses", *(server.address for server in servers), "--method", METHOD)
        ended = work.processes.run("benchmarks.flood", *addresses, *told, cores=cores.caller)
    rounds: list[list[float]] = json.loads(ended.stdout)
    return rounds


def _row(name: str, rounds: Sequence[Sequence[float]], at: int) -> Row:
    costs = [100 * (1 - one[at] / one[0]) for one in rounds]
    microseconds = statistics.median(1e6 / one[at] - 1e6 / one[0] for one in rounds)
    rates = [statistics.median(one[side] for one in rounds) for side in (at, 0)]
    beside = (
        f"{min(costs):.1f} to {max(costs):.1f} in {len(costs)} pairs; {microseconds:.0f} µs a call; "
        f"{rates[0]:,.0f} of {rates[1]:,.0f} calls/s of an empty handler"
    )
    goal = _GOAL if at == 1 else None
    details = {"rounds": rounds}
    return Row("interceptors", f"cost of {name}", statistics.median(costs), "%", goal, beside, details, readings=costs)
