"""Runs the command: finds out whom to recommend for, goes on where a run was ended, and says how far it is."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clients.batch import folder as runs
from clients.batch.arguments import parser
from clients.batch.folder import RunFolder
from clients.batch.lists import Recommending, Wanted
from clients.batch.texts import fingerprint, read_movie_ids, read_user_ids
from clients.cli.arguments import filters_of
from clients.cli.connection import Connection
from marquee.client.requests import get_facets
from marquee.errors import ConfigError, DataError, MarqueeError
from marquee.v1 import types_pb2


def run(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments describe; returns the exit code.

    0: all lists are there; 1: an error, in one sentence on stderr; 2: the arguments are wrong.
    """
    top = parser(os.environ)
    options = top.parse_args(arguments)
    if bool(options.bundle or options.registry) != bool(options.events):
        top.error("--events goes with --bundle or --registry, and they with it: in process, give one of them and it")
    try:
        with _recommending(options) as recommending:
            _say(_score(options, recommending))
    except ConfigError as error:
        top.error(error.message)
    except MarqueeError as error:
        _say(f"error: {' '.join(error.message.split())}")
        return 1
    return 0


def _say(text: str) -> None:
    print(f"python -m clients.batch: {text}", file=sys.stderr)


@contextmanager
def _recommending(options: argparse.Namespace) -> Iterator[Recommending]:
    # Imported where it is known which: one way needs the engine, the other gRPC.
    if options.events:
        from clients.batch.in_process import InProcess

        place = options.bundle or options.registry
        yield InProcess(place, options.events, in_registry=options.bundle is None, threads=options.threads)
        return
    from clients.batch.remote import Remote

    with closing(Remote(Connection.of_flags(options), calls=options.calls)) as remote:
        yield remote


def _score(options: argparse.Namespace, recommending: Recommending) -> str:
    """Makes all lists that are not there yet; says what there is."""
    asked = _asked(options, recommending)
    if options.out.exists():
        return _of_finished(options.out, asked)
    folder = runs.unfinished(options.out)
    started = time.monotonic()
    try:
        with runs.locked(folder):
            made = _begun(folder, asked, options, recommending)
            before = made.total("people")
            _make(made, options, recommending)
            runs.finish(options.out)
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); see that this user may and "
            "the disk has room, then run it again to go on"
        ) from error
    return _told(options.out, made, made.total("people") - before, time.monotonic() - started)


def _asked(options: argparse.Namespace, recommending: Recommending) -> dict[str, object]:
    """Says what must be the same when a run is gone on with."""
    return {
        "source": recommending.source(),
        "users": fingerprint(read_user_ids(options.users)) if options.users else "everybody",
        "people_per_part": options.people_per_part,
        "k": options.k,
        "exclude_seen": not options.include_seen,
        "filter": json_format.MessageToDict(_filter(options)),
        **({"as_of_ms": options.as_of} if options.as_of else {}),
    }


def _filter(options: argparse.Namespace) -> types_pb2.MovieFilter:
    filters = filters_of(options)
    if options.exclude:
        filters["exclude"] = read_movie_ids(options.exclude)
    return get_facets(filters).filter


def _of_finished(out: Path, asked: dict[str, object]) -> str:
    manifest = runs.read_manifest(out)
    if manifest is None:
        raise DataError(f"{out} is there already, and not of this command; name another folder with --out")
    runs.check_same(manifest, asked, out)
    return f"{out} is there already, with all lists"


def _begun(
    folder: Path, asked: dict[str, object], options: argparse.Namespace, recommending: Recommending
) -> RunFolder:
    """Reads how far a run is, or begins it."""
    manifest = runs.read_manifest(folder)
    if manifest is None:
        origin = recommending.origin("")
        people = read_user_ids(options.users) if options.users else recommending.people()
        if not people:
            raise DataError("there is nobody to recommend for: no events are there; import some, or name other ones")
        as_of_ms = options.as_of or time.time_ns() // 1_000_000
        runs.begin(folder, asked, origin, as_of_ms, people)
    else:
        runs.check_same(manifest, asked, folder)
        _check_origin(recommending, manifest, folder)
    return RunFolder(folder, runs.read_manifest(folder) or {})


def _check_origin(recommending: Recommending, manifest: dict[str, Any], folder: Path) -> None:
    begun = manifest["bundle_id"]
    found = recommending.origin(begun).bundle_id
    if found != begun:
        raise DataError(
            f"{folder} was begun with bundle {begun[:12]}, and this is {found[:12]}: they are not mixed. Go on with "
            "the one that it was, or name another folder with --out"
        )


def _make(made: RunFolder, options: argparse.Namespace, recommending: Recommending) -> None:
    wanted = Wanted(options.k, _filter(options), not options.include_seen, made.as_of_ms)
    size = options.people_per_part
    with _bar() as bar:
        task = bar.add_task("people", total=len(made.people), completed=min(made.made * size, len(made.people)))
        for start in range(made.made * size, len(made.people), size):
            some = made.people[start : start + size]
            made.add(recommending.recommend(some, wanted, made.origin, lambda people: bar.advance(task, people)))


def _bar() -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _told(out: Path, made: RunFolder, people: int, seconds: float) -> str:
    left_out = len(made.people) - made.total("people")
    told = f"{out}: {made.total('people')} people, {made.total('rows')} rows, {made.made} parts"
    told += f"; {left_out} people have no events and no list" if left_out else ""
    return f"{told}; {people} people in {seconds:.1f} s, bundle {made.origin.bundle_id[:12]}"
