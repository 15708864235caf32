"""What the towers are trained to do, as losses of a batch.

`Next`: find the next movie of a history, right after it or long after, among sampled negatives. `Hide`: find the hidden
part of a history by the rest, over the whole catalogue, and by what a linear teacher would say. Where several processes
train, each draws the same batch and computes the loss of its own rows of it, so that the mean over the processes is the
loss of the batch.

G targets in a batch, B of them this process's, W stretches of histories, L history length, C negatives, N movies, D
dimension.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone uses
from torch import Tensor

from marquee.bundle.v1 import bundle_pb2
from marquee.features import Int64s, TowerInput
from training.baselines.interactions import Sparse
from training.batches import EventLog, Mask, Positives, delayed, hide, histories, window_bounds, windows
from training.config import TrainConfig
from training.device import autocast
from training.distributed import Group
from training.losses import full_softmax, log_q, sampled_softmax
from training.model import TwoTower
from training.sequence import SequenceUserTower
from training.teacher import Teacher

# A pool has told by so many events what a longer one tells, when the next movie is asked for.
_NEXT_HISTORY = 64
_TEACHER_SHARPNESS = 10.0


class Table(NamedTuple):
    """Holds what the towers read in one step: rows and content rows of all movies, [N, D]."""

    rows_ND: Tensor
    content_rows_ND: Tensor


class Task(NamedTuple):
    """Holds what every objective is made of: events, the positions [n] of targets among them, and how to train.

    `counts_N` are the training events of each movie.
    """

    log: EventLog
    examples: Int64s
    counts_N: Int64s
    spec: bundle_pb2.FeatureSpec
    config: TrainConfig
    group: Group

    def eligible(self) -> Mask:
        """Marks the events that may be targets, [E]."""
        eligible_E = np.zeros(self.log.size, bool)
        eligible_E[self.examples] = True
        return eligible_E


class Objective(Protocol):
    """Deals out an epoch's batches and computes the loss of each."""

    # Whether ids are dropped now and then, so that content learns to carry movies alone.
    drops_ids: bool

    def batches(self, rng: np.random.Generator) -> list[Int64s]:
        """Lists the batches of an epoch."""

    def loss(self, model: TwoTower, table: Table, batch: Int64s, rng: np.random.Generator) -> Tensor:
        """Computes the loss of a batch: the mean over the processes of what each returns."""


class Negatives:
    """Draws candidates and knows how often each is expected among them."""

    def __init__(self, task: Task) -> None:
        config, movies = task.config, len(task.counts_N)
        self._config, self._group = config, task.group
        self._positives = Positives(task.log, movies)
        # Nobody could have watched the others, and as negatives they would teach that what is new is bad.
        self._known = np.flatnonzero(task.counts_N)
        self._drawn = min(config.batch, config.most_drawn)
        self._uniform = min(config.uniform if config.negatives == "mixed" else 0, len(self._known))
        self._log_q_N = (
            torch.zeros(movies)
            if config.negatives == "full"
            else log_q(torch.from_numpy(task.counts_N), self._drawn, config.logq, self._uniform)
        ).to(task.group.device)

    def loss(
        self,
        model: TwoTower,
        table: Table,
        users_BD: Tensor,
        people_G: Int64s,
        items_G: Int64s,
        own_G: slice | Mask,
        rng: np.random.Generator,
    ) -> Tensor:
        """Computes the loss of finding `items_G` for `people_G`, of the rows `own_G`, whose queries are `users_BD`."""
        items_C, items_B = self._draw(items_G, rng), items_G[own_G]
        device = self._group.device
        both = on(device, np.concatenate([items_B, items_C]))
        vectors_XD = item_vectors(model, table.rows_ND[both], table.content_rows_ND[both])
        own_BD, other_CD = vectors_XD[: len(items_B)], vectors_XD[len(items_B) :]
        sharp_BD = users_BD / model.temperature
        loss_B = sampled_softmax(
            (sharp_BD * own_BD).sum(dim=1),
            sharp_BD @ other_CD.T,
            log_q_B=self._log_q_N[both[: len(items_B)]],
            log_q_C=self._log_q_N[both[len(items_B) :]],
            masked_BC=on(device, self._masked(people_G[own_G], items_B, items_C)),
            positive_aware=self._config.logq == "positive_aware",
        )
        return loss_B.sum() * (self._group.world / max(len(items_G), 1))

    def _draw(self, items_G: Int64s, rng: np.random.Generator) -> Int64s:
        if self._config.negatives == "full":
            return self._known
        drawn = items_G if len(items_G) <= self._drawn else rng.choice(items_G, self._drawn, replace=False)
        return np.concatenate([drawn, self._known[rng.integers(0, len(self._known), self._uniform)]])

    def _masked(self, people_B: Int64s, items_B: Int64s, items_C: Int64s) -> Mask:
        if self._config.mask_hits:
            return self._positives.hits(people_B, items_C)
        return np.equal(items_B[:, None], items_C)


