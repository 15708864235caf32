"""What the command line takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from clients.cli.arguments import add_connection, count
from clients.loadtest.arrivals import Arrivals
from clients.loadtest.conditions import parse_condition, parse_objective
from clients.loadtest.scenarios import MIX, RECORDED_FOR, parse_scenario
from clients.loadtest.stages import parse_duration, parse_rate, parse_stages

T = TypeVar("T")

_EPILOG = f"""
stages      DURATION@RATE, or a ramp: 10s@100,30s@500,ramp 20s@500..1000. Durations have a unit: ms, s, m or h.
conditions  METRIC SIGN NUMBER: p99>50ms, p99.9>0.2s, mean>5ms, max>1s, errors>0.1%, degraded>0%, rate<900/s.
scenarios   encode, search, recommend (both, one after the other), record, or mix:
            {",".join(f"{name}={weight:g}" for name, weight in MIX.items())}. Weights of your own are written so too.
            What is recorded is recorded for people whose ids begin with "{RECORDED_FOR}".
exit codes  0 measured, and within all limits; 1 it could not be measured; 2 wrong arguments; 3 over a limit, or
            nothing was answered; 4 the load tester was the limit; 130 interrupted (the report is written).
"""


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Builds the parser; the environment gives the addresses' defaults."""
    top = argparse.ArgumentParser(
        prog="python -m clients.loadtest",
        description="Asks the services as people would, at the rate that you want, and reports how they answered.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # A key given under a shortened flag would not be known for one, and be written into the report.
        allow_abbrev=False,
    )
    _add_target(top.add_argument_group("services"), environment)
    _add_load(top.add_argument_group("load"))
    _add_people(top.add_argument_group("people and requests"))
    _add_client(top.add_argument_group("client"))
    _add_outcome(top.add_argument_group("outcome"))
    return top


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """Reads the command line; ends the program with 2, and a sentence, where it makes no sense."""
    top = parser(environment)
    options = top.parse_args(arguments)
    if options.find_max and options.objective is None:
        top.error("--find-max looks for the highest rate under an --objective: give one, such as 'p99<50ms'")
    if options.objective is not None and not options.find_max:
        top.error("--objective belongs to --find-max; a limit for one rate is written --fail-if 'p99>50ms'")
    if options.rate == 0:
        top.error("--rate 0 wants no call at all: give calls a second")
    if options.data and options.users:
        top.error("--data and --users both say who asks: give one of them")
    if (options.closed or options.find_max) and (options.stages or options.rate):
        top.error("--rate and --stages say when calls are due; --closed and --find-max decide that themselves")
    if options.closed and options.find_max:
        top.error("--find-max wants rates, and --closed has none: give one of them")
    if options.closed and options.processes > options.closed:
        top.error(f"--closed {options.closed} is too few callers for --processes {options.processes}")
    return options


def _add_target(group: argparse._ArgumentGroup, environment: Mapping[str, str]) -> None:
    add_connection(group, environment, deadline_s=5.0)
    group.add_argument(
        "--api-key",
        default=environment.get("MARQUEE_API_KEY", ""),
        metavar="KEY",
        help="key that the services ask for (from MARQUEE_API_KEY where that is set)",
    )
    group.add_argument(
        "--metrics",
        action="append",
        default=[],
        metavar="URL",
        help="a service's page of metrics, read before and after; repeat it for several",
    )


def _add_load(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--scenario",
        type=_read(parse_scenario),
        default=parse_scenario("recommend"),
        metavar="NAME",
        help="what people do; see below (default: recommend)",
    )
    group.add_argument("--rate", type=_read(parse_rate), metavar="N", help="calls a second (default: 100)")
    group.add_argument(
        "--duration", type=_read(parse_duration), default=30.0, metavar="DURATION", help="how long (default: 30s)"
    )
    group.add_argument("--stages", type=_read(parse_stages), help="several rates, one after the other; see below")
    group.add_argument(
        "--arrivals",
        type=Arrivals,
        choices=list(Arrivals),
        default=Arrivals.POISSON,
        help="how calls follow one another (default: %(default)s)",
    )
    group.add_argument(
        "--closed", type=count, metavar="CALLERS", help="no rate: so many callers, each waiting for its answer"
    )
    group.add_argument("--find-max", action="store_true", help="look for the highest rate that holds the --objective")
    group.add_argument(
        "--objective", type=_read(parse_objective), metavar="CONDITION", help="what a rate must hold: 'p99<50ms'"
    )
    group.add_argument(
        "--step", type=_read(parse_duration), default=8.0, metavar="DURATION", help="time for each rate tried (8s)"
    )
    group.add_argument(
        "--precision", type=_precision, default=0.05, metavar="SHARE", help="how near to find it (default: 0.05)"
    )
    group.add_argument(
        "--warm-up", type=_read(parse_duration), default=2.0, metavar="DURATION", help="time that does not count (2s)"
    )


def _add_people(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--data", type=Path, help="people and ratings of this folder in MovieLens format")
    group.add_argument(
        "--users",
        type=Path,
        metavar="FILE",
        help="ids of people, one a line (without either, people are made up from the catalogue, and sent as events)",
    )
    group.add_argument("-k", type=count, default=10, metavar="N", help="movies wanted (default: %(default)d)")
    group.add_argument("--no-details", action="store_true", help="ask for ids and scores alone")
    group.add_argument("--seed", type=int, default=0, help="draws the same people and times again (default: 0)")


def _add_client(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--processes", type=count, default=1, metavar="N", help="processes that send (default: 1)")
    group.add_argument(
        "--connections", type=count, default=1, metavar="N", help="connections of each to each service (default: 1)"
    )


def _add_outcome(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--fail-if",
        type=_read(parse_condition),
        action="append",
        default=[],
        metavar="CONDITION",
        help="exit with 3 where it is true: 'p99>50ms', 'errors>0.1%%'; may be repeated",
    )
    group.add_argument(
        "--out",
        type=Path,
        default=Path(".marquee/loadtest"),
        metavar="DIR",
        help="folder for report.json and report.html (default: %(default)s)",
    )
    group.add_argument("--compare", type=Path, metavar="FILE", help="an earlier report.json to put beside this one")


def _read(parse_text: Callable[[str], T]) -> Callable[[str], T]:
    """Lets argparse show what a parser says, in place of a text of its own."""

    def read(text: str) -> T:
        try:
            return parse_text(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _precision(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.005 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0.005 to 1")
    return share
