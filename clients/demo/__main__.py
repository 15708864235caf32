"""Runs the demo: `python -m clients.demo [--data DIR]`; `make demo` sets everything up first."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from rich.console import Console

from clients.demo.data import check_folder, user_ids, work_folder
from clients.demo.processes import Services, end_on_signals, run_step
from clients.demo.story import tell
from marquee.bundle.format import open_bundle
from marquee.client import Recommender
from marquee.errors import MarqueeError

_MADE = {"registry": "registry", "store": "features.sqlite"}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m clients.demo", description=__doc__)
    parser.add_argument(
        "--data", default="", help='folder in MovieLens format, or "sample" (default: the best there is)'
    )
    parser.add_argument("--work", type=Path, default=Path(".marquee"), help="folder for what is made (%(default)s)")
    parser.add_argument("--tower", default="pooled", help="user tower (%(default)s)")
    options = parser.parse_args(arguments)
    console = Console()
    started = time.monotonic()
    end_on_signals()
    try:
        work = _run(options, console)
    except MarqueeError as error:
        print(f"demo: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; everything it started has stopped", file=sys.stderr)
        return 130
    console.print(
        f"\nThat took {time.monotonic() - started:.0f} s; everything it started has stopped.", highlight=False
    )
    _what_next(work, console)
    return 0


def _run(options: argparse.Namespace, console: Console) -> Path:
    """Runs everything; returns the folder of what was made."""
    console.rule("[bold]Data")
    data = Path(run_step("training.obtain", *(["--data", options.data] if options.data else [])))
    check_folder(data)
    work = work_folder(options.work, data)
    work.mkdir(parents=True, exist_ok=True)
    registry, store = (work / file for file in _MADE.values())
    console.rule("[bold]Training")
    run_step("training", "--data", data, "--tower", options.tower, "--out", work / "bundle")
    console.rule("[bold]Publishing, and filling the feature store")
    _note(console, run_step("marquee.bundle", "publish", work / "bundle", "--registry", registry))
    _note(
        console,
        run_step("marquee.bundle", "activate", "--registry", registry, "--force", open_bundle(work / "bundle").space),
    )
    _note(console, run_step("services.user_encoder", "import-events", "--data", data, "--store", store))
    with Services(work) as services:
        services.start("user_encoder", "--registry", registry, "--store", store)
        services.start("retriever", "--registry", registry)
        encoder, retriever = services.addresses()
        _note(console, f"user_encoder on {encoder}, retriever on {retriever}")
        with Recommender(encoder, retriever, deadline_s=5.0) as marquee:
            tell(marquee, user_ids(data), console)
    return work


def _note(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _what_next(work: Path, console: Console) -> None:
    python = shlex.quote(os.path.relpath(sys.executable))
    registry, store = (f"--{name} {shlex.quote(str(work / file))}" for name, file in _MADE.items())
    console.rule("[bold]Try next")
    for line in (
        f"{python} -m services.user_encoder {registry} {store} & {python} -m services.retriever {registry} &",
        f'{python} -m clients.cli recommend --like "The Matrix" --like "Alien" --genre Comedy',
        "make demo DATA=<a folder with your ratings and movies>",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
