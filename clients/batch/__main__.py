"""Runs the command line; Ctrl-C ends it with 130, even while it is still importing."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command and returns the exit code."""
    try:
        from clients.batch.app import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        print("python -m clients.batch: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
