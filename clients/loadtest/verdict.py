"""What the figures mean: whether the client was the limit, whether limits were kept, and all of it in a sentence."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from clients.loadtest.conditions import Condition
from clients.loadtest.results import Figures, StageResult
from clients.loadtest.saturation import Saturation
from clients.loadtest.stages import MEASURED
from clients.loadtest.tally import Tally

# One process sends from one thread: near a whole core, calls wait for it and not for the server.
FULL_CPU = 0.92
# Calls that go out late make the figures late by as much.
_LAG_MS, _LAG_SHARE = 2.0, 0.5


class Outcome(enum.StrEnum):
    """Names what a test can come to."""

    MEASURED = "measured"
    PASSED = "passed"
    FAILED = "failed"
    CLIENT_LIMITED = "client limited"
    INTERRUPTED = "interrupted"


# For CI; 1 and 2 are for tests that could not be run.
EXIT_CODES = {
    Outcome.MEASURED: 0,
    Outcome.PASSED: 0,
    Outcome.FAILED: 3,
    Outcome.CLIENT_LIMITED: 4,
    Outcome.INTERRUPTED: 130,
}


@dataclass(frozen=True, slots=True)
class Judged:
    """Is a limit of the command line, the value that was measured, and whether it was passed over."""

    condition: str
    measured: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Is what a test came to, and why, in a sentence."""

    outcome: Outcome
    sentence: str


def client_limits(name: str, cpu: float, figures: Figures) -> list[str]:
    """Lists why the client, and not the server, may have been the limit of some calls."""
    reasons = []
    if cpu >= FULL_CPU:
        reasons.append(f"{name}: a process of the client took {cpu:.0%} of a core")
    if figures.lag is not None and figures.latency is not None:
        lag, latency = figures.lag.p99, figures.latency.p99
        if lag >= _LAG_MS and lag >= _LAG_SHARE * latency:
            late = f"calls went out {lag:.1f} ms late (p99)"
            reasons.append(f"{name}: {late}, and the p99 of the answers is {latency:.1f} ms")
    return reasons


def limits_of(stages: Sequence[StageResult]) -> list[str]:
    """Lists why the client may have been the limit, over the stages that count."""
    counted = [stage for stage in stages if stage.role == MEASURED]
    return [reason for stage in counted for reason in client_limits(stage.name, stage.cpu, stage.figures)]


def judge(conditions: Sequence[Condition], tally: Tally, rate: float) -> list[Judged]:
    """Says which limits were passed over; without any answer, every one on times is."""
    judged = []
    for condition in conditions:
        value = condition.value(tally, rate)
        failed = value is None or condition.holds(value)
        judged.append(Judged(condition.text, condition.worded(value), failed))
    return judged


def conclude(
    figures: Figures,
    judged: Sequence[Judged],
    limits: Sequence[str],
    saturation: Saturation | None,
    interrupted: bool,
) -> Verdict:
    """Draws the conclusion."""
    outcome = _outcome(figures, judged, limits, saturation, interrupted)
    told = _saturated(saturation) if saturation else _told(figures)
    return Verdict(outcome, f"{_opening(outcome, judged, limits)}{told}")


def _outcome(
    figures: Figures,
    judged: Sequence[Judged],
    limits: Sequence[str],
    saturation: Saturation | None,
    interrupted: bool,
) -> Outcome:
    if interrupted:
        return Outcome.INTERRUPTED
    # What the client could not ask for says nothing about the server, good or bad.
    if limits:
        return Outcome.CLIENT_LIMITED
    if not figures.ok or any(one.failed for one in judged) or (saturation is not None and saturation.best is None):
        return Outcome.FAILED
    return Outcome.PASSED if judged else Outcome.MEASURED


def _opening(outcome: Outcome, judged: Sequence[Judged], limits: Sequence[str]) -> str:
    match outcome:
        case Outcome.INTERRUPTED:
            return "Interrupted; up to then: "
        case Outcome.CLIENT_LIMITED:
            return f"The load tester was the limit ({limits[0]}); take more --processes or another machine. "
        case Outcome.FAILED:
            over = ", ".join(f"{one.condition} ({one.measured})" for one in judged if one.failed)
            return f"Over the limit: {over}. " if over else "Failed: "
        case _:
            return "Within all limits: " if judged else ""


def _told(figures: Figures) -> str:
    if figures.latency is None:
        codes = ", ".join(f"{count:,} × {code}" for code, count in figures.errors.items())
        return f"no call was answered well ({codes or 'none was made'})."
    failed = f"{figures.error_share:.2%} failed" if figures.errors else "none failed"
    return (
        f"{figures.rate:,.0f} calls a second were answered, the middle one in {figures.latency.p50:.2f} ms and "
        f"99 of 100 within {figures.latency.p99:.2f} ms; {failed}."
    )


def _saturated(saturation: Saturation) -> str:
    if saturation.best is None:
        lowest = saturation.attempts[0] if saturation.attempts else None
        why = f"at {lowest.wanted:,.0f}/s {lowest.missed}" if lowest else "nothing was tried"
        return f"no rate held {saturation.objective}: {why}."
    at_least = "" if saturation.bounded else "at least "
    return f"{saturation.objective} holds up to {at_least}{saturation.best:,.0f} calls a second."
