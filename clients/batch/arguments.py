"""What the command line takes."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Mapping
from pathlib import Path

from clients.cli.arguments import add_connection, add_filters, count

PEOPLE_PER_PART = 10_000
# Of a BatchEncode; what they have seen comes back and goes on, up to 80 kB a person.
PEOPLE_PER_CALL = 256

_DESCRIPTION = """Recommends for everybody, into Parquet: by the services that run, or, with --bundle or --registry, in
this process. Ended at any point, the same command goes on."""


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Builds the parser; the environment gives the addresses' defaults."""
    top = argparse.ArgumentParser(prog="python -m clients.batch", description=_DESCRIPTION, allow_abbrev=False)
    top.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make, with the parts")
    top.add_argument("--users", type=Path, metavar="FILE", help="only these people: a text file with one id a line")
    top.add_argument(
        "--people-per-part",
        type=_positive,
        default=PEOPLE_PER_PART,
        metavar="N",
        help="people in one file (default: %(default)d)",
    )
    _add_services(top.add_argument_group("by the services"), environment)
    _add_in_process(top.add_argument_group("in this process"))
    _add_lists(top.add_argument_group("lists"))
    return top


def _add_services(group: argparse._ArgumentGroup, environment: Mapping[str, str]) -> None:
    add_connection(group, environment, deadline_s=60.0)
    group.add_argument(
        "--calls",
        type=_positive,
        default=2,
        metavar="N",
        help=f"calls of {PEOPLE_PER_CALL} people at once (default: %(default)d)",
    )


def _add_in_process(group: argparse._ArgumentGroup) -> None:
    which = group.add_mutually_exclusive_group()
    which.add_argument("--bundle", type=Path, metavar="DIR", help="folder of a bundle")
    which.add_argument("--registry", type=Path, metavar="DIR", help="registry, whose active bundle is used")
    group.add_argument(
        "--events",
        type=Path,
        metavar="PATH",
        help="people's events: a folder of `services.user_encoder export-events`, a Parquet file like its, or a folder "
        "with MovieLens' ratings.csv",
    )
    group.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="threads of one computation (default: %(default)d)"
    )


def _add_lists(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-k", type=count, default=10, metavar="N", help="movies a person (default: %(default)d)")
    group.add_argument("--include-seen", action="store_true", help="recommend what they have seen, too")
    group.add_argument("--as-of", type=_moment, metavar="TIME", help="moment to recommend for: 2026-11-01T00:00Z (now)")
    add_filters(group)
    group.add_argument(
        "--exclude", type=Path, metavar="FILE", help="movies to leave out: a text file, as a retriever's block list is"
    )


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000000")
    return int(text)


def _moment(text: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give 2026-11-01T00:00Z") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone; give 2026-11-01T00:00Z")
    milliseconds = round(moment.timestamp() * 1000)
    if milliseconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not after 1970-01-01")
    return milliseconds
