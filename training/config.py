"""How to train: the knobs, and what is chosen from the data's size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from marquee.errors import ConfigError
from training.losses import LOG_Q_VARIANTS

NEGATIVES = ("auto", "in_batch", "mixed", "full")
STARTS = ("auto", "linear", "taught", "random")
TARGETS = ("all", "liked")
OBJECTIVES = ("auto", "next", "hidden")

# Who starts at a model that is good already, and has few people to learn from, has only little to learn, and unlearns
# it at a faster pace: decisions 35 and 36.
_LEARNING_RATE, _FROM_TEACHER = 3e-3, 3e-4
_FEW_PEOPLE = 2000


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Says how to train. The same seed, data and `threads` give the same weights, to the bit.

    0 in `epochs`, `batch` and `learning_rate`, and `auto`, are filled in by `for_data`. `objective` is what is learned:
    to find the next movie, or the hidden part of a history. Of `next`, `batch` counts targets; negatives are the
    batch's own targets, at most `most_drawn` of them, with `mixed` also `uniform` movies drawn alike; `full` is the
    catalogue. A step of `hidden` has `people`, and `teach` is the teacher's share in its loss. `start` is where the
    table begins, with `taught` both towers; `average` the decay a step of the weights' running mean, which is what is
    kept. `targets` may be only what people liked.
    """

    seed: int = 0
    epochs: int = 0
    patience: int = 3
    batch: int = 0
    objective: str = "auto"
    learning_rate: float = 0.0
    temperature: float = 0.08
    learn_temperature: bool = False
    logq: str = "expected"
    negatives: str = "auto"
    uniform: int = 256
    most_drawn: int = 1024
    mask_hits: bool = True
    targets: str = "all"
    start: str = "auto"
    penalty: float = 100.0
    teach: float = 0.5
    people: int = 64
    average: float = 0.98
    id_dropout: float = 0.1
    empty_share: float = 0.02
    threads: int = 2

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.patience < 1 or self.threads < 1 or self.people < 1:
            raise ConfigError("epochs must not be negative, and patience, threads and people at least 1")
        if self.batch != 0 and self.batch < 2:
            raise ConfigError(f"batch is {self.batch}; it must be at least 2, or 0 to have it chosen")
        if not 0 <= self.learning_rate < 1 or not 0 < self.temperature <= 1:
            raise ConfigError("learning_rate must be in [0, 1), 0 to have it chosen, and temperature in (0, 1]")
        for knob, values in (
            ("objective", OBJECTIVES),
            ("negatives", NEGATIVES),
            ("start", STARTS),
            ("targets", TARGETS),
            ("logq", LOG_Q_VARIANTS),
        ):
            if getattr(self, knob) not in values:
                raise ConfigError(f"{knob} is {getattr(self, knob)!r}; it must be one of {', '.join(values)}")
        if self.uniform < 0 or self.most_drawn < 1:
            raise ConfigError("uniform must not be negative, and most_drawn at least 1")
        if self.penalty <= 0 or not 0 <= self.teach <= 1 or not 0 <= self.average < 1:
            raise ConfigError("penalty must be above 0, teach in [0, 1] and average in [0, 1)")
        if not 0 <= self.id_dropout < 1 or not 0 <= self.empty_share < 1:
            raise ConfigError("id_dropout and empty_share must be in [0, 1)")

    @property
    def is_taught(self) -> bool:
        """Says whether a linear model has a part in it: in the loss, or as the start."""
        return self.objective == "hidden" and (self.teach > 0 or self.start == "taught")

    def for_data(self, kind: str, events: int, people: int, protocol: str) -> TrainConfig:
        """Fills in what depends on the tower, on the data's size, and on what will be asked.

        Towers learn what the split asks for: held-out people are asked for a hidden part of what they watched, the
        others for what comes next. A batch is large enough for negatives of every kind, small enough for a hundred
        steps an epoch. Small data are read more often, and by a sequence tower more often than by a pooled one; but a
        pooled tower of hidden histories reads many people more often than few, whom it would know by heart.
        """
        least, most = (64, 1024) if kind == "pooled" else (512, 8192)
        batch = self.batch or int(np.clip(2 ** round(math.log2(max(events, 1) / 128)), least, most))
        objective = self.objective
        if objective == "auto":
            objective = "hidden" if protocol == "users" else "next"
        rule = _hidden_rule(kind, people) if objective == "hidden" else _next_rule(kind, events)
        start = rule.start if self.start == "auto" else self.start
        if start == "taught" and (kind, objective) != ("pooled", "hidden"):
            raise ConfigError(
                f"start is 'taught', which is for a pooled tower that learns hidden histories; this is a {kind} tower "
                f"of the objective {objective!r}: start at 'linear' or 'random'"
            )
        return replace(
            self,
            objective=objective,
            batch=max(2, min(batch, events)),
            epochs=self.epochs or rule.epochs,
            start=start,
            learning_rate=self.learning_rate or _highest_pace(start, people),
            negatives=rule.negatives if self.negatives == "auto" else self.negatives,
        )


class _Rule(NamedTuple):
    epochs: int
    start: str
    negatives: str


def _next_rule(kind: str, events: int) -> _Rule:
    # Measured on validation: a pool that starts at the linear model does not get far from it.
    if kind == "pooled":
        return _Rule(int(np.clip(round(6e5 / max(events, 1)), 4, 8)), "random", "in_batch")
    return _Rule(int(np.clip(round(1e6 / max(events, 1)), 8, 20)), "linear", "mixed")


def _hidden_rule(kind: str, people: int) -> _Rule:
    # An epoch is a step for every 64 people. Few people are soon known by heart; many are worth learning from for long.
    if kind == "pooled":
        epochs = 30 if people < _FEW_PEOPLE else int(np.clip(round(6e5 / people), 6, 96))
        return _Rule(epochs, "taught", "full")
    return _Rule(int(np.clip(round(6e4 / max(people, 1)), 6, 30)), "linear", "full")


def _highest_pace(start: str, people: int) -> float:
    return _FROM_TEACHER if start == "taught" and people < _FEW_PEOPLE else _LEARNING_RATE
