"""What was counted and timed. Tallies add up: over processes, over time, over scenarios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

OK = "OK"
LATE = "DEADLINE_EXCEEDED"
BAD_ANSWER = "BAD_ANSWER"
# Microseconds, to three digits: a latency is never off by more than 0.1 %.
_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 600_000_000, 3


class Outcome(NamedTuple):
    """Is one call as it ended; latency is from when it was due, service from when it was sent, lag between the two."""

    code: str
    latency_s: float
    service_s: float
    lag_s: float
    degraded: bool = False
    cold_start: bool = False


class Packed(NamedTuple):
    """Is a tally on its way between processes, or kept: histograms as HDR's own compressed base64."""

    codes: dict[str, int]
    degraded: int
    cold_starts: int
    finished: int
    latency: bytes
    service: bytes
    lag: bytes


@dataclass(slots=True)
class Tally:
    """Counts outcomes by code and keeps the times of those that were answered well.

    `latency` and `service` leave failures out: one that is refused at once must not make a server look fast. `lag` has
    them all. `finished` are good answers that came while the tally's stage ran, whatever stage had asked.
    """

    codes: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    cold_starts: int = 0
    finished: int = 0
    latency: HdrHistogram = field(default_factory=lambda: _histogram())
    service: HdrHistogram = field(default_factory=lambda: _histogram())
    lag: HdrHistogram = field(default_factory=lambda: _histogram())

    @property
    def calls(self) -> int:
        """How many calls ended."""
        return self.codes.total()

    @property
    def ok(self) -> int:
        """How many were answered well."""
        return self.codes[OK]

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Adds calls that have ended."""
        good = [one for one in outcomes if one.code == OK]
        self.codes.update(one.code for one in outcomes)
        self.degraded += sum(one.degraded for one in good)
        self.cold_starts += sum(one.cold_start for one in good)
        _fill(self.latency, [one.latency_s for one in good])
        _fill(self.service, [one.service_s for one in good])
        _fill(self.lag, [one.lag_s for one in outcomes])

    def add(self, other: Tally) -> None:
        """Adds another tally to this one."""
        self.codes.update(other.codes)
        self.degraded += other.degraded
        self.cold_starts += other.cold_starts
        self.finished += other.finished
        self.latency.add(other.latency)
        self.service.add(other.service)
        self.lag.add(other.lag)

    def pack(self) -> Packed:
        """Writes it small."""
        times = (one.encode() for one in (self.latency, self.service, self.lag))
        return Packed(dict(self.codes), self.degraded, self.cold_starts, self.finished, *times)


def unpack(packed: Packed) -> Tally:
    """Reads a tally that was packed."""
    times = (HdrHistogram.decode(text) for text in (packed.latency, packed.service, packed.lag))
    return Tally(Counter(packed.codes), packed.degraded, packed.cold_starts, packed.finished, *times)


def milliseconds(histogram: HdrHistogram, percentile: float) -> float:
    """Reads a percentile in milliseconds; 0 where nothing was timed."""
    return float(histogram.get_value_at_percentile(percentile)) / 1000 if histogram.get_total_count() else 0.0


def _histogram() -> HdrHistogram:
    return HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)


def _fill(histogram: HdrHistogram, seconds: Sequence[float]) -> None:
    times_us: npt.NDArray[np.int64] = np.clip(np.asarray(seconds) * 1e6, _LOWEST_US, _HIGHEST_US).astype(np.int64)
    # Recording is Python and takes microseconds a value; there are far fewer values than calls.
    for value, count in zip(*np.unique(times_us, return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
