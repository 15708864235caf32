"""Runs the user encoder, or one of its commands: `python -m services.user_encoder [COMMAND] ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

from marquee.bundle.registry import Registry
from marquee.engine.encoder import Encoder
from services.common.server import Life, run_service
from services.common.spaces import Spaces
from services.common.telemetry import Telemetry
from services.user_encoder.commands import COMMANDS, run_command
from services.user_encoder.ladder import Ladder
from services.user_encoder.servicer import SERVICES, add_servicers, load_encoder
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.opening import open_store

SUMMARY = (
    "Turns people's events into query vectors, and keeps the events.\n"
    "Other commands, each with --help: import-events fills the store from MovieLens ratings, export-events writes its "
    "events as Parquet, back-up copies it."
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name, or the service; returns the exit code."""
    if arguments and arguments[0] in COMMANDS:
        return run_command(arguments[0], arguments[1:])
    return run_service("user_encoder", SUMMARY, UserEncoderSettings, serve, arguments)


async def serve(settings: UserEncoderSettings) -> None:
    """Serves until a signal comes."""
    # The store is the outer one: it closes after the last call has been answered.
    async with aclosing(open_store(settings)) as store, Life(settings, SERVICES, name="user_encoder") as life:
        spaces = Spaces(Registry(settings.registry), partial(load_encoder, threads=settings.threads), settings)
        await spaces.start()
        ladder = Ladder(store, settings)
        _watch(life.telemetry, spaces, ladder)
        add_servicers(spaces, ladder, life.server)
        await life.run(spaces.watch(), ladder.watch())


def _watch(telemetry: Telemetry, spaces: Spaces[Encoder], ladder: Ladder) -> None:
    telemetry.watch_spaces(spaces)
    telemetry.gauge("store_reachable", "1 while the feature store answers.", lambda: ladder.breaker.reachable)
    telemetry.counter("stale_answers", "Answers made of what was remembered.", lambda: ladder.stale_answers)
    telemetry.counter("blind_answers", "Answers made without anything stored.", lambda: ladder.blind_answers)
    telemetry.counter("refused_writes", "Events that could not be stored.", lambda: ladder.refused_writes)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
