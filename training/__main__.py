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
from marquee.engine.kinds import KINDS
from training.baselines import left_out
from training.choice import LARGEST_LOSS, choose, figures
from training.command import run_command
from training.config import NEGATIVES, OBJECTIVES, STARTS, TARGETS, TrainConfig
from training.data import Dataset, load_dataset, read_columns
from training.data.prepared import load_prepared
from training.distributed import Group, process_group
from training.export import export, export_refitted
from training.indexing import FEWEST_APPROXIMATE, IndexConfig, describe
from training.losses import LOG_Q_VARIANTS
from training.model import TOWERS, TowerConfig
from training.split import Split, splits
from training.train import Trained, refit, spec_of, train

_SHOWN = {
    "recall@10": "recall@10 (95 %)",
    "ndcg@10": "NDCG@10 (95 %)",
    "distinct_lists@10": "lists",
}
_WITH_INTERVAL = ("recall@10", "ndcg@10")
AUTO = "auto"
# Fields of TrainConfig that are flags, with help and choices.
_KNOBS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "seed": ("seed of all that is drawn", None),
    "epochs": ("passes over the data at most; 0 chooses by their size", None),
    "batch": ("targets in a step of each process; 0 chooses those of all processes by the data's size", None),
    "objective": ("what is learned: to find the next movie, or the hidden part of a history", OBJECTIVES),
    "learning_rate": ("highest learning rate; 0 chooses by the start", None),
    "temperature": ("what cosines are divided by, at the start", None),
    "targets": ("what is learned to be found: all that people watched, or what they liked", TARGETS),
    "negatives": ("a batch's own targets; mixed with movies drawn alike; or the full catalogue", NEGATIVES),
    "logq": ("correction for how often a negative is drawn", LOG_Q_VARIANTS),
    "start": (
        "where the table starts: at a closed-form linear model, at the teacher (both towers), or at random",
        STARTS,
    ),
    "people": ("people in a step of the hidden objective", None),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    left = f"; the same command goes on from {options.checkpoints}" if options.checkpoints else ""
    console = Console(stderr=True)
    return run_command("training", lambda: run(options, console), interrupted=f"; nothing was written{left}")


def run(options: argparse.Namespace, console: Console) -> None:
    """Loads, trains, exports and says what came of it; of several processes only the first speaks and writes."""
    started = time.perf_counter()
    check_destination(options.out)
    if options.refit:
        check_destination(measured_path(options.out))
    index = IndexConfig(options.index, options.index_recall)
    with process_group() as group:
        console = console if group.leads else Console(quiet=True)
        data = _load(options)
        console.print(data.describe(), highlight=False, markup=False)
        loaded = time.perf_counter()
        split = splits(data, spec_of(TowerConfig()), "last")[0]
        trained = _train(data, split, options, console, group)
        whole = _refit(data, split, trained, options, console, group) if options.refit else None
    fitted = time.perf_counter()
    if group.leads:
        timings_s = {"load": loaded - started, "train": fitted - loaded}
        place = measured_path(options.out) if whole else options.out
        bundle = export(data, split, trained, timings_s, place, options.baselines, index)
        if whole:
            bundle = export_refitted(data, split.test, whole, bundle, timings_s, options.out, index)
        timings_s["export and evaluate"] = time.perf_counter() - fitted
        _summarise(console, bundle, timings_s, left_out(len(data.movies), split, options.baselines))


def measured_path(out: Path) -> Path:
    """Names where the measured sibling of a refitted bundle is written."""
    return out.with_name(out.name + "-measured")


def _load(options: argparse.Namespace) -> Dataset:
    columns = read_columns(options.columns) if options.columns else None
    return load_prepared(options.data, options.cache, columns) if options.cache else load_dataset(options.data, columns)


def _train(data: Dataset, split: Split, options: argparse.Namespace, console: Console, group: Group) -> Trained:
    """Trains one tower, or both and keeps one of them."""
    kinds = TOWERS if options.tower == AUTO else (options.tower,)
    towers = [TowerConfig(kind=kind, dimension=options.dimension) for kind in kinds]
    config = _config(options, group)
    candidates = []
    for tower in towers:
        checkpoints = options.checkpoints / tower.kind if options.checkpoints else None
        candidates.append(train(data, split, tower, config, console, checkpoints, group))
        console.print(figures(candidates[-1]), highlight=False, soft_wrap=True)
    trained, reason = choose(candidates)
    if options.tower == AUTO:
        console.print(reason, highlight=False, soft_wrap=True)
    return trained