class Next:
    """Finds the next movie of histories, each target with a history of its own."""

    drops_ids = True

    def __init__(self, task: Task, negatives: Negatives) -> None:
        self._log, self._examples, self._negatives, self._own = task.log, task.examples, negatives, task.group.share
        self._spec = bundle_pb2.FeatureSpec()
        self._spec.CopyFrom(task.spec)
        self._spec.max_history = min(task.spec.max_history, _NEXT_HISTORY)
        self._config = task.config

    def batches(self, rng: np.random.Generator) -> list[Int64s]:
        """Deals out the examples in a drawn order; what does not fill a batch waits for another epoch."""
        full = len(self._examples) // self._config.batch
        return np.split(rng.permutation(self._examples)[: full * self._config.batch], full)

    def loss(self, model: TwoTower, table: Table, batch: Int64s, rng: np.random.Generator) -> Tensor:
        """Computes the loss of the events at the positions of `batch`."""
        log = self._log
        inputs = histories(log, batch, delayed(log.times_ms[batch], rng), self._spec, rng)
        full_G1 = rng.random((len(batch), 1), np.float32) >= self._config.empty_share
        inputs = TowerInput(*(column * full_G1.astype(column.dtype) for column in inputs))
        users_BD = run_user_tower(model, table.rows_ND, part_of(inputs, self._own))
        people_G, items_G = log.users[batch].astype(np.int64), log.items[batch].astype(np.int64)
        return self._negatives.loss(model, table, users_BD, people_G, items_G, self._own, rng)


class NextAtEvery:
    """Finds the next movie at every position of histories, for a sequence tower. A batch is starts and ends, [W, 2]."""

    drops_ids = True

    def __init__(self, task: Task, negatives: Negatives) -> None:
        self._log, self._spec, self._config, self._group = task.log, task.spec, task.config, task.group
        self._negatives, self._eligible_E = negatives, task.eligible()

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
        asked_WL, device = stretch.asked, self._group.device
        own_WL = np.zeros_like(asked_WL)
        own_WL[self._group.share] = True
        own_G = own_WL[asked_WL]
        full_G = rng.random(len(own_G), np.float32) >= self._config.empty_share
        asked, real_B = on(device, asked_WL[self._group.share]), on(device, full_G[own_G])
        rows, *columns = (on(device, column) for column in part_of(stretch.inputs, self._group.share))
        ratings, ages, gaps, kinds = columns
        with autocast(device):
            rows_WLD = F.embedding(rows, model.history_rows(table.rows_ND))
            states_WLD = tower.states(rows_WLD, ratings, gaps, kinds, newest_only=False)
            users_BD = tower.query(states_WLD[asked], ages[asked] * real_B, real_B)
        people_G = np.broadcast_to(stretch.users[:, None], asked_WL.shape)[asked_WL]
        return self._negatives.loss(model, table, users_BD.float(), people_G, stretch.targets[asked_WL], own_G, rng)


