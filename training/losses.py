"""Softmax losses over sampled negatives with the logQ correction, and over the whole catalogue.

B targets, C candidates, N movies.
Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations" (RecSys 2019); mixed
negatives: Yang et al., "Mixed negative sampling for learning two-tower neural networks in recommendations" (WWW 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor

from marquee.errors import ConfigError

LOG_Q_VARIANTS = ("none", "expected", "probability", "positive_aware")


def log_q(item_counts_N: Tensor, batch: int, variant: str, uniform: int = 0) -> Tensor:
    """Returns log Q [N] of `batch` negatives drawn as often as items are targets, and `uniform` drawn alike.

    The latter come from items that have a count.

    `expected` is the expected number of times that an item is among them, and so for `positive_aware`; `probability` is
    the chance that it is there at all, 1 - (1 - w)^B for the first part, which saturates for items expected several
    times; `none` is 0.
    """
    if variant not in LOG_Q_VARIANTS:
        raise ConfigError(f"logq is {variant!r}; it must be one of {', '.join(LOG_Q_VARIANTS)}")
    share_N = item_counts_N.double().clamp(min=1e-9) / item_counts_N.sum()
    if variant == "none":
        return torch.zeros_like(share_N).float()
    drawn_N = -torch.expm1(batch * torch.log1p(-share_N)) if variant == "probability" else share_N * batch
    return (drawn_N + uniform / max(int((item_counts_N > 0).sum()), 1)).log().float()


def sampled_softmax(
    positive_B: Tensor,
    negatives_BC: Tensor,
    *,
    log_q_B: Tensor,
    log_q_C: Tensor,
    masked_BC: Tensor,
    positive_aware: bool = False,
) -> Tensor:
    """Returns each target's -log softmax against the candidates, [B].

    Logits are cosines over the temperature; logQ is subtracted after the division: the other order would multiply the
    correction by 1 / T. `masked_BC` marks accidental hits: candidates that are the row's own movie or another positive
    of the row's person. A target without negatives loses nothing.

    `positive_aware` corrects the negatives only, as the target is there for certain, and scales the loss by
    1 - P(target), without gradient: the full softmax gradient with its negatives estimated by importance sampling.
    Source: Khrylchenko et al., "Correcting the LogQ correction" (arXiv 2507.09331).
    """
    corrected_BC = (negatives_BC - log_q_C).masked_fill_(masked_BC, float("-inf"))
    if not positive_aware:
        # In one pass each way, which torch.logsumexp is not.
        return -torch.log_softmax(torch.cat([(positive_B - log_q_B)[:, None], corrected_BC], dim=1), dim=1)[:, 0]
    others_B = torch.logsumexp(corrected_BC, dim=1).clamp(min=-1e4)
    weight_B = torch.sigmoid(others_B - positive_B).detach()
    return weight_B * (others_B - positive_B)


def full_softmax(logits_BN: Tensor, targets_BN: Tensor, excluded_BN: Tensor, share_B: Tensor) -> Tensor:
    """Returns the cross-entropy of target distributions over the catalogue, weighted by `share_B`.

    Rows of `targets_BN` sum to 1; `excluded_BN` marks what cannot be shown: the history, and untrained movies.
    """
    log_p_BN = torch.log_softmax(logits_BN.masked_fill(excluded_BN, -1e4), dim=1)
    return -(share_B * (targets_BN * log_p_BN).sum(dim=1)).sum()
