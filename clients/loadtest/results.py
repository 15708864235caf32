"""From what the processes told to the figures of the report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

from clients.loadtest.crew import Run
from clients.loadtest.stages import MEASURED, Stage, stage_ends, wanted_rate
from clients.loadtest.tally import OK, Packed, Tally, milliseconds, total
from clients.loadtest.worker import Snapshot

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
    tallies: list[Tally]
    whole: Tally
    rate: float
    scenarios: dict[str, Tally]
    ticks: list[Tick]
    told: dict[str, str]
    seconds: float
    stopped: bool


def measure(run: Run, offset_s: float = 0.0) -> Measured:
    """Sums a run up; `offset_s` is how long the test had been going on when it began."""
    by_stage: defaultdict[int, list[Packed]] = defaultdict(list)
    by_scenario: defaultdict[str, list[Packed]] = defaultdict(list)
    counted = {place for place, stage in enumerate(run.stages) if stage.role == MEASURED}
    for snapshot in _snapshots(run):
        for part in snapshot.parts:
            by_stage[part.stage].append(part.tally)
            if part.stage in counted:
                by_scenario[part.scenario].append(part.tally)
    tallies = [total(by_stage[place]) for place in range(len(run.stages))]
    whole = Tally()
    for place in sorted(counted):
        whole.add(tallies[place])
    seconds = _seconds(run)
    return Measured(
        stages=_stages(run, tallies, seconds, offset_s),
        tallies=tallies,
        whole=whole,
        rate=whole.finished / max(1e-9, sum(seconds[place] for place in counted)),
        scenarios={name: total(packed) for name, packed in sorted(by_scenario.items())},
        ticks=_ticks(run, offset_s),
        told={code: text for snapshot in _snapshots(run) for code, text in snapshot.told.items()},
        seconds=run.seconds,
        stopped=run.stopped,
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
    return [(each, milliseconds(histogram, each)) for each in shown]


def _snapshots(run: Run) -> Iterable[Snapshot]:
    return (snapshot for told in run.snapshots for snapshot in told)


def _seconds(run: Run) -> list[float]:
    """Says how long each stage lasted: less than it should have, where the run was stopped."""
    ends = stage_ends(run.stages)
    return [
        max(0.0, min(end, run.seconds) - (end - stage.seconds)) for stage, end in zip(run.stages, ends, strict=True)
    ]


def _stages(run: Run, tallies: Sequence[Tally], seconds: Sequence[float], offset_s: float) -> list[StageResult]:
    results = []
    for place, (stage, end, tally) in enumerate(zip(run.stages, stage_ends(run.stages), tallies, strict=True)):
        lasted, start = seconds[place], end - stage.seconds
        results.append(
            StageResult(
                name=f"{run.callers} callers" if run.callers else str(stage),
                role=stage.role,
                start_s=offset_s + start,
                seconds=lasted,
                wanted=None if run.callers else _wanted(stage, lasted),
                figures=figures(tally, tally.finished / lasted if lasted else 0.0),
                cpu=max((_cpu(told, start, end) for told in run.snapshots), default=0.0),
            )
        )
    return results


def _wanted(stage: Stage, lasted: float) -> float:
    return wanted_rate([stage], 0.0, lasted) if lasted else stage.rate


def _cpu(told: Sequence[Snapshot], start: float, end: float) -> float:
    """Says how many cores a process took while a stage ran."""
    within = [one for one in told if start < one.second - one.wall_s / 2 <= end]
    return sum(one.cpu_s for one in within) / max(1e-9, sum(one.wall_s for one in within)) if within else 0.0


def _ticks(run: Run, offset_s: float) -> list[Tick]:
    by_tick: defaultdict[int, list[list[Snapshot]]] = defaultdict(lambda: [[] for _ in run.snapshots])
    for process, told in enumerate(run.snapshots):
        for snapshot in told:
            by_tick[max(1, round(snapshot.second / run.tick_s))][process].append(snapshot)
    last = stage_ends(run.stages)[-1]
    # Answers still come when nothing is sent any more; their times count in their stages.
    shown = [number for number in sorted(by_tick) if (number - 0.5) * run.tick_s < last]
    return [_tick(run, number, by_tick[number], offset_s) for number in shown]


def _tick(run: Run, number: int, by_process: Sequence[Sequence[Snapshot]], offset_s: float) -> Tick:
    snapshots = [one for told in by_process for one in told]
    tally = total(part.tally for one in snapshots for part in one.parts)
    end_s = number * run.tick_s
    lasted = sum(one.wall_s for one in snapshots) / len(by_process)
    p50, p90, p99, most = (milliseconds(tally.latency, each) if tally.ok else None for each in (50, 90, 99, 100))
    return Tick(
        offset_s + end_s,
        None if run.callers else wanted_rate(run.stages, end_s - run.tick_s, end_s),
        sum(one.sent for one in snapshots) / lasted,
        tally.ok / lasted,
        {code: count / lasted for code, count in sorted(Counter(tally.codes).items()) if code != OK},
        p50,
        p90,
        p99,
        most,
        milliseconds(tally.lag, 99.0) if tally.calls else None,
        sum(told[-1].in_flight for told in by_process if told),
        [sum(one.cpu_s for one in told) / sum(one.wall_s for one in told) for told in by_process if told],
    )


def _times(histogram: HdrHistogram) -> Times | None:
    if not histogram.get_total_count():
        return None
    percentiles = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
    return Times(float(histogram.get_mean_value()) / 1000, *(milliseconds(histogram, each) for each in percentiles))
