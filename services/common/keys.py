"""Makes a key for a caller: `python -m services.common.keys new --name web --role reader`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from services.common.callers import NAME, line_for, new_key
from services.common.policy import Role

PROGRAM = "python -m services.common.keys"


def main(arguments: Sequence[str]) -> int:
    """Prints a new key, and the line that lets its caller in; neither is kept anywhere."""
    options = _parser().parse_args(arguments)
    key = new_key(options.name)
    line = line_for(options.name, map(Role, dict.fromkeys(options.role)), key)
    print(f"key, for the caller, shown this once:\n  {key}")
    print(f"line, for the file that --callers names:\n  {line}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description="Makes keys for callers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="print a new key, and its line for the file of callers")
    new.add_argument("--name", required=True, type=_name, help="what the caller is called in the file and in errors")
    new.add_argument(
        "--role",
        required=True,
        action="append",
        choices=[role.value for role in Role],
        help="what it may do; may be repeated",
    )
    return parser


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: write letters, digits and ._:/@- of ASCII, at most 255")
    return text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
