"""Runs one command: asks the services through the SDK and prints the answer."""

from __future__ import annotations

import io
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence

from clients.cli import commands, doctor, why
from clients.cli.arguments import parser
from clients.cli.connection import Connection
from clients.cli.saying import fail
from marquee.client import ConfigError, MarqueeError, Recommender

_COMMANDS: Mapping[str, Callable[[Recommender, Namespace], str]] = {
    "arm": commands.arm,
    "batch": commands.batch,
    "dislike": commands.dislike,
    "explain": commands.explain,
    "facets": commands.facets,
    "forget": commands.forget,
    "genres": commands.genres,
    "history": commands.history,
    "like": commands.like,
    "rate": commands.rate,
    "recommend": commands.recommend,
    "retract": commands.retract,
    "search": commands.search,
    "show": commands.show,
    "similar": commands.similar,
    "status": commands.status,
    "top": commands.top,
    "why": why.why,
}


def run(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name; returns the exit code.

    0: answered; 1: an error, in one sentence on stderr, or something that the doctor found; 2: the arguments are wrong;
    141: nobody reads the output.
    """
    top = parser(os.environ)
    options = top.parse_args(arguments)
    if options.command == "recommend" and not (options.user or options.like or options.dislike):
        top.error("recommend takes a USER, --like or --dislike")
    if options.command == "forget" and not options.yes:
        top.error("forget deletes for good; say --yes")
    code = 0
    try:
        connection = Connection.of_flags(options)
        if options.command == "doctor":
            text, code = doctor.doctor(connection, options)
        else:
            with connection.open() as marquee:
                text = _COMMANDS[options.command](marquee, options)
    except ConfigError as error:
        top.error(error.message)
    except MarqueeError as error:
        return fail(error.message)
    return _write(text) or code


def _write(text: str) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A title that the terminal's encoding lacks is no reason to print nothing.
        sys.stdout.reconfigure(errors="replace")
    try:
        print(text, flush=True)
    except OSError as error:
        # The interpreter flushes once more on its way out and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141 if isinstance(error, BrokenPipeError) else fail(f"cannot write the answer: {error.strerror}")
    return 0
