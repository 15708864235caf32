"""Reads the command line, opens the window, and puts everything away when it is closed."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import sys
from collections.abc import Mapping, Sequence

from clients.cli.arguments import add_connection
from clients.cli.connection import Connection
from clients.presenter import Presenter, Stage
from marquee.client import AsyncRecommender, ConfigError

_DEADLINE_S = 2.0
_TK = (
    "install Tk for this Python (Debian and Ubuntu: python3-tk) and the window's theme: pip install 'marquee[desktop]'"
)


def run(arguments: Sequence[str]) -> int:
    """Runs the desktop client; returns the exit code: 0 closed, 1 no window can be opened, 2 wrong arguments."""
    top = make_parser(os.environ)
    options = top.parse_args(arguments)
    try:
        import tkinter as tk

        from clients.desktop.window import Window
    except ImportError as error:
        return _fail(f"there is no window to be had ({error}): {_TK}")
    try:
        client = _client(Connection.of_flags(options))
    except ConfigError as error:
        top.error(error.message)
    try:
        root = tk.Tk(className="Marquee")
    except tk.TclError as error:
        return _fail(f"no window can be opened ({error}): run it where there is a screen, or set DISPLAY")
    with Stage() as stage:
        Window(root, stage, Presenter(client), options.user, theme=options.theme, report=_report)
        root.mainloop()
        # Whoever still waits was told to stop when the window closed; the connections are what is left.
        with contextlib.suppress(TimeoutError):
            stage.run(client.close()).result(_DEADLINE_S)
    return 0


def _client(connection: Connection) -> AsyncRecommender:
    return AsyncRecommender(
        connection.encoder,
        connection.retriever,
        deadline_s=connection.deadline_s,
        api_key=connection.api_key,
        tls=connection.tls,
    )


def _report(message: str) -> None:
    print(f"python -m clients.desktop: {message}", file=sys.stderr)


def _fail(message: str) -> int:
    _report(f"error: {message}")
    return 1


def make_parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Builds the parser; the environment gives the addresses' defaults."""
    top = argparse.ArgumentParser(
        prog="python -m clients.desktop", description="Opens a window with films for you.", allow_abbrev=False
    )
    top.add_argument("--user", default=_user(), metavar="ID", help="who you are to the services (default: %(default)s)")
    top.add_argument("--theme", choices=("light", "dark"), default="light", help="colours (default: %(default)s)")
    add_connection(top.add_argument_group("connection"), environment, deadline_s=_DEADLINE_S)
    return top


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # Who runs it has no name here, as in many a container.
        return "desktop"
