"""Measures Marquee on this machine: `python -m benchmarks [--data DIR|sample] [--only NAME ...] [--out FILE]`.

Prints one Markdown table and what has moved since the last committed run; writes the same as Markdown and JSON, and
draws it. A goal that is missed is reported, and is no failure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from benchmarks import (
    batch,
    demo,
    encoding,
    interceptors,
    latency,
    loadtester,
    moved,
    overload,
    passes,
    preparing,
    profile,
    retrieval,
    searching,
    soak,
    startup,
    stores,
    titles,
    training,
    web,
)
from benchmarks.machine import Facts, committed, facts
from benchmarks.pictures import draw_profile, draw_ratios
from benchmarks.processes import Processes
from benchmarks.report import Row, check_writable, markdown, write_json, write_text
from benchmarks.standalone import run_benchmark
from benchmarks.work import Work, describe_data, obtain_data, publish, say
from marquee.errors import MarqueeError

Measure: TypeAlias = Callable[[Work], list[Row]]

# `make bench`: what has ratios, and what those need, in less than 20 minutes on two cores.
PARTS = ("training", "startup", "latency", "encoding", "batch", "searching", "profile")
# In the order in which they are measured; training comes before all of them, where one needs its bundle.
_MEASURES: Mapping[str, Measure] = {
    "startup": startup.measure,
    "latency": latency.measure,
    "encoding": encoding.measure,
    "batch": batch.measure,
    "searching": searching.measure,
    "profile": profile.measure,
    "preparing": partial(preparing.measure, size=preparing.ONE_MILLION),
    "preparing-20m": partial(preparing.measure, size=preparing.TWENTY_MILLIONS),
    "stores": stores.measure,
    "titles": titles.measure,
    passes.GIVEN: passes.measure_given,
    passes.ONE_MILLION: passes.measure_million,
    "retrieval": retrieval.measure,
    "loadtester": loadtester.measure,
    "interceptors": interceptors.measure,
    "overload": overload.measure,
    "web": web.measure,
    "demo": demo.measure,
    "soak": partial(soak.measure, minutes=soak.MINUTES),
}
ON_REQUEST = tuple(name for name in _MEASURES if name not in PARTS)
_SERVED = frozenset(("startup", "latency", "encoding", "profile", "web", "overload", "soak"))
_ALONE = frozenset(_MEASURES) - _SERVED - {"batch"}
_RESULTS = Path("benchmarks/results")
_MOST_MIN = 20.0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 0 also where a goal is missed, 1 where something failed."""
    options = _parser().parse_args(arguments)
    return run_benchmark("benchmarks", lambda: _run(options))


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
        "--out",
        type=Path,
        help=f"JSON to write, with Markdown and pictures beside it (default: {_RESULTS}/latest.json, or named by the "
        "parts after --only)",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    out = options.out or _RESULTS / f"{'latest' if options.only == PARTS else '-'.join(options.only)}.json"
    check_writable(out)
    where, began = facts(), time.monotonic()
    rows: list[Row] = []
    failed: MarqueeError | None = None
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as name, Processes(Path(name)) as processes:
        folder = Path(name)
        work = Work(folder, obtain_data(options.data, folder, processes), processes)
        try:
            _measure(work, frozenset(options.only), rows, options.soak_minutes)
        except MarqueeError as error:
            failed = error
        data = describe_data(work) if rows else ""
    if options.only == PARTS and failed is None:
        rows.append(_whole((time.monotonic() - began) / 60))
    # What was measured before a part that failed is still worth reading.
    if rows:
        _report(out, where, data, rows)
    if failed is not None:
        raise failed


def _whole(minutes: float) -> Row:
    return Row("benchmarks", "`make bench`: the whole run", minutes, "min", _MOST_MIN, "with training, on this machine")


def _report(out: Path, where: Facts, data: str, rows: Sequence[Row]) -> None:
    """Prints the report with what has moved since the last commit of the same file, and writes it thrice."""
    lines = [markdown(where, data, rows), "", *moved.section(committed(out.absolute()), where, data, rows)]
    ratios, profiled = out.with_name(f"{out.stem}-ratios.png"), out.with_name("profile.png")
    if draw_ratios(ratios, rows):
        lines += ["", f"![Ratios of this run]({ratios.name})"]
    if draw_profile(profiled, rows):
        lines += ["", f"![Where the time goes]({profiled.name})"]
    print("\n".join(lines))
    write_text(out.with_suffix(".md"), "\n".join(lines))
    write_json(out, where, data, rows)
    say(f"wrote {out}, and Markdown and pictures beside it")


def _measure(work: Work, parts: frozenset[str], rows: list[Row], soak_minutes: float) -> None:
    if parts - _ALONE:
        # The services need a bundle, asked for or not.
        trained = training.measure(work)
        rows += trained if "training" in parts else []
    if parts & _SERVED:
        publish(work)
    measures: dict[str, Measure] = {**_MEASURES, "soak": partial(soak.measure, minutes=soak_minutes)}
    for name, measure in measures.items():
        if name in parts:
            began = time.monotonic()
            rows += measure(work)
            say(f"{name} took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
