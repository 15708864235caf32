"""Trains the towers on a folder of data and writes a bundle: `python -m training --data DIR --out DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import resource
import sys
import time
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from marquee.bundle.format import Bundle, check_destination
from marquee.bundle.v1 import bundle_pb2
from marquee.errors import MarqueeError
from training.config import TrainConfig
from training.data import load_dataset, read_columns
from training.export import export
from training.model import TowerConfig
from training.split import splits
from training.train import spec_of, train

_SHOWN = {
    "recall@10": "recall@10 (95 %)",
    "ndcg@10": "NDCG@10 (95 %)",
    "distinct_lists@10": "lists",
}
_WITH_INTERVAL = ("recall@10", "ndcg@10")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    console = Console(stderr=True)
    options = build_parser().parse_args(arguments)
    try:
        run(options, console)
    except MarqueeError as error:
        print(f"training: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace, console: Console) -> Bundle:
    """Loads, trains, exports and says what came of it."""
    started = time.perf_counter()
    check_destination(options.out)
    tower = TowerConfig(kind=options.tower, dimension=options.dimension)
    config = TrainConfig(**{field: getattr(options, field) for field in _TUNABLE})
    data = load_dataset(options.data, read_columns(options.columns) if options.columns else None)
    console.print(data.describe(), highlight=False, markup=False)
    loaded = time.perf_counter()
    split = splits(data, spec_of(tower), "last")[0]
    trained = train(data, split, tower, config, console)
    fitted = time.perf_counter()
    timings_s = {"load": loaded - started, "train": fitted - loaded}
    bundle = export(data, split, trained, timings_s, options.out)
    _summarise(console, bundle, timings_s | {"export and evaluate": time.perf_counter() - fitted}, data.simulated)
    return bundle


_TUNABLE = ("seed", "epochs", "batch", "learning_rate", "temperature", "logq")


def build_parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with MovieLens-format ratings and movies")
    parser.add_argument(
        "--columns",
        type=Path,
        metavar="FILE",
        help="JSON that names the files and columns of data in another format, for example "
        '{"events_file": "log.parquet", "user": "who"}; training/data/columns.py lists the fields',
    )
    parser.add_argument(
        "--out", type=Path, default=Path(".marquee/bundle"), help="where to write the bundle (%(default)s)"
    )
    parser.add_argument("--tower", default="pooled", help="user tower (%(default)s)")
    parser.add_argument("--dimension", type=int, default=64, help="length of vectors, 2 to 128 (%(default)s)")
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    for name in _TUNABLE:
        value = defaults[name]
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(value), default=value, help=f"{name.replace('_', ' ')} (%(default)s)")
    return parser


def _summarise(console: Console, bundle: Bundle, timings_s: dict[str, float], simulated: bool) -> None:
    people = "; the viewers are SIMULATED" if simulated else ""
    table = Table(title=f"`last` protocol, full ranking, seen movies removed{people}", title_justify="left", box=SIMPLE)
    table.add_column("system", no_wrap=True)
    for heading in _SHOWN.values():
        table.add_column(heading, justify="right", no_wrap=True)
    metrics = list(bundle.report().metrics)
    for targets, suffix in (("all", ""), ("liked", ", liked")):
        for system in dict.fromkeys(metric.system for metric in metrics if metric.name in _SHOWN):
            table.add_row(system + suffix, *(_cell(metrics, system, targets, name) for name in _SHOWN))
    console.print(table)
    if not any(metric.system == "ease" for metric in metrics):
        console.print("EASE was left out: the data are too large for it (training/baselines/ease.py, LARGEST_SIDE)")
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in timings_s.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes there, kilobytes elsewhere
    console.print(f"{times}; peak memory {peak_mb:,.0f} MB", highlight=False)
    console.print(f"bundle {bundle.id[:12]} of space {bundle.space[:12]}: {bundle.path}", highlight=False)
    console.print(f"next: python -m marquee.bundle publish {bundle.path}", highlight=False)


def _cell(metrics: list[bundle_pb2.Metric], system: str, targets: str, name: str) -> str:
    for metric in metrics:
        if (metric.system, metric.targets, metric.name) == (system, targets, name):
            interval = f" ({metric.low:.3f}–{metric.high:.3f})" if name in _WITH_INTERVAL else ""
            return f"{metric.value:.3f}{interval}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
