"""What may be demanded of a measurement, in the words of the command line: "p99<50ms", "errors>0.1%", "rate<900/s"."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import NamedTuple

from clients.loadtest.tally import LATE, Tally, milliseconds

_CONDITION = re.compile(
    r"(?P<metric>p\d{1,2}(?:\.\d+)?|mean|max|errors|degraded|rate)\s*(?P<sign><=|>=|<|>)\s*"
    r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>us|µs|ms|s|%|/s)?",
    re.ASCII,
)
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_UNIT_MS = {"us": 0.001, "µs": 0.001, "ms": 1.0, "s": 1000.0}
_SHARES = ("errors", "degraded")


class BadCondition(ValueError):
    """Says what is wrong with a text, and how it is written."""


class Condition(NamedTuple):
    """Compares a metric with a number: milliseconds for times, from 0 to 1 for shares, calls a second for a rate."""

    text: str
    metric: str
    sign: str
    number: float

    def value(self, tally: Tally, rate: float) -> float | None:
        """Reads the metric off a tally; None for a time that was not reached: too few calls were answered in time."""
        if self.metric == "rate":
            return rate
        if self.metric == "errors":
            return 1 - tally.ok / tally.calls if tally.calls else 0.0
        if self.metric == "degraded":
            return tally.degraded / tally.ok if tally.ok else 0.0
        return self._time(tally) if tally.ok else None

    def _time(self, tally: Tally) -> float | None:
        late = tally.codes[LATE]
        if self.metric == "mean":
            return None if late else float(tally.latency.get_mean_value()) / 1000
        percent = 100.0 if self.metric == "max" else float(self.metric[1:])
        if late:
            # They took longer than all that were answered, nobody knows how much.
            percent *= (tally.ok + late) / tally.ok
        return None if percent > 100.0 else milliseconds(tally.latency, percent)

    def holds(self, value: float) -> bool:
        """Says whether the comparison is true of a value."""
        return _SIGNS[self.sign](value, self.number)

    def worded(self, value: float | None) -> str:
        """Writes a value of the metric with its unit."""
        if value is None:
            return "no answer"
        if self.metric in _SHARES:
            return f"{value:.2%}"
        return f"{value:.1f}/s" if self.metric == "rate" else f"{value:.2f} ms"


def parse_condition(text: str) -> Condition:
    """Reads a condition; raises BadCondition."""
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise BadCondition(
            f"{text!r} is no condition: write a metric (p50 to p99.99, mean, max, errors, degraded or rate), one of "
            "< <= > >=, and a number with its unit, such as p99<50ms, errors>0.1% or rate<900/s"
        )
    metric, unit = match["metric"], match["unit"] or ""
    return Condition(text.strip(), metric, match["sign"], float(match["number"]) * _scale(text, metric, unit))


def parse_objective(text: str) -> Condition:
    """Reads a condition that a rate must meet: a time that is to stay below something; raises BadCondition."""
    condition = parse_condition(text)
    if condition.metric in (*_SHARES, "rate") or not condition.sign.startswith("<"):
        raise BadCondition(f"{text!r} is no latency objective: write a time and what it must stay below, as p99<50ms")
    return condition


def _scale(text: str, metric: str, unit: str) -> float:
    allowed = ("%",) if metric in _SHARES else ("/s",) if metric == "rate" else tuple(_UNIT_MS)
    if unit not in allowed and not (metric == "rate" and not unit):
        raise BadCondition(f"{text!r}: {metric} is compared with a number and its unit, one of {' '.join(allowed)}")
    if metric in _SHARES:
        return 0.01
    return _UNIT_MS.get(unit, 1.0)
