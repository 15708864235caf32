"""What the command line takes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

from marquee.client import Filters

ENCODER, RETRIEVER = "127.0.0.1:50051", "127.0.0.1:50052"

_YEARS = re.compile(r"(?P<low>\d{4})?(?P<dash>-)?(?P<high>\d{4})?", re.ASCII)
_MOVIE_HELP = 'a movie: its id, an external id ("imdb:tt0078748"), or its title or the beginning of it'

Parser = argparse.ArgumentParser


def parser(environment: Mapping[str, str]) -> Parser:
    """Builds the parser; the environment gives the addresses' defaults."""
    top = Parser(
        prog="python -m clients.cli",
        description="Recommends movies, and finds and shows them.",
        epilog=f"MOVIE is {_MOVIE_HELP}. A title that is a number needs its year: '1917 (2019)'.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = [_connection(environment)]
    ranked = [*shared, _ranking()]
    _add_recommend(commands.add_parser("recommend", help="recommend movies for a person", parents=ranked))
    _add_search(commands.add_parser("search", help="find movies by title", parents=shared))
    _add_show(commands.add_parser("show", help="show what is known about movies", parents=shared))
    _add_similar(commands.add_parser("similar", help="find movies like others", parents=ranked))
    return top


def _connection(environment: Mapping[str, str]) -> Parser:
    shared = Parser(add_help=False)
    group = shared.add_argument_group("connection and output")
    group.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_address(group, "encoder", environment.get("MARQUEE_ENCODER") or ENCODER)
    add_address(group, "retriever", environment.get("MARQUEE_RETRIEVER") or RETRIEVER)
    group.add_argument(
        "--deadline", type=float, default=5.0, metavar="SECONDS", help="time for each request (default: %(default)g)"
    )
    return shared


def add_address(group: argparse._ArgumentGroup, service: str, default: str) -> None:
    """Adds the flag of a service's address."""
    told = f"address of the {service} (default: %(default)s; from MARQUEE_{service.upper()} where that is set)"
    group.add_argument(f"--{service}", metavar="HOST:PORT", default=default, help=told)


def _ranking() -> Parser:
    shared = Parser(add_help=False)
    shared.add_argument("-k", type=count, default=10, metavar="N", help="movies wanted (default: %(default)d)")
    add_filters(shared.add_argument_group("filters"))
    return shared


def add_filters(group: argparse._ArgumentGroup) -> None:
    """Adds the flags that say which movies may be shown; `filters_of` reads them."""
    group.add_argument(
        "--genre", action="append", default=[], help="keep movies of this genre; repeat for any of several"
    )
    group.add_argument(
        "--without-genre", action="append", default=[], metavar="GENRE", help="drop movies of this genre"
    )
    group.add_argument("--year", type=_years, default=(None, None), help="one year or a range: 1999, 1990-1999, 1990-")
    group.add_argument(
        "--language", action="append", default=[], help="keep this original language (fr); may be repeated"
    )


def filters_of(options: argparse.Namespace) -> Filters:
    """Reads the flags of `add_filters`."""
    year_min, year_max = options.year
    return {
        "genres": options.genre,
        "without_genres": options.without_genre,
        "year_min": year_min,
        "year_max": year_max,
        "languages": options.language,
    }


def _add_recommend(command: Parser) -> None:
    command.add_argument("user", nargs="?", default="", metavar="USER", help="the person's id")
    command.add_argument(
        "--like",
        action="append",
        default=[],
        metavar="MOVIE",
        help="a movie that they like: its id, external id or title",
    )
    command.add_argument(
        "--dislike", action="append", default=[], metavar="MOVIE", help="a movie that they do not like"
    )
    command.add_argument("--include-seen", action="store_true", help="recommend what they have seen, too")


def _add_search(command: Parser) -> None:
    command.add_argument("words", nargs="+", metavar="WORD", help="words of the title; the last may be unfinished")
    command.add_argument("-k", type=count, default=10, metavar="N", help="movies wanted (default: %(default)d)")


def _add_show(command: Parser) -> None:
    command.add_argument("movies", nargs="+", metavar="MOVIE", help=_MOVIE_HELP)


def _add_similar(command: Parser) -> None:
    command.add_argument("movies", nargs="+", metavar="MOVIE", help=_MOVIE_HELP)
    command.add_argument("--unlike", action="append", default=[], metavar="MOVIE", help="a movie to be away from")


def count(text: str) -> int:
    """Reads a number of movies."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= 1_000):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return int(text)


def _years(text: str) -> tuple[int | None, int | None]:
    match = _YEARS.fullmatch(text)
    if match is None or not (match["low"] or match["high"]) or (match["high"] and not match["dash"]):
        raise argparse.ArgumentTypeError(f"{text!r} is no year or range of years; give 1999, 1990-1999, 1990- or -1999")
    low = int(match["low"]) if match["low"] else None
    high = int(match["high"]) if match["high"] else None
    return low, high if match["dash"] else low
