"""Runs the user encoder, or one of its commands: `python -m services.user_encoder [COMMAND] ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

from marquee.bundle.registry import Registry
from marquee.engine.encoder import Encoder
from services.common.served import PEOPLE, ServedFolder, open_folder, watch_folder
from services.common.server import Life, run_service
from services.common.spaces import Spaces
from services.common.telemetry import Telemetry
from services.user_encoder.commands import COMMANDS, run_command
from services.user_encoder.ladder import Ladder
from services.user_encoder.measures import MEASURES
from services.user_encoder.served import ServedPeople
from services.user_encoder.servicer import SERVICES, add_servicers, load_encoder
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.opening import open_store

SUMMARY = (
    "Turns people's events into query vectors, and keeps the events.\n"
    "Other commands, each with --help: import-events fills the store from MovieLens ratings, export-events writes its "
    "events as Parquet, served-report measures the lists that were served, back-up copies the store."
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name, or the service; returns the exit code."""
    if arguments and arguments[0] in COMMANDS:
        return run_command(arguments[0], arguments[1:])
    return run_service("user_encoder", SUMMARY, UserEncoderSettings, serve, arguments)


async def serve(settings: UserEncoderSettings) -> None:
    """Serves until a signal comes."""
    # Store and folder are the outer ones: they close after the last call has been answered.
    with open_folder(PEOPLE, settings) as folder:
        async with aclosing(open_store(settings)) as store, Life(settings, SERVICES, name="user_encoder") as life:
            spaces = Spaces(Registry(settings.registry), partial(load_encoder, threads=settings.threads), settings)
            await spaces.start()
            ladder = Ladder(store, settings)
            _watch(life.telemetry, spaces, ladder, folder)
            people = None if folder is None else ServedPeople(settings.served_sample, folder, ladder)
            add_servicers(spaces, ladder, life.server, people)
            await life.run(spaces.watch(), ladder.watch(), *([] if folder is None else [folder.watch()]))


def _watch(telemetry: Telemetry, spaces: Spaces[Encoder], ladder: Ladder, folder: ServedFolder | None) -> None:
    telemetry.expect(MEASURES)
    telemetry.watch_spaces(spaces)
    remembered = ladder.last_known
    telemetry.gauge("remembered_people", "People whose histories are remembered.", lambda: remembered.people)
    telemetry.gauge("remembered_bytes", "What the remembered histories take.", lambda: remembered.size_bytes)
    telemetry.gauge("store_reachable", "1 while the feature store answers.", lambda: ladder.breaker.reachable)
    telemetry.counter("stale_answers", "Answers made of what was remembered.", lambda: ladder.stale_answers)
    telemetry.counter("blind_answers", "Answers made without anything stored.", lambda: ladder.blind_answers)
    telemetry.counter("refused_writes", "Events that could not be stored.", lambda: ladder.refused_writes)
    if folder is not None:
        watch_folder(telemetry, folder)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
