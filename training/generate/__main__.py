"""Writes generated data: `python -m training.generate --out DIR --people U --movies N --events E --seed S`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from marquee.errors import DataError
from training.command import run_command
from training.generate import write_generated
from training.sample import SIMULATED_NOTICE


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    return run_command("generate", lambda: _generate(options), interrupted="; nothing was written")


def _generate(options: argparse.Namespace) -> None:
    try:
        write_generated(
            options.out,
            people=options.people,
            movies=options.movies,
            events=options.events,
            seed=options.seed,
            file_format=options.format,
        )
    except OSError as error:
        raise DataError(str(error)) from error
    print(f"{options.out}: {options.events:,} events. {SIMULATED_NOTICE}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """Builds the command line; the default sizes are MovieLens 1M's."""
    parser = argparse.ArgumentParser(prog="python -m training.generate", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must not hold anything yet")
    parser.add_argument("--people", type=int, default=6040, help="people (%(default)s)")
    parser.add_argument("--movies", type=int, default=3700, help="movies (%(default)s)")
    parser.add_argument("--events", type=int, default=1_000_000, help="events (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed (%(default)s)")
    parser.add_argument(
        "--format", choices=("csv", "parquet"), default="csv", help="parquet for many millions of events (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
