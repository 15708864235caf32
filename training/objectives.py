"""What the towers are trained to do, as losses of a batch.

Two objectives share the towers. `Next`: find the next movie of a history, right after it or long after, among sampled
negatives. `Hide`: find the hidden part of a history by the rest, over the whole catalogue, and by what a linear teacher
would say. B targets in a batch, W stretches of histories, L history length, C negatives, N movies, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone uses
from torch import Tensor

from marquee.bundle.v1 import bundle_pb2
from marquee.features import Int64s, TowerInput
from training.baselines.ease import Ease
from training.baselines.interactions import Sparse
from training.batches import EventLog, Mask, Positives, delayed, hide, histories, window_bounds, windows
from training.config import TrainConfig
from training.losses import full_softmax, log_q, sampled_softmax
from training.model import TwoTower
from training.sequence import SequenceUserTower

# A pool has told by so many events what a longer one tells, when the next movie is asked for.
_NEXT_HISTORY = 64
_TEACHER_SHARPNESS = 10.0


class Table(NamedTuple):
    """Holds what the towers read in one step: rows and content rows of all movies, [N, D]."""

    rows_ND: Tensor
    content_rows_ND: Tensor


class Objective(Protocol):
    """Deals out an epoch's batches and computes the loss of each."""

    def batches(self, rng: np.random.Generator) -> list[Int64s]:
        """Lists the batches of an epoch."""

    def loss(self, model: TwoTower, table: Table, batch: Int64s, rng: np.random.Generator) -> Tensor:
        """Computes the mean loss of a batch."""


class Negatives:
    """Draws candidates and knows how often each is expected among them."""

    def __init__(self, log: EventLog, counts_N: Int64s, config: TrainConfig) -> None:
        self._positives = Positives(log, len(counts_N))
        self._config = config
        self._movies = len(counts_N)
        self._counts_N = torch.from_numpy(counts_N)
        self._drawn = min(config.batch, config.most_drawn)
        uniform = config.uniform if config.negatives == "mixed" else 0
        self._uniform = min(uniform, self._movies)
        self._log_q_N = (
            torch.zeros(self._movies)
            if config.negatives == "full"
            else log_q(self._counts_N, self._drawn, config.logq, self._uniform)
        )

    def loss(
        self,
        model: TwoTower,
        table: Table,
        users_BD: Tensor,
        people_B: Int64s,
        items_B: Int64s,
        rng: np.random.Generator,
    ) -> Tensor:
        """Computes the mean loss of finding `items_B` for the queries of `people_B`."""
        items_C = self._draw(items_B, rng)
        both = torch.from_numpy(np.concatenate([items_B, items_C]))
        vectors_XD = model.item_tower.vectors(table.rows_ND[both], table.content_rows_ND[both])
        own_BD, other_CD = vectors_XD[: len(items_B)], vectors_XD[len(items_B) :]
        temperature = model.temperature
        loss_B = sampled_softmax(
            (users_BD * own_BD).sum(dim=1) / temperature,
            users_BD @ other_CD.T / temperature,
            log_q_B=self._log_q_N[torch.from_numpy(items_B)],
            log_q_C=self._log_q_N[torch.from_numpy(items_C)],
            masked_BC=torch.from_numpy(self._masked(people_B, items_B, items_C)),
            positive_aware=self._config.logq == "positive_aware",
        )
        return loss_B.mean()

    def _draw(self, items_B: Int64s, rng: np.random.Generator) -> Int64s:
        if self._config.negatives == "full":
            return np.arange(self._movies)
        drawn = items_B if len(items_B) <= self._drawn else rng.choice(items_B, self._drawn, replace=False)
        return np.concatenate([drawn, rng.integers(0, self._movies, self._uniform)])

    def _masked(self, people_B: Int64s, items_B: Int64s, items_C: Int64s) -> Mask:
        if self._config.mask_hits:
            return self._positives.hits(people_B, items_C)
        return np.equal(items_B[:, None], items_C)


