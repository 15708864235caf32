"""Runs the user encoder, or one of its commands: `python -m services.user_encoder [import-events] ...`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

from marquee.bundle.registry import Registry
from marquee.errors import ConfigError, MarqueeError
from services.common.server import EXIT_CONFIG, Life, run_service
from services.common.spaces import Spaces
from services.user_encoder.event_import import Imported, describe, import_events
from services.user_encoder.ladder import Ladder
from services.user_encoder.servicer import SERVICES, add_servicers, load_encoder
from services.user_encoder.settings import DEFAULT_STORE, UserEncoderSettings
from services.user_encoder.stores.sqlite import SqliteStore
from services.user_encoder.wire import clock_ms

PROGRAM = "python -m services.user_encoder"
# What a shell reports for a program that Ctrl-C ended.
_EXIT_INTERRUPTED = 130
SUMMARY = (
    "Turns people's events into query vectors, and keeps the events.\n"
    "Another command: import-events fills the store from MovieLens ratings (import-events --help)."
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name, or the service; returns the exit code."""
    if arguments[:1] == ["import-events"]:
        return run_import(arguments[1:])
    return run_service("user_encoder", SUMMARY, UserEncoderSettings, serve, arguments)


async def serve(settings: UserEncoderSettings) -> None:
    """Serves until a signal comes."""
    # The store is the outer one: it closes after the last call has been answered.
    async with aclosing(SqliteStore(settings.store)) as store, Life(settings, SERVICES) as life:
        spaces = Spaces(Registry(settings.registry), partial(load_encoder, threads=settings.threads), settings)
        await spaces.start()
        ladder = Ladder(store, settings)
        add_servicers(spaces, ladder, life.server)
        await life.run(spaces.watch(), ladder.watch())


def run_import(arguments: Sequence[str]) -> int:
    """Runs import-events; returns its exit code.

    0, 1 where the data or the store is no good, 2 where a setting is wrong, 130 after Ctrl-C.
    """
    options = _import_options().parse_args(arguments)
    try:
        done = asyncio.run(_import(options.data, options.store))
    except MarqueeError as error:
        print(f"{PROGRAM} import-events: {error.message}", file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print(f"\n{PROGRAM} import-events: interrupted; run it again to import the rest", file=sys.stderr)
        return _EXIT_INTERRUPTED
    print(_summary(done, options.store))
    return 0


def _import_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} import-events",
        description="Fills the feature store from MovieLens ratings: ratings.csv, or the ratings.dat of MovieLens 1M. "
        "Running it again changes nothing.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder that holds the ratings")
    parser.add_argument(
        "--store",
        type=Path,
        default=Path(os.environ.get("MARQUEE_STORE") or DEFAULT_STORE),
        metavar="PATH",
        help="SQLite file to fill; MARQUEE_STORE (default: %(default)s)",
    )
    return parser


async def _import(data: Path, path: Path) -> Imported:
    async with aclosing(SqliteStore(path)) as store:
        done = await import_events(data, store, clock_ms(), _show_progress)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return done


def _show_progress(rows: int, seconds: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{rows:,} rows, {rows / seconds:,.0f} rows/s ", end="", file=sys.stderr, flush=True)


def _summary(done: Imported, store: Path) -> str:
    bad = f"; skipped {describe(done.bad)}" if done.bad else ""
    changed = f"{done.changed:,} histories written" if done.changed else "nothing was new"
    return (
        f"{store}: {done.events:,} events of {done.users:,} people from {done.rows:,} rows in {done.seconds:.1f} s "
        f"({done.rows / max(done.seconds, 1e-9):,.0f} rows/s), {changed}{bad}"
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
