"""Chooses between towers that were trained on one split, by validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from training.train import Epoch, Trained

# The tower that is better on liked targets is kept, unless it loses more than this share on all targets.
LARGEST_LOSS = 0.02


class Choice(NamedTuple):
    """Holds the towers that are kept, and the sentence that says why."""

    trained: Trained
    reason: str


def choose(candidates: Sequence[Trained]) -> Choice:
    """Keeps the towers with the highest validation NDCG@10 on liked targets that lose at most 2 % on all targets.

    Where no validation target is liked the highest on all targets are kept, and the first where nothing is validated.
    """
    if len(candidates) == 1:
        return Choice(candidates[0], f"kept the {_name(candidates[0])}: no other was trained")
    if any(math.isnan(_best(one).ndcg_at_10) for one in candidates):
        return Choice(candidates[0], f"kept the {_name(candidates[0])}: there are no validation queries to choose by")
    leader = max(candidates, key=lambda one: _best(one).ndcg_at_10)
    if any(math.isnan(_best(one).liked_ndcg_at_10) for one in candidates):
        return Choice(leader, f"kept the {_name(leader)}: it is the best on all targets, and none is liked")
    liked = max(candidates, key=lambda one: _best(one).liked_ndcg_at_10)
    loss = 1 - _best(liked).ndcg_at_10 / _best(leader).ndcg_at_10 if _best(leader).ndcg_at_10 else 0.0
    if loss > LARGEST_LOSS:
        return Choice(leader, f"kept the {_name(leader)}: on all targets the {_name(liked)} loses {loss:.1%} to it")
    on_all = f"loses only {loss:.1%} on all" if liked is not leader else "on all"
    return Choice(liked, f"kept the {_name(liked)}: it is the best on liked targets and {on_all}")


def figures(trained: Trained) -> str:
    """Says what validation found."""
    best = _best(trained)
    return (
        f"{_name(trained)}, best epoch {trained.best + 1} of {len(trained.epochs)}: "
        f"validation NDCG@10 {best.ndcg_at_10:.4f}, {best.liked_ndcg_at_10:.4f} on liked targets"
    )


def _best(trained: Trained) -> Epoch:
    return trained.epochs[trained.best]


def _name(trained: Trained) -> str:
    return f"{trained.model.config.kind} tower"
