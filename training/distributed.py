"""Training in several processes: `torchrun --nproc-per-node N -m training`.

All processes draw the same batches, negatives and masks from equally seeded generators, and each computes the loss of
its share of the rows. Losses are weighted so that a batch's is the mean over the processes, and so are its gradients: W
processes of B rows do what one does with W x B, and nothing but gradients travels. With one process every function here
returns what it was given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from marquee.errors import ConfigError, Unavailable
from training.device import choose_device

_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class Group(NamedTuple):
    """Says which process this is, of how many, and the device it trains on."""

    rank: int
    world: int
    device: torch.device

    @property
    def share(self) -> slice:
        """Selects this process's rows of a batch: taken in turns, so that all get alike ones of an ordered batch."""
        return slice(self.rank, None, self.world)

    @property
    def leads(self) -> bool:
        """Says whether this process is the one that prints and writes."""
        return self.rank == 0


@contextmanager
def process_group(timeout_s: float = 900.0) -> Iterator[Group]:
    """Joins the group that torchrun's environment names, and leaves it at the end; alone without torchrun.

    Raises Unavailable where the group does not come together, or one process waits for another for `timeout_s`.
    """
    rank, world, local_rank = _launch(os.environ)
    device = choose_device(local_rank)
    if world == 1:
        yield Group(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        with _explained(rank, world):
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout_s))
        yield Group(rank, world, device)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def average_gradients(model: nn.Module) -> None:
    """Replaces each gradient by its mean over the processes; a parameter without one counts as zeros."""
    if world_size() == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    mean = _mean(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = torch.split(mean, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def mean_over_processes(value: float, device: torch.device) -> float:
    """Returns the mean of a number over the processes, equal in all: what they decide by it they decide alike."""
    return value if world_size() == 1 else _mean(torch.tensor([value], dtype=torch.float64, device=device)).item()


def copy_from_first(model: nn.Module) -> None:
    """Gives every process the first one's parameters and buffers."""
    if world_size() > 1:
        for tensor in model.state_dict().values():
            with _explained(dist.get_rank(), world_size()):
                dist.broadcast(tensor, src=0)


def world_size() -> int:
    """Says how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _sum(tensor: Tensor) -> Tensor:
    with _explained(dist.get_rank(), world_size()):
        dist.all_reduce(tensor)
    return tensor


def _mean(tensor: Tensor) -> Tensor:
    return _sum(tensor) / world_size()


@contextmanager
def _explained(rank: int, world: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise Unavailable(
            f"process {rank} of {world} lost the others, or never met them ({reason}); see what they say, check that "
            "the port of MASTER_PORT is free, and start all of them again"
        ) from error


def _launch(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """Reads rank, world size and the process's number on this machine; alone where torchrun set nothing."""
    if environment.get("WORLD_SIZE", "1") == "1":
        return 0, 1, 0
    missing = [name for name in _NEEDED if name not in environment]
    if missing:
        raise ConfigError(f"WORLD_SIZE is set and {', '.join(missing)} not: start training by torchrun, or unset it")
    try:
        rank, world, local_rank = (int(environment[name]) for name in _NEEDED[:3])
    except ValueError as error:
        raise ConfigError(f"RANK, WORLD_SIZE or LOCAL_RANK is no number ({error}): start by torchrun") from error
    if not 0 <= rank < world:
        raise ConfigError(f"RANK is {rank} and WORLD_SIZE {world}: ranks are 0 to {world - 1}; start by torchrun")
    return rank, world, local_rank
