"""How long training takes, and how much memory."""

from __future__ import annotations

from benchmarks.machine import first_cores
from benchmarks.report import Row
from benchmarks.work import Work, say
from marquee.bundle.format import open_bundle

_CORES = 2
_GOAL_S = 60.0
_GOAL_GB = 2.0


def measure(work: Work) -> list[Row]:
    """Trains the pooled tower as anyone would, on two cores; leaves the bundle for the other parts."""
    say("training")
    cores = first_cores(_CORES)
    ended = work.processes.run("training", "--data", work.data, "--out", work.bundle, cores=cores)
    timings_s = dict(open_bundle(work.bundle).report().timings_s)
    on = f"on {len(cores)} cores" if cores else "on every core: this system pins none"
    return [
        _row("the training step alone", timings_s["train"], "s", _GOAL_S, f"{on}; from the bundle's report", timings_s),
        _row("the whole process", ended.seconds, "s", _GOAL_S, f"{on}; with imports, loading, evaluation and export"),
        _row("peak memory of the process", ended.peak_bytes / 1e9, "GB", _GOAL_GB, "largest resident set"),
    ]


def _row(what: str, value: float, unit: str, goal: float, beside: str, details: dict[str, float] | None = None) -> Row:
    return Row("training", f"`python -m training`: {what}", value, unit, goal, beside, details or {})
