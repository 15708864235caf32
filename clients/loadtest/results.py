"""From what the processes tell to the figures of the report."""

from __future__ import annotations

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

from clients.loadtest.stages import MEASURED, Stage, stage_ends, wanted_rate
from clients.loadtest.tally import OK, Tally, milliseconds, unpack
from clients.loadtest.worker import Snapshot

# As many points as a picture can show; ticks never come faster than a person can read.
_TICKS, _SHORTEST_TICK_S = 120, 0.5
_INSTANT_S = 1e-9
# From the middle to one in a hundred thousand, each nine cut in steps that a log axis shows evenly.
_CURVE = sorted({100.0 * (1 - 10 ** (-step / 8)) for step in range(41)} | {50.0, 90.0, 95.0, 99.0, 99.9, 99.99})
# What is fewer than one in so many has not been seen often enough to be drawn.
_LEAST_BEYOND = 1


@dataclass(frozen=True, slots=True)
class Times:
    """Describes a distribution, in milliseconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Is what came of some calls; `rate` is good answers a second, `latency` is from when they were due.

    `service` is from when they were sent, and `lag` how much later that was than they were due.
    """

    calls: int
    ok: int
    errors: dict[str, int]
    error_share: float
    degraded: int
    cold_starts: int
    rate: float
    latency: Times | None
    service: Times | None
    lag: Times | None


