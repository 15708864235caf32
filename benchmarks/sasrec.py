"""How RecTools' SASRec learns, in this process on one thread: `python -m benchmarks.sasrec FOLDER ...`; prints JSON.

Runs in the environment that `benchmarks.peers_training` makes for it, on the events that it wrote into the folder as
arrays. After each pass the validation's people are ranked, with the clock stopped, and at the end the test's.

Letters in array names: Q queries, K list length.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

K = 10
BLOCKS, HEADS, BATCH = 2, 2, 128
# What is handed over: of each log, people and movies in order, and of both sets of queries, whose they are.
HANDED = "handed.npz"


class Settings(NamedTuple):
    """Says how to train: `length` is the longest history, `loss` one of RecTools' names."""

    dimension: int
    length: int
    loss: str
    passes: int
    budget_s: float


def fit(folder: Path, settings: Settings) -> dict[str, Any]:
    """Trains pass by pass; writes what was ranked after each, and returns the seconds of each.

    `start_s` is what preparing for the first pass took. RecTools prepares before each; the others are not counted.
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    handed = np.load(folder / HANDED)
    train, whole = (_dataset(handed[f"{log}_users"], handed[f"{log}_items"]) for log in ("train", "fit"))
    marks = list[float]()
    model = _model(settings, marks)
    seconds, began = list[float](), time.perf_counter()
    for number in range(settings.passes):
        model.fit_partial(train, min_epochs=1, max_epochs=1)
        started, ended = marks[-2:]
        seconds.append(ended - started)
        np.save(folder / lists_file(settings.loss, number), _ranked(model, train, handed["validation_users"]))
        if sum(seconds) > settings.budget_s:
            break
    np.save(folder / lists_file(settings.loss, "test"), _ranked(model, whole, handed["test_users"]))
    counts = np.bincount(handed["train_users"])
    learned = int(np.maximum(np.minimum(counts, settings.length + 1) - 1, 0).sum())
    versions = {name: importlib.metadata.version(name) for name in ("rectools", "pytorch-lightning", "torch", "numpy")}
    return {
        "start_s": marks[0] - began,
        "seconds": seconds,
        "events": learned,
        "versions": versions,
        "peak_bytes": _peak(),
    }


def lists_file(loss: str, of: int | str) -> str:
    """Names the file of ranked movies [Q, K] after a pass, or for "test"."""
    return f"lists-{loss}-{of}.npy"


def _model(settings: Settings, marks: list[float]) -> Any:
    """Makes the model; every pass marks when it starts and when it ends."""
    from pytorch_lightning import Trainer
    from pytorch_lightning.callbacks import LambdaCallback
    from rectools.models import SASRecModel

    def mark(*_: object) -> None:
        marks.append(time.perf_counter())

    def trainer() -> Trainer:
        return Trainer(
            callbacks=[LambdaCallback(on_train_epoch_start=mark, on_train_epoch_end=mark)],
            accelerator="cpu",
            devices=1,
            max_epochs=settings.passes,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    return SASRecModel(
        n_blocks=BLOCKS,
        n_heads=HEADS,
        n_factors=settings.dimension,
        session_max_len=settings.length,
        loss=settings.loss,
        batch_size=BATCH,
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )


def _dataset(users: npt.NDArray[np.int32], items: npt.NDArray[np.int32]) -> Any:
    """Makes RecTools' data; an event's time is its place, so that its order is kept."""
    import pandas as pd
    from rectools.dataset import Dataset

    times = pd.to_datetime(np.arange(len(users)), unit="s")
    columns = {"user_id": users, "item_id": items, "weight": 1.0, "datetime": times}
    return Dataset.construct(pd.DataFrame(columns))


def _ranked(model: Any, dataset: Any, users: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Ranks all movies that were learned for each of the users, without what they have seen, [Q, K]."""
    known = np.intersect1d(users, dataset.user_id_map.external_ids)
    table = model.recommend(users=known, dataset=dataset, k=K, filter_viewed=True, on_unsupported_targets="ignore")
    ranked_QK = np.full((len(users), K), -1, np.int64)
    ranked_QK[np.searchsorted(users, table["user_id"]), table["rank"] - 1] = table["item_id"]
    return ranked_QK


def _peak() -> int:
    """Reads the most bytes that this process has had resident; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sasrec", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="folder with the events that were handed over")
    parser.add_argument("--dimension", type=int, required=True, help="length of vectors")
    parser.add_argument("--length", type=int, required=True, help="longest history")
    parser.add_argument("--loss", required=True, help="softmax, BCE or gBCE")
    parser.add_argument("--passes", type=int, required=True, help="most passes over the data")
    parser.add_argument("--budget-s", type=float, required=True, help="seconds after which no pass begins")
    options = parser.parse_args(arguments)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    settings = Settings(options.dimension, options.length, options.loss, options.passes, options.budget_s)
    print(json.dumps(fit(options.folder, settings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
