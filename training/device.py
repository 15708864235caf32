"""Which device trains, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from marquee.errors import ConfigError


def choose_device(local_rank: int = 0, gpus: int | None = None) -> torch.device:
    """Chooses the GPU of a process by its number on this machine, or the CPU where there is no GPU.

    Raises ConfigError where there are fewer GPUs (`gpus`, counted if not given) than processes.
    """
    gpus = torch.cuda.device_count() if gpus is None else gpus
    if gpus == 0:
        return torch.device("cpu")
    if local_rank >= gpus:
        raise ConfigError(f"process {local_rank + 1} here has no GPU: start at most {gpus} (--nproc-per-node)")
    return torch.device("cuda", local_rank)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Runs the towers in bfloat16 on a GPU and leaves the CPU in float32; parameters stay float32.

    The loss belongs outside, on `.float()` vectors: a logit of 12 in bfloat16 is off by up to 0.03.
    """
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
