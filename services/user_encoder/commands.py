"""The encoder's commands beside serving: import-events, export-events, served-report and back-up."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from marquee.bundle.registry import Registry
from marquee.errors import ConfigError, DataError, MarqueeError
from marquee.whole_files import write_json
from services.common.server import EXIT_CONFIG, spare_the_collector
from services.common.settings import load_settings
from services.user_encoder.event_import import Imported, Resume, describe, import_events
from services.user_encoder.export_folder import FINISHED, Exported, Source, export_events
from services.user_encoder.progress import Bar
from services.user_encoder.served_report import HOUR_MS, report
from services.user_encoder.settings import DEFAULT_STORE, UserEncoderSettings
from services.user_encoder.stores.opening import open_store
from services.user_encoder.stores.redis_url import is_url, without_password
from services.user_encoder.stores.sqlite_file import back_up, default_key_path
from services.user_encoder.stores.tags import read_tags
from services.user_encoder.wire import clock_ms

PROGRAM = "python -m services.user_encoder"
# What a shell reports for a program that Ctrl-C ended.
_EXIT_INTERRUPTED = 130


class Command(NamedTuple):
    """Is a command: what it does, its arguments, what runs and sums up, and what to say where Ctrl-C ended it."""

    what: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Coroutine[Any, Any, str]]
    interrupted: str


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Runs one of COMMANDS; returns its exit code.

    0, 1 where the data or the store is no good, 2 where a setting is wrong, 130 after Ctrl-C.
    """
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} {name}", description=command.what)
    command.add_arguments(parser)
    options = parser.parse_args(arguments)
    spare_the_collector()
    try:
        print(asyncio.run(command.run(options)))
    except MarqueeError as error:
        print(f"{parser.prog}: {error.message}", file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted; {command.interrupted}", file=sys.stderr)
        return _EXIT_INTERRUPTED
    return 0


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", metavar="STORE", help=f"a SQLite file, or a Redis's URL; MARQUEE_STORE (default: {DEFAULT_STORE})"
    )
    parser.add_argument(
        "--store-key", metavar="FILE", help="the store's key; MARQUEE_STORE_KEY (default: beside the SQLite file)"
    )


def _settings(options: argparse.Namespace) -> UserEncoderSettings:
    """Reads which store it is as the service does, and none of its other settings."""
    named = {"--store": options.store, "--store-key": options.store_key}
    flags = [f"{flag}={value}" for flag, value in named.items() if value is not None]
    environment = {name: os.environ[name] for name in ("MARQUEE_STORE", "MARQUEE_STORE_KEY") if name in os.environ}
    return load_settings(UserEncoderSettings, flags, environment)


def _name(settings: UserEncoderSettings) -> str:
    """Names a store so that it is another's name nowhere on this machine."""
    return (
        without_password(settings.store) if is_url(settings.store) else str(Path(settings.store).expanduser().resolve())
    )


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder that holds the ratings")
    _add_store(parser)
    parser.add_argument(
        "--progress",
        type=Path,
        metavar="FILE",
        help="file that keeps how far the import is, until it is done (default: one in .marquee)",
    )


async def _import(options: argparse.Namespace) -> str:
    settings = _settings(options)
    resume = Resume(options.progress or _progress_file(options.data, _name(settings)), _name(settings))
    async with aclosing(open_store(settings)) as store:
        with closing(Bar("rows", sys.stderr)) as bar:
            done = await import_events(options.data, store, clock_ms(), bar.show, resume)
    return _imported(done, without_password(settings.store))


def _progress_file(data: Path, store: str) -> Path:
    """Names a file by what is imported where."""
    digest = hashlib.sha256(f"{data.resolve()}\n{store}".encode()).hexdigest()
    return DEFAULT_STORE.parent / f"import-{digest[:12]}.json"


def _imported(done: Imported, store: str) -> str:
    bad = f"; skipped {describe(done.bad)}" if done.bad else ""
    refused = f"; left out {done.refused:,} of people who were deleted after them" if done.refused else ""
    changed = f"{done.changed:,} histories written" if done.changed else "nothing was new"
    before = f"; went on after line {done.before:,}, where a run before was ended" if done.before else ""
    return (
        f"{store}: {done.events:,} events of {done.users:,} people from {done.rows:,} rows in {done.seconds:.1f} s "
        f"({done.rows / max(done.seconds, 1e-9):,.0f} rows/s), {changed}{bad}{refused}{before}"
    )


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder that gets events/part-00001.parquet and so on"
    )
    _add_store(parser)
    parser.add_argument(
        "--since",
        type=_time_ms,
        default=0,
        metavar="TIME",
        help="leaves out events dated before: 2026-11-24, 2026-11-24T18:00+01:00, UTC unless it says so, or "
        "milliseconds since 1970",
    )


