"""How many calls a second are wanted and for how long: "10s@100,30s@500,ramp 20s@500..1000"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

WARM_UP, MEASURED = "warm-up", "measured"

_STAGE = re.compile(r"(?P<ramp>ramp\s+)?(?P<time>[^@\s]+)\s*@\s*(?P<low>[^.\s]+(?:\.\d+)?)(?:\.\.(?P<high>\S+))?")
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h)", re.ASCII)
_RATE = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# A call for every 10 µs: no Python gets there, and what is above it is a slip of the finger.
_MOST_PER_S = 100_000.0
_LONGEST_S = 7 * 86_400.0


class Stage(NamedTuple):
    """Is a span of time in which the wanted rate goes evenly from one to another, in calls a second."""

    seconds: float
    rate_from: float
    rate_to: float
    role: str = MEASURED

    @property
    def calls(self) -> float:
        """How many calls it wants."""
        return self.seconds * (self.rate_from + self.rate_to) / 2

    @property
    def rate(self) -> float:
        """The mean rate that it wants."""
        return (self.rate_from + self.rate_to) / 2

    def rate_at(self, second: float) -> float:
        """Says what rate it wants at a moment."""
        return self.rate_from + (self.rate_to - self.rate_from) * second / self.seconds

    def __str__(self) -> str:
        if self.rate_from == self.rate_to:
            return f"{self.seconds:g}s@{self.rate_from:g}"
        return f"ramp {self.seconds:g}s@{self.rate_from:g}..{self.rate_to:g}"


class BadStages(ValueError):
    """Says what is wrong with a text, and how it is written."""


def parse_stages(text: str) -> list[Stage]:
    """Reads stages, one after the other; raises BadStages."""
    stages = [_stage(part.strip(), place) for place, part in enumerate(text.split(","), 1)]
    if not any(stage.calls for stage in stages):
        raise BadStages(f"{text!r} wants no call at all: give a stage a rate above 0, such as 10s@100")
    return stages


def parse_duration(text: str) -> float:
    """Reads a duration with its unit, in seconds; raises BadStages."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise BadStages(f"{text!r} is no duration: write a number and its unit, such as 500ms, 30s, 2m or 1h")
    seconds = float(match["number"]) * _UNIT_S[match["unit"]]
    if not 0 < seconds <= _LONGEST_S:
        raise BadStages(f"{text!r} is no duration to measure for: give more than 0 and at most 168h")
    return seconds


def parse_rate(text: str) -> float:
    """Reads calls a second; raises BadStages."""
    if not _RATE.fullmatch(text) or float(text) > _MOST_PER_S:
        raise BadStages(f"{text!r} is no rate: give calls a second, from 0 to {_MOST_PER_S:,.0f}")
    return float(text)


def stage_ends(stages: Sequence[Stage]) -> list[float]:
    """Lists when each stage ends, in seconds from the start of the first."""
    ends: list[float] = []
    for stage in stages:
        ends.append((ends[-1] if ends else 0.0) + stage.seconds)
    return ends


def wanted_rate(stages: Sequence[Stage], start_s: float, end_s: float) -> float:
    """Says what rate the stages want on the average of a span."""
    calls, begin = 0.0, 0.0
    for stage in stages:
        low, high = max(start_s, begin), min(end_s, begin + stage.seconds)
        if high > low:
            calls += stage.rate_at((low + high) / 2 - begin) * (high - low)
        begin += stage.seconds
    return calls / (end_s - start_s)


def _stage(text: str, place: int) -> Stage:
    match = _STAGE.fullmatch(text)
    if match is None:
        raise BadStages(
            f"stage {place}, {text!r}, is none: write DURATION@RATE, such as 30s@500, or a ramp, such as "
            "ramp 20s@500..1000"
        )
    try:
        seconds, low = parse_duration(match["time"]), parse_rate(match["low"])
        high = parse_rate(match["high"]) if match["high"] is not None else low
    except BadStages as error:
        raise BadStages(f"stage {place}, {text!r}: {error}") from None
    if bool(match["ramp"]) != (match["high"] is not None):
        meant = f"{match['time']}@{match['low']}"
        raise BadStages(f"stage {place}, {text!r}: a ramp is written ramp {meant}..RATE, a steady stage {meant}")
    return Stage(seconds, low, high)
