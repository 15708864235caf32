"""Runs what was asked for: stages, callers, or rate after rate up to the highest that holds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

from clients.loadtest.crew import Crew, Interrupt, Watch
from clients.loadtest.results import Book, Measured, StageResult, Tick
from clients.loadtest.saturation import Attempt, Saturation, find_max, judge, summed_up
from clients.loadtest.stages import WARM_UP, Stage
from clients.loadtest.tally import Tally
from clients.loadtest.verdict import client_limits, limits_of

_RATE = 100.0
# Where a search begins: any server does that many.
_FIRST_RATE = 50.0


@dataclass(slots=True)
class Session:
    """Is what a test found; `whole`, `rate` and `scenarios` are of all that counts, or of the best rate of a search."""

    whole: Tally = field(default_factory=Tally)
    rate: float = 0.0
    scenarios: dict[str, Tally] = field(default_factory=dict)
    stages: list[StageResult] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)
    saturation: Saturation | None = None
    seconds: float = 0.0
    dropped: int = 0
    stopped: bool = False

    def adopt(self, measured: Measured) -> None:
        """Takes a run's figures for those of the test."""
        self.whole, self.rate, self.scenarios = measured.whole, measured.rate, measured.scenarios


def planned_stages(options: argparse.Namespace) -> list[Stage]:
    """Says which stages the command line asks for, the warm-up first."""
    if options.find_max:
        return [Stage(options.warm_up, _FIRST_RATE, _FIRST_RATE, WARM_UP)]
    rate = 0.0 if options.closed else _RATE if options.rate is None else options.rate
    stages: list[Stage] = options.stages or [Stage(options.duration, rate, rate)]
    first = stages[0].rate_from
    return [Stage(options.warm_up, first, first, WARM_UP), *stages]


class Conductor:
    """Runs the crew and keeps the session."""

    def __init__(self, crew: Crew, options: argparse.Namespace, interrupt: Interrupt, watch: Watch) -> None:
        self._crew, self._options, self._interrupt, self._watch = crew, options, interrupt, watch
        self.session = Session()
        self._held = False

    def run(self) -> Session:
        """Runs the test to its end, or to an interrupt."""
        measured = self._measure(planned_stages(self._options))
        self.session.adopt(measured)
        self.session.limits = limits_of(measured.stages)
        if self._options.find_max:
            self._search()
        self.session.stopped |= bool(self._interrupt)
        return self.session

    def _measure(self, stages: Sequence[Stage]) -> Measured:
        session = self.session
        book = Book(stages, self._options.closed or 0, self._options.processes, session.seconds)
        self._crew.run(book, self._interrupt, self._watch)
        measured = book.measured()
        session.stages += measured.stages
        session.ticks += measured.ticks
        session.told |= measured.told
        session.seconds += measured.seconds
        session.dropped += measured.dropped
        session.stopped |= measured.stopped
        return measured

    def _search(self) -> None:
        attempts = find_max(self._attempt, _FIRST_RATE, self._options.precision)
        found = summed_up(self._options.objective, attempts)
        self.session.saturation = found
        # A client that could not ask for more says nothing against a rate that held.
        if attempts and attempts[-1].client_limited and not found.bounded:
            self.session.limits = limits_of(self.session.stages[-1:])

    def _attempt(self, rate: float) -> Attempt | None:
        if self._interrupt:
            return None
        measured = self._measure([Stage(self._options.step, rate, rate)])
        if measured.stopped:
            # Cut off it is no attempt, and yet all that was measured where none has held.
            if not self._held:
                self.session.adopt(measured)
            return None
        stage = measured.stages[0]
        limits = client_limits(stage.name, stage.cpu, stage.figures)
        attempt = judge(self._options.objective, rate, measured.rate, measured.whole, limits)
        # Rates that hold only ever rise; before the first of them, what was tried last tells most.
        if attempt.held or not self._held:
            self.session.adopt(measured)
        self._held |= attempt.held
        return attempt
