"""Puts the report together from what a test found and what it was asked."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import marquee
from clients.loadtest.metrics import Scraped, server_stages
from clients.loadtest.prepare import Prepared
from clients.loadtest.report import VERSION, ClientHealth, Machine, Report, Setup
from clients.loadtest.results import Figures, figures, percentile_curve
from clients.loadtest.scenarios import RECORDED_FOR
from clients.loadtest.session import Session
from clients.loadtest.stages import MEASURED
from clients.loadtest.tally import Tally
from clients.loadtest.verdict import conclude, judge

_SECRET = "--api-key"
_ENCODING = ("encode", "recommend")
_COLD_SHARE = 0.5


class Frame(NamedTuple):
    """Is what stands around a test: its command, its machine, and what the services had timed before and after."""

    command: str
    machine: Machine
    started: dt.datetime
    before: Scraped
    after: Scraped


def compose(options: argparse.Namespace, prepared: Prepared, session: Session, frame: Frame) -> Report:
    """Puts the report together."""
    total = figures(session.whole, session.rate)
    judged = judge(options.fail_if, session.whole, session.rate)
    return Report(
        schema=VERSION,
        started_at=frame.started.isoformat(timespec="seconds"),
        seconds=session.seconds,
        interrupted=session.stopped,
        dropped=session.dropped,
        target=prepared.target,
        setup=_setup(options, prepared, frame.command),
        machine=frame.machine,
        verdict=conclude(total, judged, session.limits, session.saturation, session.stopped),
        judged=judged,
        notes=_notes(session, [*frame.before.problems.values(), *frame.after.problems.values()]),
        client=_health(session),
        total=total,
        scenarios={name: _scenario(session, tally) for name, tally in session.scenarios.items()},
        stages=session.stages,
        curve=percentile_curve(session.whole.latency),
        service_curve=percentile_curve(session.whole.service),
        histogram=session.whole.latency.encode().decode("ascii"),
        timeline=session.ticks,
        saturation=session.saturation,
        failures=session.told,
        server=server_stages(frame.before, frame.after),
    )


def _scenario(session: Session, tally: Tally) -> Figures:
    # Of the rate it has as much as of the answers that make it.
    return figures(tally, session.rate * tally.finished / max(1, session.whole.finished))


def _health(session: Session) -> ClientHealth:
    counted = [stage for stage in session.stages if stage.role == MEASURED]
    return ClientHealth(
        cpu=max((stage.cpu for stage in counted), default=0.0),
        lag_p99_ms=max((stage.figures.lag.p99 for stage in counted if stage.figures.lag), default=0.0),
        reasons=session.limits,
    )


def _notes(session: Session, problems: Iterable[str]) -> list[str]:
    # A page that cannot be read twice is told once.
    notes = list(dict.fromkeys(problems))
    whole = session.whole
    if whole.degraded:
        notes.append(
            f"{whole.degraded:,} answers were degraded: the store of people's events could not be read for them."
        )
    encoded = sum(session.scenarios[name].ok for name in _ENCODING if name in session.scenarios)
    if whole.cold_starts > _COLD_SHARE * encoded:
        notes.append(
            f"{whole.cold_starts / encoded:.0%} of those who were encoded are people of whom nothing is known: import "
            "the events of --data, or name people with --users who are in the store."
        )
    if "record" in session.scenarios:
        stored = session.scenarios["record"].ok
        notes.append(f"{stored:,} events were recorded, for people whose ids begin with {RECORDED_FOR!r}.")
    return notes


def _setup(options: argparse.Namespace, prepared: Prepared, command: str) -> Setup:
    return Setup(
        command=command,
        loop=_loop(options),
        arrivals=str(options.arrivals),
        scenario=options.scenario,
        people=prepared.people,
        k=options.k,
        details=not options.no_details,
        processes=options.processes,
        connections=options.connections,
        deadline_s=options.deadline,
        seed=options.seed,
    )


def _loop(options: argparse.Namespace) -> str:
    if options.closed:
        return f"closed loop with {options.closed} callers"
    return f"open loop with {options.arrivals} arrivals"


def command_line(arguments: Sequence[str]) -> str:
    """Writes the command line without its secret."""
    shown: list[str] = []
    for argument in arguments:
        secret = shown[-1:] == [_SECRET]
        shown.append("…" if secret else f"{_SECRET}=…" if argument.startswith(f"{_SECRET}=") else argument)
    return shlex.join(["python", "-m", "clients.loadtest", *shown])


def this_machine() -> Machine:
    """Looks at this machine."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release()}",
        load=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        grpcio=version("grpcio"),
        marquee=marquee.__version__,
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
