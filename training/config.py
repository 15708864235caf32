"""How to train: the knobs, and what is chosen from the data's size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from marquee.errors import ConfigError
from training.losses import LOG_Q_VARIANTS

NEGATIVES = ("auto", "in_batch", "mixed", "full")
STARTS = ("auto", "linear", "random")
TARGETS = ("all", "liked")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Says how to train. The same seed, data and `threads` give the same weights, to the bit.

    0 in `epochs` and `batch`, and `auto`, are filled in by `for_data`. `batch` counts targets; a step also has the
    histories of `people` with a part hidden (0 goes without), and `next_weight` weighs the batch's loss against theirs.
    Negatives are the batch's own targets, at most `most_drawn` of them, with `mixed` also `uniform` movies drawn alike;
    `full` is the catalogue. `start` is where the table begins, `teach` the teacher's share in the hiding objective,
    `average` the decay a step of the weights' running mean, which is what is kept. `targets` may be only what people
    liked.
    """

    seed: int = 0
    epochs: int = 0
    patience: int = 3
    batch: int = 0
    learning_rate: float = 3e-3
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
    people: int = 0
    next_weight: float = 1.0
    average: float = 0.98
    id_dropout: float = 0.1
    empty_share: float = 0.02
    threads: int = 2

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.patience < 1 or self.threads < 1 or self.people < 0:
            raise ConfigError("epochs and people must not be negative, and patience and threads at least 1")
        if self.batch != 0 and self.batch < 2:
            raise ConfigError(f"batch is {self.batch}; it must be at least 2, or 0 to have it chosen")
        if not 0 < self.learning_rate < 1 or not 0 < self.temperature <= 1:
            raise ConfigError("learning_rate must be in (0, 1) and temperature in (0, 1]")
        for knob, values in (
            ("negatives", NEGATIVES),
            ("start", STARTS),
            ("targets", TARGETS),
            ("logq", LOG_Q_VARIANTS),
        ):
            if getattr(self, knob) not in values:
                raise ConfigError(f"{knob} is {getattr(self, knob)!r}; it must be one of {', '.join(values)}")
        if self.uniform < 0 or self.most_drawn < 1 or self.next_weight < 0:
            raise ConfigError("uniform must not be negative, most_drawn at least 1, and next_weight not be negative")
        if self.penalty <= 0 or not 0 <= self.teach <= 1 or not 0 <= self.average < 1:
            raise ConfigError("penalty must be above 0, teach in [0, 1] and average in [0, 1)")
        if not 0 <= self.id_dropout < 1 or not 0 <= self.empty_share < 1:
            raise ConfigError("id_dropout and empty_share must be in [0, 1)")

    def for_data(self, kind: str, events: int) -> TrainConfig:
        """Fills in what depends on the tower and on the data's size.

        A batch is large enough for negatives of every kind, small enough for a hundred steps an epoch. Small data are
        read more often, and by a sequence tower more often than by a pooled one.
        """
        least, most = (64, 1024) if kind == "pooled" else (512, 8192)
        batch = self.batch or int(np.clip(2 ** round(math.log2(max(events, 1) / 128)), least, most))
        reads, fewest, most_often = (6e5, 4, 8) if kind == "pooled" else (1e6, 8, 20)
        epochs = self.epochs or int(np.clip(round(reads / max(events, 1)), fewest, most_often))
        # Measured on validation: a pool that starts at the linear model does not get far from it.
        start, negatives = {"pooled": ("random", "in_batch"), "sequence": ("linear", "mixed")}[kind]
        return replace(
            self,
            batch=max(2, min(batch, events)),
            epochs=epochs,
            start=start if self.start == "auto" else self.start,
            negatives=negatives if self.negatives == "auto" else self.negatives,
        )
