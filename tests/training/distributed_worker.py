"""One of the processes that test_distributed.py starts: `python -m tests.training.distributed_worker WHAT OUT`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone uses
from safetensors.torch import save_file
from torch import Tensor, nn

from marquee.errors import MarqueeError
from marquee.features import Int64s
from training.batches import EventLog, Positives
from training.distributed import (
    Group,
    average_gradients,
    copy_from_first,
    gather,
    gather_with_gradient,
    mean_over_processes,
    process_group,
    shard,
)
from training.losses import in_batch_softmax, log_q

PEOPLE, MOVIES, EVENTS_EACH, GLOBAL_BATCH = 6, 20, 5, 8


class Towers(nn.Module):
    """Is a small two-tower model in float64; the temperature is learned, so it enters the loss after the gathering."""

    def __init__(self) -> None:
        super().__init__()
        self.people = nn.Embedding(PEOPLE, 3)
        self.movies = nn.Embedding(MOVIES, 3)
        self.mix = nn.Linear(3, 3)
        self.log_temperature = nn.Parameter(torch.tensor(-2.0))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, users_B: Tensor, items_B: Tensor) -> tuple[Tensor, Tensor]:
        return (
            F.normalize(self.mix(self.people(users_B)), dim=1),
            F.normalize(self.mix(self.movies(items_B)), dim=1),
        )


def towers(seed: int = 0) -> Towers:
    torch.manual_seed(seed)
    return Towers().double()


def events() -> EventLog:
    """Draws popular movies often, so that a batch holds accidental hits of both kinds."""
    rng = np.random.default_rng(1)
    items = np.concatenate(
        [rng.choice(MOVIES, EVENTS_EACH, replace=False, p=np.arange(MOVIES, 0, -1) / 210) for _ in range(PEOPLE)]
    ).astype(np.int32)
    users = np.repeat(np.arange(PEOPLE), EVENTS_EACH).astype(np.int32)
    none, zeros = np.zeros(len(users), np.uint8), np.zeros(len(users), np.int64)
    starts = np.arange(PEOPLE + 1) * EVENTS_EACH
    return EventLog(users, items, none, zeros.astype(np.float32), zeros, none, starts)


def masks(log: EventLog, users_B: Tensor, items_B: Tensor) -> Tensor:
    return torch.from_numpy(Positives(log, MOVIES).hits(users_B.numpy(), items_B.numpy()))


def run_step(model: Towers, log: EventLog, ends: Int64s) -> Tensor:
    """Computes the loss of this process's rows against the movies of all, and its gradients."""
    users_B, items_B = torch.from_numpy(log.users[ends]).long(), torch.from_numpy(log.items[ends]).long()
    user_BD, item_BD = model(users_B, items_B)
    items_C = gather(items_B)
    counts_N = torch.bincount(torch.from_numpy(log.items), minlength=MOVIES)
    loss = in_batch_softmax(
        user_BD @ gather_with_gradient(item_BD).T / model.log_temperature.exp(),
        temperature=1.0,
        log_q_B=log_q(counts_N, GLOBAL_BATCH, "expected")[items_C],
        masked_BB=masks(log, gather(users_B), items_C)[: len(ends)],
    )
    loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(model)
    return loss


def equal(group: Group, out: Path) -> None:
    """Trains two steps on shares of one order and writes losses, gradients and weights."""
    model, log = towers(seed=group.rank), events()
    copy_from_first(model)
    written = train(model, log, group)
    written["gathered"] = gather(torch.tensor([group.rank * 10, group.rank * 10 + 1]))
    save_file(written, out / f"rank{group.rank}.safetensors")


def train(model: Towers, log: EventLog, group: Group) -> dict[str, Tensor]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    mine = shard(np.random.default_rng(2).permutation(log.size), group.rank, group.world)
    batch, written = GLOBAL_BATCH // group.world, dict[str, Tensor]()
    for step in range(2):
        optimizer.zero_grad()
        loss = run_step(model, log, mine[step * batch : (step + 1) * batch])
        mean = mean_over_processes(loss.item(), group.device)
        written[f"loss.{step}"] = torch.tensor(mean, dtype=torch.float64)
        for name, parameter in model.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            written[f"gradient.{step}.{name}"] = gradient.clone()
        optimizer.step()
    return written | {f"weight.{name}": tensor.clone() for name, tensor in model.state_dict().items()}


def lose_rank_1(group: Group, how: str) -> None:
    """Lets rank 1 die, or sleep, between the forward and the backward pass."""
    weight = nn.Parameter(torch.ones(2, 3))
    total = gather_with_gradient(weight).sum()
    print("met", file=sys.stderr, flush=True)
    if group.rank == 1:
        if how == "dies":
            os._exit(9)
        time.sleep(60)
    total.backward()  # type: ignore[no-untyped-call]


def main() -> int:
    what, out = sys.argv[1:]
    torch.set_num_threads(1)
    try:
        with process_group(timeout_s=5 if what == "sleeps" else 30) as group:
            if what == "equal":
                equal(group, Path(out))
            else:
                lose_rank_1(group, what)
    except MarqueeError as error:
        print(f"training: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
