"""Looks for the highest rate under a latency objective: doubled until it is missed, then narrowed down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clients.loadtest.conditions import Condition
from clients.loadtest.tally import Tally

# An objective for what is answered says nothing about what is refused.
MOST_ERRORS = 0.001
# A server that answers less than it is asked has a queue, whatever the latency is yet.
_KEPT_UP = 0.95
_FASTEST, _SLOWEST = 100_000.0, 1.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """Is one rate that was tried: what was wanted and achieved, in calls a second, and whether the objective held.

    `value` is the objective's figure, None where nothing was answered; `missed` says in words why it did not hold.
    """

    wanted: float
    achieved: float
    value: float | None
    error_share: float
    held: bool
    missed: str
    client_limited: bool


@dataclass(frozen=True, slots=True)
class Saturation:
    """Is what a search found; `best` is the highest rate that held, None where none did.

    `bounded` says that a higher rate was tried and missed; otherwise the best is only what was tried.
    """

    objective: str
    objective_ms: float
    attempts: list[Attempt]
    best: float | None
    bounded: bool


def judge(objective: Condition, wanted: float, achieved: float, tally: Tally, limits: Sequence[str]) -> Attempt:
    """Says whether an objective held at a rate; `limits` are reasons to doubt the client."""
    value = objective.value(tally, achieved)
    errors = 1 - tally.ok / tally.calls if tally.calls else 1.0
    if value is None:
        missed = "nothing was answered"
    elif errors > MOST_ERRORS:
        missed = f"{errors:.2%} of the calls failed"
    elif not objective.holds(value):
        missed = f"{objective.metric} was {objective.worded(value)}"
    elif tally.finished < _KEPT_UP * tally.calls:
        missed = f"{tally.finished:,} of {tally.calls:,} calls were answered in time"
    else:
        missed = ""
    return Attempt(wanted, achieved, value, errors, not missed, missed, bool(limits))


def find_max(attempt: Callable[[float], Attempt | None], start: float, precision: float) -> list[Attempt]:
    """Tries rates until the highest that holds is known to a precision; returns what was tried, in order.

    A rate that is missed is tried once more: a hiccup of the machine is not the server's. Ends early where the client
    was the limit, or where `attempt` returns None.
    """
    tried: list[Attempt] = []

    def holds(rate: float) -> bool | None:
        while (one := attempt(rate)) is not None:
            again = bool(tried) and tried[-1].wanted == rate
            tried.append(one)
            if one.held:
                return True
            if again:
                return None if one.client_limited else False
        return None

    low, high, rate = 0.0, math.inf, start
    while _SLOWEST <= rate <= _FASTEST and high > low * (1 + precision):
        held = holds(rate)
        if held is None:
            break
        low, high = (rate, high) if held else (low, rate)
        rate = _next(low, high)
    return tried


def summed_up(objective: Condition, attempts: Sequence[Attempt]) -> Saturation:
    """Sums up what was tried."""
    held = [one.wanted for one in attempts if one.held]
    best = max(held, default=None)
    bounded = best is not None and any(one.wanted > best and not one.client_limited for one in attempts)
    return Saturation(objective.text, objective.number, sorted(attempts, key=lambda one: one.wanted), best, bounded)


def _next(low: float, high: float) -> float:
    if math.isinf(high):
        return low * 2
    # Four digits are nearer than any precision that may be asked for, and can be read.
    return float(f"{math.sqrt(low * high):.4g}") if low else high / 2
