"""Makes one run in a process of its own: reads the order as a line of JSON, writes the result, ends.

It ends as well when the process that started it does: their pipe closes then.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import json
import os
import platform
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from marquee.bundle.format import ITEM_VECTORS, Bundle
from marquee.engine.encoder import Encoder
from marquee.engine.index import Index
from marquee.errors import MarqueeError
from marquee.features import Floats
from training.baselines import fit_baselines, left_out
from training.baselines.suite import Lists, ranked
from training.config import TrainConfig
from training.data import Dataset, load_dataset, read_columns
from training.evaluate import MOST_QUERIES, ann_recall, per_query, query_vectors, ranked_lists
from training.export import export
from training.model import TowerConfig
from training.report.plan import BASELINES, Order
from training.report.results import About, Result, write_result
from training.report.study import Pass
from training.split import Split, splits
from training.train import Trained, refit, spec_of, train

_QUICK_EPOCHS = 2
_SHOWN = ("torch", "numpy", "scikit-learn", "implicit", "onnxruntime", "faiss-cpu", "matplotlib")


def main() -> int:
    """Makes the run that standard input names; returns the exit code."""
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        columns = read_columns(Path(told["columns"])) if "columns" in told else None
        data = load_dataset(Path(told["data"]), columns)
        write_result(make(data, Order(*told["order"]), told["code"]), Path(told["place"]))
    except MarqueeError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


def _end_with_parent() -> None:
    # Not sys.stdin.read: its lock, held at the end, would stop the interpreter from ending in order.
    while os.read(0, 1024):
        pass
    os._exit(1)


def make(data: Dataset, order: Order, code: str) -> Result:
    """Makes a run: all baselines, or one tower, on one fold."""
    started = time.perf_counter()
    kind = TowerConfig().kind if order.system == BASELINES else order.system
    tower = TowerConfig(kind=kind)
    split = splits(data, spec_of(tower), order.protocol)[order.fold]
    split = split._replace(test=split.test.sample(MOST_QUERIES))
    about = _about(data, order, code)
    about.timings_s["split"] = time.perf_counter() - started
    if order.system == BASELINES:
        return _make_baselines(data, split, about)
    return _make_tower(data, split, about, tower)


def _make_baselines(data: Dataset, split: Split, about: About) -> Result:
    suite, movies = "quick" if about.order.quick else "all", len(data.movies)
    lists = []
    started = time.perf_counter()
    for one in fit_baselines(movies, split, suite):
        lists.append(Lists(one.system, ranked(one.scorer, split.test, movies)))
        about.settings[one.system] = dict(one.settings)
        about.validation[one.system] = one.validation
        about.timings_s[one.system] = time.perf_counter() - started
        started = time.perf_counter()
    return Result(about._replace(notes=left_out(movies, split, suite)), per_query(data, split, lists), None)


def _make_tower(data: Dataset, split: Split, about: About, tower: TowerConfig) -> Result:
    config = TrainConfig(seed=about.order.seed, threads=1)
    if about.order.quick:
        config = dataclasses.replace(config, epochs=_QUICK_EPOCHS)
    started = time.perf_counter()
    silent = Console(file=io.StringIO())
    trained = train(data, split, tower, config, silent)
    if about.order.protocol != "last":
        # The shipped towers are those of `last`. Siblings learn from all that their baselines do.
        trained = refit(data, split, trained, silent)
    about.timings_s["train"] = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        # Baselines have runs of their own.
        bundle = export(data, split, trained, {}, Path(folder) / "bundle", baselines="least")
        about.timings_s["export"] = time.perf_counter() - started
        return _measure(data, split, _with_training(about, trained), bundle)


def _with_training(about: About, trained: Trained) -> About:
    system = about.order.system
    return about._replace(
        settings={
            system: {"tower": dataclasses.asdict(trained.model.config), "training": dataclasses.asdict(trained.config)}
        },
        validation={system: trained.epochs[trained.best].ndcg_at_10},
        passes=[
            Pass(one.loss, one.recall_at_10, one.ndcg_at_10, one.seconds, one.liked_ndcg_at_10)
            for one in trained.epochs
        ],
        best=trained.best,
    )


def _measure(data: Dataset, split: Split, about: About, bundle: Bundle) -> Result:
    """Measures the towers as they are served: through the exported bundle."""
    started = time.perf_counter()
    encoder, index = Encoder(bundle), Index(bundle)
    vectors_QD = query_vectors(data, split.test, encoder)
    lists = [Lists(about.order.system, ranked_lists(data, split.test, index, vectors_QD))]
    record = per_query(data, split, lists, about.order.seed)
    ann = [ann_recall(split.protocol, index, vectors_QD)]
    about.timings_s["measure"] = time.perf_counter() - started
    return Result(about._replace(ann=ann), record, _vectors(bundle, about.order))


def _vectors(bundle: Bundle, order: Order) -> Floats | None:
    if (order.fold, order.seed) != (0, 0):
        return None
    return np.asarray(bundle.array(ITEM_VECTORS), np.float32)


def _about(data: Dataset, order: Order, code: str) -> About:
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _SHOWN}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return About(order, data.fingerprint, code, now, machine, versions, {}, {}, [], 0, {}, [], [])


if __name__ == "__main__":
    sys.exit(main())
