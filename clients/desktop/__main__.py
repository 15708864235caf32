"""Opens the window; Ctrl-C in the terminal closes it with 130."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the program and returns the exit code."""
    try:
        from clients.desktop.app import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
