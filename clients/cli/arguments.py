"""What the command line takes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from marquee.client import Filters, ListOptions, Quality
from marquee.client.tls_flags import add_tls_flags

ENCODER, RETRIEVER = "127.0.0.1:50051", "127.0.0.1:50052"

_YEARS = re.compile(r"(?P<low>\d{4})?(?P<dash>-)?(?P<high>\d{4})?", re.ASCII)
_MOVIE_HELP = 'a movie: its id, an external id ("imdb:tt0078748"), or its title or the beginning of it'

Parser = argparse.ArgumentParser


def parser(environment: Mapping[str, str]) -> Parser:
    """Builds the parser; the environment gives the addresses' defaults."""
    top = Parser(
        prog="python -m clients.cli",
        description="Recommends movies, finds and shows them, keeps what people did, and looks after the services.",
        epilog=f"MOVIE is {_MOVIE_HELP}. A title that is a number needs its year: '1917 (2019)'. "
        "A key for the services is read from MARQUEE_API_KEY.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _connection(environment)
    for name, (told, more, add) in _COMMANDS.items():
        parents = [shared, *(make() for make in more)]
        add(commands.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.", parents=parents))
    return top


def _connection(environment: Mapping[str, str]) -> Parser:
    shared = Parser(add_help=False)
    group = shared.add_argument_group("connection and output")
    group.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_connection(group, environment, deadline_s=5.0)
    return shared


def add_connection(group: argparse._ArgumentGroup, environment: Mapping[str, str], *, deadline_s: float) -> None:
    """Adds the flags that say where the services are and how to speak to them; `Connection.of_flags` reads them."""
    add_address(group, "encoder", environment.get("MARQUEE_ENCODER") or ENCODER)
    add_address(group, "retriever", environment.get("MARQUEE_RETRIEVER") or RETRIEVER)
    group.add_argument(
        "--deadline",
        type=float,
        default=deadline_s,
        metavar="SECONDS",
        help="time for each request (default: %(default)g)",
    )
    add_tls_flags(group, "the services'")
    group.set_defaults(api_key=environment.get("MARQUEE_API_KEY", ""))


def add_address(group: argparse._ArgumentGroup, service: str, default: str) -> None:
    """Adds the flag of a service's address."""
    told = f"address of the {service} (default: %(default)s; from MARQUEE_{service.upper()} where that is set)"
    group.add_argument(f"--{service}", metavar="HOST:PORT", default=default, help=told)


def _ranking() -> Parser:
    shared = Parser(add_help=False)
    shared.add_argument("-k", type=count, default=10, metavar="N", help="movies wanted (default: %(default)d)")
    add_filters(shared.add_argument_group("filters"))
    return shared


def _options() -> Parser:
    shared = Parser(add_help=False)
    group = shared.add_argument_group("the list")
    group.add_argument("--min-score", type=float, metavar="COSINE", help="drop movies below this score, -1 to 1")
    group.add_argument(
        "--quality", choices=["exact", "balanced", "fast"], default="unspecified", help="how hard to look"
    )
    group.add_argument("--diversity", type=float, default=0.0, metavar="0-1", help="trade nearness for variety")
    group.add_argument("--max-per-genre", type=count, default=0, metavar="N", help="at most N of any one genre")
    group.add_argument("--max-per-director", type=count, default=0, metavar="N", help="at most N of any one director")
    return shared


def options_of(options: argparse.Namespace) -> ListOptions:
    """Reads the flags of filters and of the list."""
    return {
        **filters_of(options),
        "min_score": options.min_score,
        "quality": Quality[options.quality.upper()],
        "diversity": options.diversity,
        "max_per_genre": options.max_per_genre,
        "max_per_director": options.max_per_director,
    }


def _filtering() -> Parser:
    shared = Parser(add_help=False)
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
    group.add_argument(
        "--all-genre", action="append", default=[], metavar="GENRE", help="keep movies that have all of these genres"
    )
    group.add_argument(
        "--person", action="append", default=[], metavar="NAME", help="keep movies directed or played by this person"
    )
    group.add_argument("--stars", type=float, metavar="N", help="keep movies with a mean rating of at least N stars")
    group.add_argument("--rated", type=int, metavar="N", help="keep movies with at least N ratings")
    group.add_argument("--little-known", type=int, metavar="N", help="keep movies with at most N ratings")


def filters_of(options: argparse.Namespace) -> Filters:
    """Reads the flags of `add_filters`."""
    year_min, year_max = options.year
    return {
        "genres": options.genre,
        "without_genres": options.without_genre,
        "year_min": year_min,
        "year_max": year_max,
        "languages": options.language,
        "all_genres": options.all_genre,
        "people": options.person,
        "rating_min": options.stars,
        "rating_count_min": options.rated,
        "rating_count_max": options.little_known,
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
    _add_debug(command)
    command.add_argument(
        "--no-fallback", action="store_true", help="fail where the encoder is away, instead of showing what is watched"
    )


def _add_search(command: Parser) -> None:
    command.add_argument("words", nargs="+", metavar="WORD", help="words of the title; the last may be unfinished")
    command.add_argument("-k", type=count, default=10, metavar="N", help="movies wanted (default: %(default)d)")


def _add_show(command: Parser) -> None:
    command.add_argument("movies", nargs="+", metavar="MOVIE", help=_MOVIE_HELP)


def _add_similar(command: Parser) -> None:
    command.add_argument("movies", nargs="+", metavar="MOVIE", help=_MOVIE_HELP)
    command.add_argument("--unlike", action="append", default=[], metavar="MOVIE", help="a movie to be away from")
    _add_debug(command)


def _add_debug(command: Parser) -> None:
    command.add_argument("--debug", action="store_true", help="say how the list came about")


def _add_person(command: Parser) -> None:
    command.add_argument("user", metavar="USER", help="the person's id")


def _add_person_and_movie(command: Parser) -> None:
    _add_person(command)
    command.add_argument("movie", metavar="MOVIE", help=_MOVIE_HELP)


def _add_rate(command: Parser) -> None:
    _add_person_and_movie(command)
    command.add_argument("stars", type=float, metavar="STARS", help="0.5 to 5")


def _add_forget(command: Parser) -> None:
    _add_person(command)
    command.add_argument("--yes", action="store_true", help="do it: there is no way back")


def _add_explain(command: Parser) -> None:
    _add_person(command)
    _add_show(command)
    command.add_argument("--events", type=count, default=5, metavar="N", help="events shown (default: %(default)d)")


def _add_batch(command: Parser) -> None:
    command.add_argument("users", nargs="+", metavar="USER", help="ids of people; - reads them from standard input")


def _add_arm(command: Parser) -> None:
    _add_person(command)
    command.add_argument("salt", metavar="SALT", help="the experiment's name")
    command.add_argument("--arms", type=count, default=2, metavar="N", help="arms in all (default: %(default)d)")


def _add_doctor(command: Parser) -> None:
    command.add_argument(
        "--registry", type=Path, metavar="FOLDER", help="the registry the services read, where it can be read from here"
    )


def _add_nothing(command: Parser) -> None:
    """Adds no flags: some commands take none."""


# Of each command: what it does, which groups of flags it shares, and what adds its own.
_COMMANDS: Mapping[str, tuple[str, tuple[Callable[[], Parser], ...], Callable[[Parser], None]]] = {
    "recommend": ("recommend movies for a person", (_ranking, _options), _add_recommend),
    "similar": ("find movies like others", (_ranking, _options), _add_similar),
    "batch": ("recommend movies for many people", (_ranking, _options), _add_batch),
    "top": ("list the most watched movies", (_ranking,), _add_nothing),
    "search": ("find movies by title", (), _add_search),
    "show": ("show what is known about movies", (), _add_show),
    "genres": ("list the genres and their numbers of movies", (), _add_nothing),
    "facets": ("count movies by genre, decade and language", (_filtering,), _add_nothing),
    "history": ("show what a person did", (), _add_person),
    "like": ("record that a person likes a movie", (), _add_person_and_movie),
    "dislike": ("record that a person dislikes a movie", (), _add_person_and_movie),
    "rate": ("record a person's rating of a movie", (), _add_rate),
    "retract": ("take back all that a person did with a movie", (), _add_person_and_movie),
    "forget": ("delete everything about a person", (), _add_forget),
    "explain": ("show which events speak for and against movies", (), _add_explain),
    "why": ("say why a person is, or is not, shown a movie", (_ranking,), _add_person_and_movie),
    "arm": ("say in which arm of an experiment a person is", (), _add_arm),
    "status": ("show what one replica of each service has loaded", (), _add_nothing),
    "doctor": ("look at every replica: what is wrong, and what to do", (), _add_doctor),
}


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
