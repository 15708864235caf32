"""Sampled softmax over in-batch negatives with the logQ correction. B targets in the batch.

Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations" (RecSys 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor

from marquee.errors import ConfigError

LOG_Q_VARIANTS = ("none", "expected", "probability")


def log_q(item_counts_N: Tensor, batch: int, variant: str) -> Tensor:
    """Returns log Q [N] from training counts.

    `expected` is the expected number of times that an item stands in a batch; `probability` is the chance that it
    stands there at all, 1 - (1 - w)^B, which saturates for items expected several times; `none` is 0.
    """
    share_N = item_counts_N.double().clamp(min=1e-9) / item_counts_N.sum()
    if variant == "none":
        return torch.zeros_like(share_N).float()
    if variant == "expected":
        return (share_N * batch).log().float()
    if variant == "probability":
        return (-torch.expm1(batch * torch.log1p(-share_N))).log().float()
    raise ConfigError(f"logq is {variant!r}; it must be one of {', '.join(LOG_Q_VARIANTS)}")


def in_batch_softmax(cosines_BB: Tensor, *, temperature: float, log_q_B: Tensor, masked_BB: Tensor) -> Tensor:
    """Returns the mean of -log softmax of each row's diagonal.

    `cosines_BB[i, j]` scores target j for person i. The temperature divides first and logQ is subtracted after: the
    other order would multiply the correction by 1 / T. `masked_BB` marks accidental hits: off-diagonal targets that
    are the row's own movie or another positive of the row's person.
    """
    logits_BB = cosines_BB / temperature - log_q_B[None]
    logits_BB = logits_BB.masked_fill(masked_BB, float("-inf"))
    return (torch.logsumexp(logits_BB, dim=1) - logits_BB.diagonal()).mean()
