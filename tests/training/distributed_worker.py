"""One of the processes that test_distributed.py starts: `python -m tests.training.distributed_worker WHAT OUT`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from marquee.errors import MarqueeError
from marquee.features import content_ids
from training.batches import event_log
from training.config import TrainConfig
from training.data import load_dataset
from training.distributed import Group, average_gradients, copy_from_first, mean_over_processes, process_group
from training.model import TOWERS, ContentBags, TowerConfig, TwoTower
from training.objectives import Hide, Negatives, Next, NextAtEvery, Objective, Table, Task
from training.train import spec_of

STEPS = 2
# Rows of a batch that two processes do not share evenly.
CONFIG = TrainConfig(
    batch=301, people=7, logq="positive_aware", negatives="mixed", uniform=20, most_drawn=64, teach=0.5
)


def objectives_of(kind: str, folder: Path, group: Group) -> tuple[TwoTower, ContentBags, dict[str, Objective]]:
    """Makes towers without dropout, and both of their objectives, on a folder of data."""
    tower = TowerConfig(kind=kind, dimension=8, dropout=0.0, content_buckets=64)
    data, spec = load_dataset(folder), spec_of(tower)
    log = event_log(data, spec)
    counts_N = np.bincount(log.items, minlength=len(data.movies))
    torch.manual_seed(group.rank)
    model = TwoTower(tower, torch.from_numpy(counts_N > 0))
    copy_from_first(model)
    next_of = Next if kind == "pooled" else NextAtEvery
    task = Task(log, log.eligible(), counts_N, spec, CONFIG, group)
    found: dict[str, Objective] = {"next": next_of(task, Negatives(task)), "hide": Hide(task, None)}
    return model, ContentBags(torch.from_numpy(content_ids(data.movies, spec))), found


def steps(folder: Path, group: Group) -> dict[str, Tensor]:
    """Trains both towers a few steps by each objective; returns losses, gradients and weights by their names."""
    return {name: tensor for kind in TOWERS for name, tensor in _steps(kind, folder, group)}


def _steps(kind: str, folder: Path, group: Group) -> Iterator[tuple[str, Tensor]]:
    model, bags, objectives = objectives_of(kind, folder, group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rng = np.random.default_rng(2)
    for which, objective in objectives.items():
        for step, batch in enumerate(objective.batches(rng)[:STEPS]):
            optimizer.zero_grad()
            loss = objective.loss(model, Table(*model.table(bags)), batch, rng)
            loss.backward()  # type: ignore[no-untyped-call]
            average_gradients(model)
            mean = mean_over_processes(loss.item(), group.device)
            yield f"{kind}.{which}.{step}.loss", torch.tensor(mean)
            for name, parameter in model.named_parameters():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                yield f"{kind}.{which}.{step}.{name}", gradient.clone()
            optimizer.step()
    for name, tensor in model.state_dict().items():
        yield f"{kind}.{name}", tensor.clone()


def lose_rank_1(group: Group, how: str) -> None:
    """Lets rank 1 die, or sleep, between two steps."""
    layer = nn.Linear(3, 1)
    layer(torch.ones(1, 3)).sum().backward()
    average_gradients(layer)
    print("met", file=sys.stderr, flush=True)
    if group.rank == 1:
        if how == "dies":
            os._exit(9)
        time.sleep(60)
    average_gradients(layer)


def main() -> int:
    what, out = sys.argv[1:]
    torch.set_num_threads(1)
    try:
        with process_group(timeout_s=5 if what == "sleeps" else 60) as group:
            if what == "equal":
                written = steps(Path(out) / "data", group)
                save_file(written, Path(out) / f"rank{group.rank}.safetensors")
            else:
                lose_rank_1(group, what)
    except MarqueeError as error:
        print(f"training: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
