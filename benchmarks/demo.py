"""How long the demo takes, from its first import to its last service stopped."""

from __future__ import annotations

from benchmarks.report import Row
from benchmarks.work import Work, say

_GOAL_S = 240.0


def measure(work: Work) -> list[Row]:
    """Runs the demo in a folder of its own."""
    say("the demo")
    ended = work.processes.run("clients.demo", "--data", work.data, "--work", work.folder / "demo")
    beside = "wall time of training, publishing, serving, recommending; without setting up the environment"
    return [Row("demo", "`python -m clients.demo`", ended.seconds, "s", _GOAL_S, beside)]
