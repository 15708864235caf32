"""When calls are due. They come as the stages want them, whatever the services do: an open loop.

With Λ(t) the calls wanted up to t, evenly spaced arrivals lie where Λ is ½, 1½, 2½ …, and those of a Poisson process
are uniform in Λ over any span, their number drawn for the span. The superposition of the processes' shares is what one
process would have sent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clients.loadtest.stages import Stage

Seconds = npt.NDArray[np.float64]

# Times are made span by span: those of hours would fill the memory, and those of ten seconds hold the first call up.
_SPAN_S = 1.0


class Arrivals(enum.StrEnum):
    """Names how calls follow one another."""

    POISSON = "poisson"
    CONSTANT = "constant"


class Share(NamedTuple):
    """Says which part of all calls a process sends: the one at this place, from 0, of so many."""

    place: int
    of: int


class Due(NamedTuple):
    """Is a run of calls of one stage: when each is due, in seconds from the start, ascending."""

    stage: int
    times: Seconds


def due_times(stages: Sequence[Stage], kind: Arrivals, share: Share, seed: int) -> Iterator[Due]:
    """Makes the times at which one process's calls are due; the same for the same arguments."""
    rng = np.random.default_rng([seed, share.place])
    begin, wanted = 0.0, 0.0
    for place, stage in enumerate(stages):
        for span in _spans(stage):
            if kind is Arrivals.POISSON:
                mass = np.sort(rng.uniform(0.0, span.calls, rng.poisson(span.calls / share.of)))
            else:
                mass = _even(wanted, span.calls, share)
            yield Due(place, begin + _moments(mass, span))
            begin, wanted = begin + span.seconds, wanted + span.calls


def _spans(stage: Stage) -> Iterator[Stage]:
    count = max(1, int(np.ceil(stage.seconds / _SPAN_S)))
    seconds = stage.seconds / count
    for at in range(count):
        yield Stage(seconds, stage.rate_at(at * seconds), stage.rate_at((at + 1) * seconds))


def _even(before: float, calls: float, share: Share) -> Seconds:
    """Lists the ½, 1½, 2½ … that lie in a span and are this process's, counted from the span's start."""
    first = np.ceil(before - 0.5)
    numbers = np.arange(first, np.ceil(before + calls - 0.5))
    mine: Seconds = numbers[numbers % share.of == share.place] + 0.5 - before
    return mine


def _moments(mass: Seconds, span: Stage) -> Seconds:
    """Solves rate_from × t + slope × t² / 2 = mass for t."""
    slope = (span.rate_to - span.rate_from) / span.seconds
    root = np.sqrt(np.maximum(span.rate_from**2 + 2 * slope * mass, 0.0))
    moments: Seconds = 2 * mass / np.maximum(span.rate_from + root, np.finfo(np.float64).tiny)
    return moments