class Hide:
    """Finds the hidden part of histories by the rest, over the whole catalogue."""

    drops_ids = False

    def __init__(self, task: Task, teacher: Teacher | None) -> None:
        self._log, self._spec, self._config, self._group = task.log, task.spec, task.config, task.group
        self._teacher, self._eligible_E = teacher, task.eligible()
        self._untrained_N = on(task.group.device, task.counts_N == 0)
        self._movies = len(task.counts_N)
        self._people = np.flatnonzero(np.diff(task.log.starts) >= 2)

    def batches(self, rng: np.random.Generator) -> list[Int64s]:
        """Deals out everybody with two events or more once, `config.people` at a time."""
        order = rng.permutation(self._people)
        return [order[start : start + self._config.people] for start in range(0, len(order), self._config.people)]

    def loss(self, model: TwoTower, table: Table, batch: Int64s, rng: np.random.Generator) -> Tensor:
        """Computes the loss of people; one with more hidden movies counts more, by the root of their number."""
        part = hide(self._log, self._eligible_E, batch, self._movies, self._spec, rng)
        own, device = self._group.share, self._group.device
        users_BD = run_user_tower(model, table.rows_ND, part_of(part.inputs, own))
        vectors_ND = item_vectors(model, table.rows_ND, table.content_rows_ND)
        logits_BN = (users_BD / model.temperature) @ vectors_ND.T
        left_BN = part.left_BN[own]
        excluded_BN = on(device, left_BN) | self._untrained_N
        hidden_BN = on(device, part.hidden_BN[own]).float()
        counts_B1 = hidden_BN.sum(dim=1, keepdim=True)
        root_G = np.sqrt(part.hidden_BN.sum(axis=1, dtype=np.float32))
        share_B = on(device, root_G[own]) * (self._group.world / max(float(root_G.sum()), 1.0))
        loss = full_softmax(logits_BN, hidden_BN / counts_B1.clamp(min=1.0), excluded_BN, share_B)
        if self._teacher is None:
            return loss
        taught_BN = self._taught(self._teacher, left_BN, excluded_BN)
        equal_B = torch.full_like(share_B, self._group.world / len(batch))
        taught = full_softmax(logits_BN, taught_BN, excluded_BN, equal_B)
        return (1.0 - self._config.teach) * loss + self._config.teach * taught

    def _taught(self, teacher: Teacher, left_BN: Mask, excluded_BN: Tensor) -> Tensor:
        scores_BN = on(excluded_BN.device, teacher.weigh(Sparse(left_BN.astype(np.float32))))
        scores_BN = scores_BN.masked_fill(excluded_BN, 0.0)
        sharp_BN = scores_BN * (_TEACHER_SHARPNESS / scores_BN.amax(dim=1, keepdim=True).clamp(min=1e-6))
        return torch.softmax(sharp_BN.masked_fill(excluded_BN, -1e4), dim=1)


def run_user_tower(model: TwoTower, rows_ND: Tensor, inputs: TowerInput) -> Tensor:
    """Runs the user tower on inputs whose rows it reads from the table; returns [B, D]."""
    rows, *columns = (on(rows_ND.device, column) for column in inputs)
    with autocast(rows_ND.device):
        vectors_BD: Tensor = model.user_tower(F.embedding(rows, model.history_rows(rows_ND)), *columns)
    return vectors_BD.float()


def item_vectors(model: TwoTower, rows_ND: Tensor, content_rows_ND: Tensor) -> Tensor:
    """Runs the item tower; returns [N, D]."""
    with autocast(rows_ND.device):
        vectors_ND = model.item_tower.vectors(rows_ND, content_rows_ND)
    return vectors_ND.float()


def part_of(inputs: TowerInput, own: slice) -> TowerInput:
    """Selects rows of an input."""
    return TowerInput._make(column[own] for column in inputs)


def on(device: torch.device, array: npt.NDArray[Any]) -> Tensor:
    """Makes an array a tensor on a device."""
    return torch.from_numpy(array).to(device)
