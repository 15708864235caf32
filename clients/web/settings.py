"""What the web page is told: flags, some of them from the environment."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from clients.cli.arguments import add_connection
from clients.cli.connection import Connection

_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})", re.ASCII)
_URL = re.compile(r"https?://\S+", re.ASCII)
_SHORTEST_TOKEN: Final = 16


@dataclasses.dataclass(frozen=True, slots=True)
class WebSettings:
    """Holds what the web page is told. `rate` and `burst` are requests, a second and at once."""

    connection: Connection
    host: str
    port: int
    key: Path | None
    operator_token: str
    metrics: tuple[str, ...]
    behind_proxy: bool
    rate: float
    burst: int
    port_file: Path | None


def read_settings(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> WebSettings:
    """Reads the command line; what is wrong with it ends the program with a sentence, or raises ConfigError."""
    parser = _parser(environment)
    told = parser.parse_args(arguments)
    host, port = told.listen
    if told.operator_token and len(told.operator_token) < _SHORTEST_TOKEN:
        parser.error(f"the operator's token is too short to be secret: give {_SHORTEST_TOKEN} characters or more")
    connection = Connection.of_flags(told)
    return WebSettings(
        connection=connection,
        host=host,
        port=port,
        key=told.key,
        operator_token=told.operator_token,
        metrics=tuple(told.metrics),
        behind_proxy=told.behind_proxy,
        rate=told.rate,
        burst=max(1, round(told.rate * 4)),
        port_file=told.port_file,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clients.web",
        description="Serves the web page.",
        epilog="A key for the services is read from MARQUEE_API_KEY.",
        # --port 9000 would be a --port-file of that name.
        allow_abbrev=False,
    )
    add_connection(parser.add_argument_group("services"), environment, deadline_s=1.0)
    _add_operator(parser, environment)
    parser.add_argument(
        "--listen",
        type=_listen,
        default=("127.0.0.1", 8080),
        metavar="HOST:PORT",
        help="where to serve; port 0 takes a free one (default: 127.0.0.1:8080)",
    )
    parser.add_argument(
        "--port-file", type=Path, metavar="FILE", help="file that gets the port once the page is served"
    )
    _add_visitors(parser)
    return parser


def _add_visitors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="random bytes that sessions are signed with, made where there are none; the same for all processes of one "
        "page (default: others at every start, which makes everybody a new person)",
    )
    parser.add_argument(
        "--behind-proxy",
        action="store_true",
        help="browsers come over a proxy on this machine that speaks HTTPS: its X-Forwarded-For is believed, and "
        "cookies are for HTTPS only",
    )
    parser.add_argument(
        "--rate",
        type=_positive,
        default=20.0,
        metavar="N",
        help="requests a second that one person may send; four seconds' worth at once, and ten times as many from one "
        "address (default: %(default)g)",
    )


def _add_operator(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    parser.add_argument(
        "--metrics",
        type=_url,
        action="append",
        default=[],
        metavar="URL",
        help="a service's metrics, for the operator's page; repeat for each (http://127.0.0.1:9100/metrics)",
    )
    parser.add_argument(
        "--operator-token",
        default=environment.get("MARQUEE_OPERATOR_TOKEN", ""),
        metavar="TOKEN",
        help="secret that opens the operator's page; better in MARQUEE_OPERATOR_TOKEN, which no list of processes "
        "shows (default: none, and only this machine may see the page)",
    )


def _listen(text: str) -> tuple[str, int]:
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no host:port; give for example 127.0.0.1:8080 or [::]:8080")
    return match["host"].strip("[]"), int(match["port"])


def _url(text: str) -> str:
    if not _URL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no URL; give for example http://127.0.0.1:9100/metrics")
    return text


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number