def _time_ms(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    wrong = argparse.ArgumentTypeError(
        f"{text!r} is no time since 1970; write a date (2026-11-24), a moment (2026-11-24T18:00+01:00) or milliseconds"
    )
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise wrong from None
    since_ms = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if since_ms < 0:
        raise wrong
    return since_ms


async def _export(options: argparse.Namespace) -> str:
    settings = _settings(options)
    if not is_url(settings.store) and not Path(settings.store).expanduser().exists():
        raise ConfigError(f"MARQUEE_STORE: {settings.store} does not exist: nothing to export; name a store")
    source = Source(_name(settings), options.since)
    async with aclosing(open_store(settings)) as store:
        with closing(Bar("events", sys.stderr)) as bar:
            done = await export_events(store, source, options.out, bar.show)
    return _exported(done, options.out)


def _exported(done: Exported, out: Path) -> str:
    begun = f"; {done.begun:,} of them by a run before, which was ended" if done.begun else ""
    return (
        f"{out / FINISHED}: {done.events:,} events of {done.users:,} people in {done.shards:,} files in "
        f"{done.seconds:.1f} s{begun}"
    )


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--served",
        type=Path,
        required=True,
        action="append",
        metavar="DIR",
        help="folder that the services' --served-folder names; repeatable: name all",
    )
    parser.add_argument(
        "--events", type=Path, required=True, metavar="DIR", help="folder of Parquet files that export-events wrote"
    )
    parser.add_argument(
        "--registry", type=Path, required=True, metavar="DIR", help="registry that has the bundles and their reports"
    )
    _add_store(parser)
    parser.add_argument(
        "--window-hours",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="how long after a list an event counts as found by it or missed (default: 24)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file that gets the JSON in place of the screen")


async def _report(options: argparse.Namespace) -> str:
    settings = _settings(options)
    if not 0 < options.window_hours < math.inf:
        raise ConfigError(f"--window-hours is {options.window_hours:g}; give some hours, such as 24")
    events = sorted(options.events.glob("*.parquet"))
    if not events:
        raise DataError(f"{options.events}: has no Parquet files; name the folder `{FINISHED}` that export-events made")
    tags = read_tags(settings.store_key or default_key_path(Path(settings.store).expanduser()))
    window_ms = round(options.window_hours * HOUR_MS)
    told = report(options.served, events, tags, Registry(options.registry), window_ms)
    if told["people"] and not told["people_with_events"]:
        print(
            f"none of the {told['people']:,} people whose lists were sampled has an event in {options.events}; see "
            "that --store-key names the key of the store that both come from",
            file=sys.stderr,
        )
    if options.out is None:
        return json.dumps(told, indent=1)
    write_json(options.out, told)
    return f"{options.out}: written"


def _back_up_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write; it must not be there")
    _add_store(parser)


async def _back_up(options: argparse.Namespace) -> str:
    settings = _settings(options)
    if is_url(settings.store):
        raise ConfigError(
            f"--store {without_password(settings.store)} is a Redis: copy its snapshot (BGSAVE) or its append-only file"
        )
    path = Path(settings.store).expanduser()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    back_up(path, options.out)
    key = settings.store_key or default_key_path(path)
    return f"{options.out}: written; keep a copy of {key} as well, without which it cannot be opened"


COMMANDS = {
    "import-events": Command(
        "Fills the feature store from MovieLens ratings: ratings.csv, or the ratings.dat of MovieLens 1M. Running it "
        "again changes nothing.",
        _import_arguments,
        _import,
        "run it again to import the rest",
    ),
    "export-events": Command(
        "Writes the events of the feature store as Parquet that training reads, without what was retracted.",
        _export_arguments,
        _export,
        "run it again to export the rest",
    ),
    "served-report": Command(
        "Measures the lists that were served and sampled by what their people did afterwards, beside what the bundles' "
        "reports say, and writes JSON. Needs the store's key, and not the store.",
        _report_arguments,
        _report,
        "nothing was written",
    ),
    "back-up": Command(
        "Copies a SQLite feature store, which may be in use, into one new file.",
        _back_up_arguments,
        _back_up,
        "nothing was written",
    ),
}
