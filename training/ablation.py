"""Says what each part of the training is worth: `python -m training.ablation --data DIR`.

Each variant changes one thing of the defaults, is trained with the same seeds, and is measured on the validation split;
the test split is not touched. Differences to the defaults are paired by query. Q queries.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from marquee.errors import ConfigError
from training.command import run_command
from training.config import TrainConfig
from training.data import Dataset, load_dataset
from training.metrics import Doubles, interval, paired_difference
from training.model import TOWERS, ContentBags, TowerConfig
from training.split import PROTOCOLS, Split, splits
from training.train import spec_of, train, validate

DEFAULT = "default"
# What each variant changes, of the towers or of the training.
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "tables not shared": {"shared_table": False},
    "no content": {"content": False},
    "half the dimensions": {"dimension": 64},
    "logQ none": {"logq": "none"},
    "logQ 1-(1-w)^B": {"logq": "probability"},
    "logQ positive-aware": {"logq": "positive_aware"},
    "temperature learned": {"learn_temperature": True},
    "temperature starts at 0.2": {"temperature": 0.2},
    "hits not masked": {"mask_hits": False},
    "in-batch negatives": {"negatives": "in_batch"},
    "mixed negatives": {"negatives": "mixed"},
    "full softmax": {"negatives": "full"},
    "liked targets only": {"targets": "liked"},
    "random start": {"start": "random"},
    "linear start": {"start": "linear"},
    "next movie": {"objective": "next"},
    "hidden histories": {"objective": "hidden"},
    "hidden histories, no teacher": {"objective": "hidden", "teach": 0.0, "start": "linear"},
    "no weight averaging": {"average": 0.0},
    "no id dropout": {"id_dropout": 0.0},
    "one recency head": {"half_lives": (8.0,)},
}


class Outcome(NamedTuple):
    """Holds a variant's validation metrics, means over seeds: [Q] each."""

    ndcg_Q: Doubles
    recall_Q: Doubles
    seconds: float


def variant(changes: Mapping[str, Any], tower: TowerConfig, config: TrainConfig) -> tuple[TowerConfig, TrainConfig]:
    """Applies changes to whichever of both has the field."""
    fields = {field.name for field in dataclasses.fields(TowerConfig)}
    of_tower = {name: value for name, value in changes.items() if name in fields}
    of_config = {name: value for name, value in changes.items() if name not in fields}
    return dataclasses.replace(tower, **of_tower), dataclasses.replace(config, **of_config)


def measure(data: Dataset, split: Split, tower: TowerConfig, config: TrainConfig, seeds: int) -> Outcome:
    """Trains with each seed and measures on validation."""
    started = time.perf_counter()
    found = []
    for seed in range(seeds):
        trained = train(data, split, tower, dataclasses.replace(config, seed=seed), Console(quiet=True))
        found.append(
            validate(trained.model, ContentBags(torch.from_numpy(trained.content_NT)), split.validation, trained.spec)
        )
    seconds = (time.perf_counter() - started) / seeds
    return Outcome(
        np.mean([one.ndcg_Q for one in found], axis=0), np.mean([one.recall_Q for one in found], axis=0), seconds
    )


def outcomes(
    data: Dataset, split: Split, names: Sequence[str], tower: TowerConfig, config: TrainConfig, seeds: int
) -> Iterator[tuple[str, Outcome]]:
    """Measures the default and the named variants, one after another."""
    for name in dict.fromkeys([DEFAULT, *names]):
        yield name, measure(data, split, *variant(VARIANTS[name], tower, config), seeds)


def as_row(name: str, outcome: Outcome, default: Outcome) -> dict[str, Any]:
    """Sums up a variant: means with 95 % intervals, and paired differences to the default."""
    row: dict[str, Any] = {"variant": name, "n": len(outcome.ndcg_Q), "seconds": outcome.seconds}
    for metric, of, base in (
        ("ndcg@10", outcome.ndcg_Q, default.ndcg_Q),
        ("recall@10", outcome.recall_Q, default.recall_Q),
    ):
        low, high = interval(of)
        row[metric] = {"value": float(of.mean()), "low": low, "high": high}
        row[f"{metric} difference"] = paired_difference(of, base)._asdict()
    return row


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    # A pipe has no width to fold the table to.
    console = Console(width=None if sys.stdout.isatty() else 140)
    return run_command("ablation", lambda: run(options, console), interrupted="; the rows printed so far stand")


def run(options: argparse.Namespace, console: Console) -> None:
    """Measures, and prints each row as soon as it is known; writes all of them where asked."""
    names = options.only or list(VARIANTS)
    if unknown := sorted(set(names) - set(VARIANTS)):
        raise ConfigError(f"{', '.join(unknown)}: no such variant; there are {', '.join(VARIANTS)}")
    data = load_dataset(options.data)
    tower = TowerConfig(kind=options.tower)
    split = splits(data, spec_of(tower), options.protocol)[0]
    if split.validation.size == 0:
        raise ConfigError(f"{data.name}: the validation split has no queries; use data with more events a person")
    config = TrainConfig(epochs=options.epochs, threads=options.threads)
    rows: list[dict[str, Any]] = []
    default: Outcome | None = None
    for name, outcome in outcomes(data, split, names, tower, config, options.seeds):
        default = default or outcome
        rows.append(as_row(name, outcome, default))
        console.print(_line(rows[-1]), highlight=False, soft_wrap=True)
    console.print(_table(rows, f"{options.tower} tower, `{options.protocol}` validation, {options.seeds} seeds"))
    if options.out:
        about = {"data": data.name, "fingerprint": data.fingerprint, "tower": options.tower, "seeds": options.seeds}
        options.out.write_text(json.dumps(about | {"protocol": options.protocol, "rows": rows}, indent=1) + "\n")


def _line(row: dict[str, Any]) -> str:
    return f"{row['variant']}: NDCG@10 {row['ndcg@10']['value']:.4f}, {row['seconds']:.0f} s a seed"


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("variant")
    for heading in ("NDCG@10 (95 %)", "difference (95 %)", "recall@10 (95 %)", "difference (95 %)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            _cell(row[f"{metric}{what}"], what) for metric in ("ndcg@10", "recall@10") for what in ("", " difference")
        ]
        table.add_row(row["variant"], *cells)
    return table


def _cell(figure: dict[str, float], what: str) -> str:
    sign = "+" if what else ""
    return f"{figure['value']:{sign}.4f} ({figure['low']:{sign}.3f} to {figure['high']:{sign}.3f})"


def build_parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.ablation", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with MovieLens-format ratings and movies")
    parser.add_argument("--tower", choices=TOWERS, default="pooled", help="user tower (%(default)s)")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="last", help="whose validation (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each variant (%(default)s)")
    parser.add_argument("--epochs", type=int, default=0, help="passes over the data; 0 chooses by their size")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (%(default)s)")
    parser.add_argument("--only", nargs="*", metavar="VARIANT", help="measure these beside the default")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rows as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
