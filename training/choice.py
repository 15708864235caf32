"""Chooses between towers that were trained on one split, by validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from training.train import Epoch, Trained

# The tower that is better on liked targets is kept, unless it loses more than this share on all targets.
LARGEST_LOSS = 0.02


class Score(NamedTuple):
    """Holds a tower's validation NDCG@10, on all targets and on liked ones; NaN where there are none."""

    on_all: float
    on_liked: float


class Choice(NamedTuple):
    """Holds the towers that are kept, and the sentence that says why."""

    trained: Trained
    reason: str


def choose(candidates: Sequence[Trained]) -> Choice:
    """Keeps the towers that `best_tower` names."""
    trained = {one.model.config.kind: one for one in candidates}
    kind, reason = best_tower({kind: score_of(_best(one)) for kind, one in trained.items()})
    return Choice(trained[kind], f"kept the {kind} tower: {reason}")


def best_tower(scores: Mapping[str, Score]) -> tuple[str, str]:
    """Names the tower with the highest score on liked targets that loses at most 2 % on all, and says why.

    Where no validation target is liked it is the highest on all targets, and the first where nothing is validated.
    """
    first = next(iter(scores))
    if len(scores) == 1:
        return first, "no other was trained"
    if any(math.isnan(score.on_all) for score in scores.values()):
        return first, "there are no validation queries to choose by"
    leader = max(scores, key=lambda kind: scores[kind].on_all)
    if any(math.isnan(score.on_liked) for score in scores.values()):
        return leader, "it is the best on all targets, and none is liked"
    liked = max(scores, key=lambda kind: scores[kind].on_liked)
    loss = 1 - scores[liked].on_all / scores[leader].on_all if scores[leader].on_all else 0.0
    if loss > LARGEST_LOSS:
        return leader, f"on all targets the {liked} tower loses {loss:.1%} to it"
    on_all = f"loses only {loss:.1%} on all" if liked != leader else "on all"
    return liked, f"it is the best on liked targets and {on_all}"


def score_of(epoch: Epoch) -> Score:
    """Takes what an epoch came to on validation."""
    return Score(epoch.ndcg_at_10, epoch.liked_ndcg_at_10)


def figures(trained: Trained) -> str:
    """Says what validation found."""
    best = _best(trained)
    return (
        f"{trained.model.config.kind} tower, best epoch {trained.best + 1} of {len(trained.epochs)}: "
        f"validation NDCG@10 {best.ndcg_at_10:.4f}, {best.liked_ndcg_at_10:.4f} on liked targets"
    )


def _best(trained: Trained) -> Epoch:
    return trained.epochs[trained.best]
