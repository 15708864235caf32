"""Runs the command line; Ctrl-C ends it quietly with 130, even while it is still importing."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs one command and returns the exit code."""
    try:
        from clients.cli.app import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