class Next:
    """Finds the next movie of histories, each target with a history of its own."""

    def __init__(
        self, log: EventLog, examples: Int64s, negatives: Negatives, spec: bundle_pb2.FeatureSpec, config: TrainConfig
    ) -> None:
        self._log, self._examples, self._negatives = log, examples, negatives
        self._spec = bundle_pb2.FeatureSpec()
        self._spec.CopyFrom(spec)
        self._spec.max_history = min(spec.max_history, _NEXT_HISTORY)
        self._config = config

    def batches(self, rng: np.random.Generator) -> list[Int64s]:
        """Deals out the examples in a drawn order; what does not fill a batch waits for another epoch."""
        order = rng.permutation(self._examples)
        return np.split(
            order[: len(order) // self._config.batch * self._config.batch], len(order) // self._config.batch
        )

    def loss(self, model: TwoTower, table: Table, batch: Int64s, rng: np.random.Generator) -> Tensor:
        """Computes the loss of the events at the positions of `batch`."""
        log = self._log
        inputs = histories(log, batch, delayed(log.times_ms[batch], rng), self._spec, rng)
        full_B1 = rng.random((len(batch), 1), np.float32) >= self._config.empty_share
        inputs = TowerInput(*(column * full_B1.astype(column.dtype) for column in inputs))
        users_BD = run_user_tower(model, table.rows_ND, inputs)
        return self._negatives.loss(
            model, table, users_BD, log.users[batch].astype(np.int64), log.items[batch].astype(np.int64), rng
        )


class NextAtEvery:
    """Finds the next movie at every position of histories, for a sequence tower. A batch is starts and ends, [W, 2]."""

    def __init__(
        self, log: EventLog, examples: Int64s, negatives: Negatives, spec: bundle_pb2.FeatureSpec, config: TrainConfig
    ) -> None:
        self._log, self._negatives, self._spec, self._config = log, negatives, spec, config
        self._eligible_E = np.zeros(log.size, bool)
        self._eligible_E[examples] = True

    def batches(self, rng: np.random.Generator) -> list[Int64s]:
        """Deals out stretches of like length, so that little is padding; a batch has about `config.batch` events."""
        starts, ends = window_bounds(self._log, self._spec.max_history, rng)
        # Long and short ones are mixed enough by a little noise, and batches come in a drawn order.
        order = np.argsort((ends - starts) * rng.uniform(0.9, 1.1, len(starts)), kind="stable")
        filled = np.cumsum((ends - starts)[order]) // self._config.batch
        cuts = np.flatnonzero(np.diff(filled)) + 1
        parts = np.split(np.stack([starts, ends], axis=1)[order], cuts)
        return [parts[number] for number in rng.permutation(len(parts))]

    def loss(self, model: TwoTower, table: Table, batch: Int64s, rng: np.random.Generator) -> Tensor:
        """Computes the mean loss over all positions that have a target."""
        tower = model.user_tower
        assert isinstance(tower, SequenceUserTower)
        stretch = windows(self._log, self._eligible_E, batch[:, 0], batch[:, 1], self._spec, rng)
        rows_WLD = F.embedding(torch.from_numpy(stretch.inputs.rows), model.history_rows(table.rows_ND))
        ratings, ages, gaps, kinds = (torch.from_numpy(column) for column in stretch.inputs[1:])
        states_WLD = tower.states(rows_WLD, ratings, gaps, kinds, newest_only=False)
        asked_WL = stretch.asked
        full_P = rng.random(int(asked_WL.sum()), np.float32) >= self._config.empty_share
        asked = torch.from_numpy(asked_WL)
        real_P = torch.from_numpy(full_P)
        users_PD = tower.query(states_WLD[asked], ages[asked] * real_P, real_P)
        people_P = np.broadcast_to(stretch.users[:, None], asked_WL.shape)[asked_WL]
        return self._negatives.loss(model, table, users_PD, people_P, stretch.targets[asked_WL], rng)


class Hide:
    """Finds the hidden part of histories by the rest, over the whole catalogue."""

    def __init__(
        self,
        log: EventLog,
        examples: Int64s,
        counts_N: Int64s,
        teacher: Ease | None,
        spec: bundle_pb2.FeatureSpec,
        config: TrainConfig,
    ) -> None:
        self._log, self._teacher, self._spec, self._config = log, teacher, spec, config
        self._eligible_E = np.zeros(log.size, bool)
        self._eligible_E[examples] = True
        self._untrained_N = torch.from_numpy(counts_N == 0)
        self._movies = len(counts_N)
        self._people = np.flatnonzero(np.diff(log.starts) >= 2)

    def batches(self, rng: np.random.Generator) -> list[Int64s]:
        """Deals out everybody with two events or more, `config.people` at a time, `config.hide_passes` times over."""
        orders = [rng.permutation(self._people) for _ in range(self._config.hide_passes)]
        return [
            order[start : start + self._config.people]
            for order in orders
            for start in range(0, len(order), self._config.people)
        ]

    def loss(self, model: TwoTower, table: Table, batch: Int64s, rng: np.random.Generator) -> Tensor:
        """Computes the loss of people; one with more hidden movies counts more, by the root of their number."""
        part = hide(self._log, self._eligible_E, batch, self._movies, self._spec, rng)
        users_BD = run_user_tower(model, table.rows_ND, part.inputs)
        vectors_ND = model.item_tower.vectors(table.rows_ND, table.content_rows_ND)
        logits_BN = users_BD @ vectors_ND.T / model.temperature
        left_BN = torch.from_numpy(part.left_BN)
        excluded_BN = left_BN | self._untrained_N
        hidden_BN = torch.from_numpy(part.hidden_BN).float()
        counts_B1 = hidden_BN.sum(dim=1, keepdim=True)
        share_B = counts_B1[:, 0].sqrt() / counts_B1.sqrt().sum().clamp(min=1.0)
        loss = full_softmax(logits_BN, hidden_BN / counts_B1.clamp(min=1.0), excluded_BN, share_B)
        if self._teacher is None or self._config.teach == 0:
            return loss
        taught_BN = self._taught(self._teacher, part.left_BN, excluded_BN)
        equal_B = torch.full((len(batch),), 1.0 / len(batch))
        taught = full_softmax(logits_BN, taught_BN, excluded_BN, equal_B)
        return (1.0 - self._config.teach) * loss + self._config.teach * taught

    def _taught(self, teacher: Ease, left_BN: Mask, excluded_BN: Tensor) -> Tensor:
        scores_BN = torch.from_numpy(teacher.weigh(Sparse(left_BN.astype(np.float32))))
        scores_BN = scores_BN.masked_fill(excluded_BN, 0.0)
        sharp_BN = scores_BN * (_TEACHER_SHARPNESS / scores_BN.amax(dim=1, keepdim=True).clamp(min=1e-6))
        return torch.softmax(sharp_BN.masked_fill(excluded_BN, -1e4), dim=1)


def run_user_tower(model: TwoTower, rows_ND: Tensor, inputs: TowerInput) -> Tensor:
    """Runs the user tower on inputs whose rows it reads from the table; returns [B, D]."""
    rows_BLD = F.embedding(torch.from_numpy(inputs.rows), model.history_rows(rows_ND))
    vectors_BD: Tensor = model.user_tower(rows_BLD, *(torch.from_numpy(column) for column in inputs[1:]))
    return vectors_BD


def interleaved(main: list[Int64s], side: list[Int64s]) -> Iterator[tuple[int, Int64s]]:
    """Yields (0, batch) of `main` and (1, batch) of `side`, spread evenly."""
    places = [(number / len(main), 0, batch) for number, batch in enumerate(main)]
    places += [((number + 0.5) / len(side), 1, batch) for number, batch in enumerate(side)]
    for _, which, batch in sorted(places, key=lambda place: place[:2]):
        yield which, batch