@dataclass(frozen=True, slots=True)
class StageResult:
    """Is a stage, when it began, what it wanted and what came of it; `cpu` is of the busiest process, in cores."""

    name: str
    role: str
    start_s: float
    seconds: float
    wanted: float | None
    figures: Figures
    cpu: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Is what happened in a short time that ended at a moment; rates are calls a second, times milliseconds."""

    at_s: float
    wanted: float | None
    sent: float
    ok: float
    errors: dict[str, float]
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None
    lag_p99: float | None
    in_flight: int
    cpu: list[float]


class Measured(NamedTuple):
    """Is what one run came to; `whole` and `scenarios` are of the stages that count."""

    stages: list[StageResult]
    whole: Tally
    rate: float
    scenarios: dict[str, Tally]
    ticks: list[Tick]
    told: dict[str, str]
    seconds: float
    dropped: int
    stopped: bool


class _OpenTick:
    """Adds up what processes tell of one tick."""

    def __init__(self, processes: int) -> None:
        self.tally = Tally()
        self.sent = 0
        self.in_flight = [0] * processes
        self.cpu_s = [0.0] * processes
        self.wall_s = [0.0] * processes

    def add(self, process: int, snapshot: Snapshot) -> None:
        """Adds a snapshot without its tallies."""
        self.sent += snapshot.sent
        self.in_flight[process] = snapshot.in_flight
        self.cpu_s[process] += snapshot.cpu_s
        self.wall_s[process] += snapshot.wall_s

    def close(self, at_s: float, wanted: float | None) -> Tick:
        """Reads the figures off it."""
        tally = self.tally
        lasted = sum(self.wall_s) / len(self.wall_s)
        p50, p90, p99, most = _milliseconds(tally.latency, 50, 90, 99, 100) if tally.ok else (None,) * 4
        return Tick(
            at_s,
            wanted,
            self.sent / lasted,
            tally.ok / lasted,
            {code: count / lasted for code, count in sorted(Counter(tally.codes).items()) if code != OK},
            p50,
            p90,
            p99,
            most,
            milliseconds(tally.lag, 99) if tally.calls else None,
            sum(self.in_flight),
            [cpu / wall if wall else 0.0 for cpu, wall in zip(self.cpu_s, self.wall_s, strict=True)],
        )


class Book:
    """Adds up what the processes tell of one run while it goes on, so that nothing is left to do at its end.

    `offset_s` is how long the test had been going on when the run began.
    """

    def __init__(self, stages: Sequence[Stage], callers: int, processes: int, offset_s: float) -> None:
        self.stages, self.callers = stages, callers
        self.tick_s = max(_SHORTEST_TICK_S, sum(stage.seconds for stage in stages) / _TICKS)
        self.second = 0.0
        self.dropped = 0
        self.stopped = False
        self._offset_s = offset_s
        self._ends = stage_ends(stages)
        self._processes = processes
        # Beyond the last stage's place: answers that come when it is over.
        self._by_stage = [Tally() for _ in range(len(stages) + 1)]
        self._by_scenario: defaultdict[str, Tally] = defaultdict(Tally)
        self._cpu_s = [[0.0] * len(self._by_stage) for _ in range(processes)]
        self._wall_s = [[0.0] * len(self._by_stage) for _ in range(processes)]
        self._open: dict[int, _OpenTick] = {}
        self._reached = [0] * processes
        self._ticks: list[Tick] = []
        self._told: dict[str, str] = {}

    @property
    def latest(self) -> Tick | None:
        """The last tick that every process has told of."""
        return self._ticks[-1] if self._ticks else None

    def add(self, process: int, snapshot: Snapshot) -> None:
        """Adds what a process tells."""
        number = max(1, round(snapshot.second / self.tick_s))
        tick = self._open.setdefault(number, _OpenTick(self._processes))
        tick.add(process, snapshot)
        for part in snapshot.parts:
            tally = unpack(part.tally)
            tick.tally.add(tally)
            self._by_stage[part.stage].add(tally)
            if part.stage < len(self.stages) and self.stages[part.stage].role == MEASURED:
                self._by_scenario[part.scenario].add(tally)
        place = bisect(self._ends, snapshot.second - snapshot.wall_s / 2)
        self._cpu_s[process][place] += snapshot.cpu_s
        self._wall_s[process][place] += snapshot.wall_s
        self._told |= snapshot.told
        self.second = max(self.second, snapshot.second)
        self._reached[process] = number
        self._close_up_to(min(self._reached))

    def measured(self) -> Measured:
        """Sums the run up."""
        self._close_up_to(max(self._reached) + 1)
        seconds = self._seconds()
        counted = [place for place, stage in enumerate(self.stages) if stage.role == MEASURED]
        whole = Tally()
        for place in counted:
            whole.add(self._by_stage[place])
        return Measured(
            stages=[self._stage(place, lasted) for place, lasted in enumerate(seconds)],
            whole=whole,
            rate=whole.finished / max(_INSTANT_S, sum(seconds[place] for place in counted)),
            scenarios=dict(sorted(self._by_scenario.items())),
            ticks=self._ticks,
            told=self._told,
            seconds=self.second,
            dropped=self.dropped,
            stopped=self.stopped,
        )

    def _close_up_to(self, number: int) -> None:
        """Closes the ticks before a number; answers after the last stage count in their stages alone."""
        for each in sorted(one for one in self._open if one < number):
            tick, end_s = self._open.pop(each), each * self.tick_s
            if end_s - self.tick_s / 2 < self._ends[-1]:
                wanted = None if self.callers else wanted_rate(self.stages, end_s - self.tick_s, end_s)
                self._ticks.append(tick.close(self._offset_s + end_s, wanted))

    def _seconds(self) -> list[float]:
        """Says how long each stage lasted: less than it should have, where the run was stopped."""
        starts = [end - stage.seconds for end, stage in zip(self._ends, self.stages, strict=True)]
        return [max(0.0, min(end, self.second) - start) for start, end in zip(starts, self._ends, strict=True)]

    def _stage(self, place: int, lasted: float) -> StageResult:
        stage, tally = self.stages[place], self._by_stage[place]
        wanted = wanted_rate([stage], 0.0, lasted) if lasted else stage.rate
        cpu = [sums[place] / max(_INSTANT_S, self._wall_s[process][place]) for process, sums in enumerate(self._cpu_s)]
        return StageResult(
            name=f"{self.callers} callers" if self.callers else str(stage),
            role=stage.role,
            start_s=self._offset_s + self._ends[place] - stage.seconds,
            seconds=lasted,
            wanted=None if self.callers else wanted,
            figures=figures(tally, tally.finished / max(_INSTANT_S, lasted)),
            cpu=max(cpu),
        )


def figures(tally: Tally, rate: float) -> Figures:
    """Reads the figures off a tally."""
    return Figures(
        calls=tally.calls,
        ok=tally.ok,
        errors={code: count for code, count in sorted(tally.codes.items()) if code != OK},
        error_share=1 - tally.ok / tally.calls if tally.calls else 0.0,
        degraded=tally.degraded,
        cold_starts=tally.cold_starts,
        rate=rate,
        latency=_times(tally.latency),
        service=_times(tally.service),
        lag=_times(tally.lag),
    )


def percentile_curve(histogram: HdrHistogram) -> list[tuple[float, float]]:
    """Lists percentiles with their milliseconds, as far up as there are calls beyond."""
    count = histogram.get_total_count()
    shown = [each for each in _CURVE if count * (1 - each / 100) >= _LEAST_BEYOND]
    return list(zip(shown, _milliseconds(histogram, *shown), strict=True)) if shown else []


def _times(histogram: HdrHistogram) -> Times | None:
    if not histogram.get_total_count():
        return None
    return Times(float(histogram.get_mean_value()) / 1000, *_milliseconds(histogram, 50, 90, 95, 99, 99.9, 100))


def _milliseconds(histogram: HdrHistogram, *percentiles: float) -> list[float]:
    """Reads several percentiles in one pass."""
    values = histogram.get_percentile_to_value_dict(percentiles)
    return [values[each] / 1000 for each in percentiles]