def _refit(
    data: Dataset, split: Split, trained: Trained, options: argparse.Namespace, console: Console, group: Group
) -> Trained:
    """Trains once more on everything, the test events too."""
    console.print("training once more, on everything:", highlight=False)
    checkpoints = options.checkpoints / "refit" if options.checkpoints else None
    everything = split._replace(fit=split.test.log)
    return refit(data, everything, trained, console, checkpoints, group)


def _config(options: argparse.Namespace, group: Group) -> TrainConfig:
    config = TrainConfig(**{name: getattr(options, name) for name in _KNOBS})
    if group.world == 1:
        return config
    # Processes of one machine would stand in each other's way with more threads.
    return dataclasses.replace(config, batch=config.batch * group.world, threads=1)


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
    parser.add_argument("--cache", type=Path, metavar="DIR", help="prepare the data once, and keep them there")
    parser.add_argument(
        "--out", type=Path, default=Path(".marquee/bundle"), help="where to write the bundle (%(default)s)"
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="save the run there after each epoch, a folder for each tower: the same command goes on from it after any "
        "end, kill -9 too. Once a run has finished, the command only exports it again, and another run needs another "
        "folder; removing it is safe at any time",
    )
    parser.add_argument(
        "--tower",
        choices=(AUTO, *TOWERS),
        default="pooled",
        help=f"user tower; {AUTO} trains both and keeps the one with the higher validation NDCG@10 on liked targets, "
        f"unless it loses more than {100 * LARGEST_LOSS:.0f} %% on all targets (%(default)s)",
    )
    dimension = TowerConfig().dimension
    parser.add_argument("--dimension", type=int, default=dimension, help="length of vectors, 2 to 128 (%(default)s)")
    parser.add_argument(
        "--baselines",
        choices=("quick", "all"),
        default="quick",
        help="what to measure beside the towers: popularity and EASE, or item-kNN, iALS and transitions too "
        "(%(default)s)",
    )
    _add_index(parser)
    parser.add_argument(
        "--refit",
        action="store_true",
        help="once measured, train anew on everything, each person's last two events too, as long as the best epoch "
        "took, and ship that: it carries the evaluation of its measured sibling, which is written beside it as "
        "OUT-measured",
    )
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    for name, (text, choices) in _KNOBS.items():
        flag, value = "--" + name.replace("_", "-"), defaults[name]
        parser.add_argument(flag, type=type(value), default=value, choices=choices, help=f"{text} (%(default)s)")
    return parser


def _add_index(parser: argparse.ArgumentParser) -> None:
    index = IndexConfig()
    parser.add_argument(
        "--index",
        choices=(AUTO, *KINDS),
        default=index.kind,
        help=f"kind of the index; {AUTO} compares every vector below {FEWEST_APPROXIMATE:,} movies, and above takes "
        "lists in half precision (%(default)s)",
    )
    parser.add_argument(
        "--index-recall",
        type=float,
        default=index.recall,
        metavar="SHARE",
        help="of the 100 nearest movies, the share that an index which is not exact is tuned to find (%(default)s)",
    )


def _summarise(console: Console, bundle: Bundle, timings_s: dict[str, float], left_out: list[str]) -> None:
    people = "; the viewers are SIMULATED" if bundle.manifest.dataset.simulated else ""
    tower = f"{bundle.manifest.tower.kind} tower"
    sibling = f", of bundle {bundle.report().carried_from[:12]}" if bundle.report().carried_from else ""
    title = f"`last` protocol{sibling}, full ranking, seen movies removed{people}"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("system", no_wrap=True)
    for heading in _SHOWN.values():
        table.add_column(heading, justify="right", no_wrap=True)
    metrics = list(bundle.report().metrics)
    for targets, suffix in (("all", ""), ("liked", ", liked")):
        for system in dict.fromkeys(metric.system for metric in metrics if metric.name in _SHOWN):
            shown = tower if system == "model" else system
            table.add_row(shown + suffix, *(_cell(metrics, system, targets, name) for name in _SHOWN))
    console.print(table)
    for sentence in left_out:
        console.print(sentence, highlight=False, soft_wrap=True)
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in timings_s.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes there, kilobytes elsewhere
    for line in (
        f"{times}; peak memory {peak_mb:,.0f} MB",
        describe(bundle.report().index),
        f"bundle {bundle.id[:12]} of space {bundle.space[:12]}, {tower}: {bundle.path}",
        f"next: python -m marquee.bundle publish {bundle.path}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _cell(metrics: list[bundle_pb2.Metric], system: str, targets: str, name: str) -> str:
    for metric in metrics:
        if (metric.system, metric.targets, metric.name) == (system, targets, name):
            interval = f" ({metric.low:.3f}–{metric.high:.3f})" if name in _WITH_INTERVAL else ""
            return f"{metric.value:.3f}{interval}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
