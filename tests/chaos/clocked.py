"""Runs a service whose clock a test sets: python -m tests.chaos.clocked FILE SERVICE [--setting value ...].

FILE says by how many seconds the clock is off, and may be replaced at any time. The monotonic clock goes on as it does.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

_true_ns = time.time_ns
_SECOND_NS = 1_000_000_000


def main(file: Path, service: str, *arguments: str) -> int:
    """Runs the service; returns the exit code."""

    def off_s() -> int:
        # gRPC's core, whose clock is the true one, hands deadlines out as moments: what is left of one is asked there.
        asked_by = sys._getframe(2).f_globals["__name__"]
        return 0 if asked_by == "services.common.deadlines" else int(file.read_text())

    def time_ns() -> int:
        return _true_ns() + off_s() * _SECOND_NS

    def time_s() -> float:
        return _true_ns() / _SECOND_NS + off_s()

    time.time_ns, time.time = time_ns, time_s
    code: int = importlib.import_module(f"services.{service}.__main__").main(arguments)
    return code


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), *sys.argv[2:]))
