"""Runs the command line; Ctrl-C before anything was measured ends it with 130."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs a load test and returns the exit code."""
    try:
        from clients.loadtest.app import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
