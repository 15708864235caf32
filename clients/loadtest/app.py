"""Runs a load test from the command line to the report."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from rich.console import Console

from clients.cli.connection import Connection
from clients.loadtest.arguments import parse
from clients.loadtest.calls import BadAnswer
from clients.loadtest.compose import Frame, command_line, compose, this_machine
from clients.loadtest.crew import Crew, interruptible
from clients.loadtest.live import progress
from clients.loadtest.metrics import Scraped, scrape
from clients.loadtest.page import render
from clients.loadtest.prepare import Prepared, prepare
from clients.loadtest.report import Report, as_json, read, unwritable, validate, write
from clients.loadtest.session import Conductor
from clients.loadtest.summary import print_summary
from clients.loadtest.verdict import EXIT_CODES
from marquee.client.channels import Settings, settings
from marquee.errors import ConfigError, MarqueeError

JSON_NAME, PAGE_NAME = "report.json", "report.html"
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
        report = _test(options, prepared, command_line(arguments), console)
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
    told = Connection.of_flags(options)
    return settings(told.encoder, told.retriever, told.deadline_s, options.connections, told.api_key, told.tls)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def _test(options: argparse.Namespace, prepared: Prepared, command: str, console: Console) -> Report:
    started, machine, before = dt.datetime.now(dt.UTC), this_machine(), scrape(options.metrics)
    with (
        interruptible() as interrupt,
        Crew(prepared.load, options.processes) as crew,
        progress(console) as watch,
    ):
        crew.await_ready(interrupt)
        session = Conductor(crew, options, interrupt, watch).run()
    # Somebody who has pressed Ctrl-C waits for nothing more.
    after = Scraped({}, {}) if session.stopped else scrape(options.metrics)
    return compose(options, prepared, session, Frame(command, machine, started, before, after))


def _write(report: Report, earlier: dict[str, Any] | None, folder: Path) -> None:
    told = as_json(report)
    validate(told)
    write(folder / JSON_NAME, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    write(folder / PAGE_NAME, render(report, earlier))
