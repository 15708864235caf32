"""Runs a load test from the command line to the report."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from rich.console import Console

import marquee
from clients.loadtest.arguments import parse
from clients.loadtest.calls import BadAnswer
from clients.loadtest.crew import Crew, interruptible
from clients.loadtest.live import progress
from clients.loadtest.metrics import Scraped, scrape, server_stages
from clients.loadtest.page import render
from clients.loadtest.prepare import Prepared, prepare
from clients.loadtest.report import (
    VERSION,
    ClientHealth,
    Machine,
    Report,
    Setup,
    as_json,
    read,
    unwritable,
    validate,
    write,
)
from clients.loadtest.results import figures, percentile_curve
from clients.loadtest.scenarios import RECORDED_FOR
from clients.loadtest.session import Conductor, Session
from clients.loadtest.stages import MEASURED
from clients.loadtest.summary import print_summary
from clients.loadtest.verdict import EXIT_CODES, conclude, judge
from marquee.client import Tls
from marquee.client.channels import Settings, settings
from marquee.errors import ConfigError, MarqueeError

JSON_NAME, PAGE_NAME = "report.json", "report.html"
_SECRET = "--api-key"
_ENCODING = ("encode", "recommend")
_COLD_SHARE = 0.5
_WIDE = 160


def run(arguments: Sequence[str]) -> int:
    """Runs the command line; returns the exit code that its help explains."""
    options = parse(arguments, os.environ)
    console = Console(stderr=True)
    try:
        asked = _settings(options)
        earlier = read(options.compare) if options.compare else None
        _make_folder(options.out)
        prepared = asyncio.run(prepare(options, asked))
        report = _test(options, prepared, _command(arguments), console)
        _write(report, earlier, options.out)
    except ConfigError as error:
        return _fail(error.message, 2)
    except MarqueeError as error:
        return _fail(error.message, 1)
    except (BadAnswer, DecodeError) as error:
        return _fail(f"what answers is no Marquee service, or a broken one ({error}); check the addresses", 1)
    print_summary(report, _console())
    print(f"wrote {options.out / JSON_NAME} and {options.out / PAGE_NAME}")
    return EXIT_CODES[report.verdict.outcome]


def _fail(message: str, code: int) -> int:
    print(f"python -m clients.loadtest: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _console() -> Console:
    # A pipe or a file has no width: rows stay whole.
    return Console() if sys.stdout.isatty() else Console(width=_WIDE)


def _settings(options: argparse.Namespace) -> Settings:
    named = {"ca": options.tls_ca, "cert": options.tls_cert, "key": options.tls_key}
    encrypted = options.tls or options.tls_server_name or any(named.values())
    tls = Tls(**named, server_name=options.tls_server_name or "") if encrypted else None
    return settings(options.encoder, options.retriever, options.deadline, options.connections, options.api_key, tls)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def _test(options: argparse.Namespace, prepared: Prepared, command: str, console: Console) -> Report:
    started = dt.datetime.now(dt.UTC)
    machine = _machine()
    before = scrape(options.metrics)
    with (
        interruptible() as interrupt,
        Crew(prepared.load, options.processes) as crew,
        progress(console) as watch,
    ):
        crew.await_ready(interrupt)
        session = Conductor(crew, options, interrupt, watch).run()
    # Somebody who has pressed Ctrl-C waits for nothing more.
    after = Scraped({}, {}) if session.stopped else scrape(options.metrics)
    total = figures(session.whole, session.rate)
    judged = judge(options.fail_if, session.whole, session.rate)
    return Report(
        schema=VERSION,
        started_at=started.isoformat(timespec="seconds"),
        seconds=session.seconds,
        interrupted=session.stopped,
        dropped=session.dropped,
        target=prepared.target,
        setup=_setup(options, prepared, command),
        machine=machine,
        verdict=conclude(total, judged, session.limits, session.saturation, session.stopped),
        judged=judged,
        notes=_notes(session, {**before.problems, **after.problems}),
        client=_health(session),
        total=total,
        scenarios={name: figures(tally, _share(session, tally)) for name, tally in session.scenarios.items()},
        stages=session.stages,
        curve=percentile_curve(session.whole.latency),
        service_curve=percentile_curve(session.whole.service),
        histogram=session.whole.latency.encode().decode("ascii"),
        timeline=session.ticks,
        saturation=session.saturation,
        failures=session.told,
        server=server_stages(before, after),
    )


def _share(session: Session, tally: Any) -> float:
    """Says how much of the rate a scenario has."""
    return session.rate * tally.finished / session.whole.finished if session.whole.finished else 0.0


def _health(session: Session) -> ClientHealth:
    counted = [stage for stage in session.stages if stage.role == MEASURED]
    return ClientHealth(
        cpu=max((stage.cpu for stage in counted), default=0.0),
        lag_p99_ms=max((stage.figures.lag.p99 for stage in counted if stage.figures.lag), default=0.0),
        reasons=session.limits,
    )


def _notes(session: Session, problems: dict[str, str]) -> list[str]:
    notes = list(problems.values())
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


def _command(arguments: Sequence[str]) -> str:
    """Writes the command line without its secret."""
    shown: list[str] = []
    for argument in arguments:
        secret = shown[-1:] == [_SECRET]
        shown.append("…" if secret else f"{_SECRET}=…" if argument.startswith(f"{_SECRET}=") else argument)
    return shlex.join(["python", "-m", "clients.loadtest", *shown])


def _machine() -> Machine:
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


def _write(report: Report, earlier: dict[str, Any] | None, folder: Path) -> None:
    told = as_json(report)
    validate(told)
    write(folder / JSON_NAME, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    write(folder / PAGE_NAME, render(report, earlier))
