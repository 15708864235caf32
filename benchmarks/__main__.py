"""Measures Marquee on this machine: `python -m benchmarks [--data DIR|sample] [--only NAME ...] [--out FILE]`.

Prints one Markdown table and writes the same as JSON. A goal that is missed is reported, and is no failure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import (
    batch,
    demo,
    encoding,
    interceptors,
    latency,
    loadtester,
    overload,
    passes,
    preparing,
    retrieval,
    searching,
    soak,
    startup,
    stores,
    titles,
    training,
    web,
)
from benchmarks.machine import facts
from benchmarks.processes import Processes, interrupt_once
from benchmarks.report import Row, check_writable, markdown, write_json
from benchmarks.work import Work, describe_data, obtain_data, publish, say
from marquee.errors import MarqueeError

PARTS = (
    "training",
    "startup",
    "latency",
    "encoding",
    "batch",
    "searching",
    "preparing",
    "stores",
    "titles",
    "web",
    "demo",
)
ON_REQUEST = (
    "preparing-20m",
    passes.GIVEN,
    passes.ONE_MILLION,
    "retrieval",
    "loadtester",
    "interceptors",
    "overload",
    "soak",
)
_ALONE = frozenset(("demo", "searching", "preparing", "stores", "titles", *ON_REQUEST)) - {"overload", "soak"}
_SERVED = ("startup", "latency", "encoding", "web", "overload", "soak")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 0 also where a goal is missed, 1 where something failed."""
    options = _parser().parse_args(arguments)
    interrupt_once()
    try:
        _run(options)
    except MarqueeError as error:
        print(f"benchmarks: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; everything that was started has stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--data", default="", help='folder in MovieLens format, or "sample" (default: the best there is)'
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS + ON_REQUEST,
        default=PARTS,
        help=f"parts to measure (all but {', '.join(ON_REQUEST)})",
    )
    parser.add_argument(
        "--soak-minutes", type=float, default=soak.MINUTES, metavar="N", help="how long the soak takes (%(default)g)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/latest.json"), help="JSON to write (%(default)s)"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    check_writable(options.out)
    where = facts()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as name, Processes(Path(name)) as processes:
        folder = Path(name)
        work = Work(folder, obtain_data(options.data, folder, processes), processes)
        try:
            _measure(work, frozenset(options.only), rows)
            if "soak" in options.only:
                rows += soak.measure(work, options.soak_minutes)
        except MarqueeError:
            # What was measured before is still worth reading.
            if rows:
                print(markdown(where, describe_data(work), rows))
            raise
        data = describe_data(work)
    print(markdown(where, data, rows))
    write_json(options.out, where, data, rows)
    say(f"wrote {options.out}")


def _measure(work: Work, parts: frozenset[str], rows: list[Row]) -> None:
    if parts - _ALONE:
        # The services need a bundle, asked for or not.
        trained = training.measure(work)
        rows += trained if "training" in parts else []
    if parts & {*_SERVED}:
        publish(work)
    if "startup" in parts:
        rows += startup.measure(work)
    if "latency" in parts:
        rows += latency.measure(work)
    if "encoding" in parts:
        rows += encoding.measure(work)
    if "batch" in parts:
        rows += batch.measure(work)
    if "searching" in parts:
        rows += searching.measure(work)
    for size in (preparing.ONE_MILLION, preparing.TWENTY_MILLIONS):
        if size.name in parts:
            rows += preparing.measure(work, size)
    if "stores" in parts:
        rows += stores.measure(work)
    if "titles" in parts:
        rows += titles.measure(work)
    if passes.GIVEN in parts:
        rows += passes.measure_given(work)
    if passes.ONE_MILLION in parts:
        rows += passes.measure_million(work)
    if "retrieval" in parts:
        rows += retrieval.measure(work)
    if "loadtester" in parts:
        rows += loadtester.measure(work)
    if "interceptors" in parts:
        rows += interceptors.measure(work)
    if "overload" in parts:
        rows += overload.measure(work)
    if "web" in parts:
        rows += web.measure(work)
    if "demo" in parts:
        rows += demo.measure(work)


if __name__ == "__main__":
    sys.exit(main())
