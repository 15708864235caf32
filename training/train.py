"""Trains the towers: one page, in the order things happen.

B targets in a batch, L history length, N movies, D dimension.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone uses
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import ConfigError, DataError
from marquee.features import Int64s, TowerInput, content_ids, feature_spec
from training.batches import EventLog, Positives, delayed, histories
from training.data import Dataset
from training.losses import LOG_Q_VARIANTS, in_batch_softmax, log_q
from training.metrics import ndcg_at, recall_at, top_k
from training.model import ContentBags, TowerConfig, TwoTower
from training.split import Queries, Split


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Says how to train. The same seed, data and `threads` give the same weights, to the bit.

    `batch` 0 is chosen from the number of events: large enough for negatives of every kind, small enough for a hundred
    steps an epoch.
    """

    seed: int = 0
    epochs: int = 8
    patience: int = 2
    batch: int = 0
    learning_rate: float = 3e-3
    temperature: float = 0.08
    logq: str = "expected"
    id_dropout: float = 0.1
    empty_share: float = 0.02
    threads: int = 2

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.patience < 1 or self.threads < 1:
            raise ConfigError("epochs, patience and threads must be at least 1")
        if self.batch != 0 and self.batch < 2:
            raise ConfigError(f"batch is {self.batch}; it must be at least 2, or 0 to have it chosen")
        if not 0 < self.learning_rate < 1 or not 0 < self.temperature <= 1:
            raise ConfigError("learning_rate must be in (0, 1) and temperature in (0, 1]")
        if self.logq not in LOG_Q_VARIANTS:
            raise ConfigError(f"logq is {self.logq!r}; it must be one of {', '.join(LOG_Q_VARIANTS)}")
        if not 0 <= self.id_dropout < 1 or not 0 <= self.empty_share < 1:
            raise ConfigError("id_dropout and empty_share must be in [0, 1)")

    def for_events(self, events: int) -> TrainConfig:
        """Fills in what depends on the number of training events."""
        chosen = self.batch or int(np.clip(2 ** round(math.log2(max(events, 1) / 64)), 64, 1024))
        return replace(self, batch=max(2, min(chosen, events)))


class Epoch(NamedTuple):
    """Holds what one pass over the data came to; the metrics are of the validation split."""

    loss: float
    recall_at_10: float
    ndcg_at_10: float
    seconds: float


class Trained(NamedTuple):
    """Holds the towers of the best epoch and the way there; `config` is the effective one."""

    model: TwoTower
    config: TrainConfig
    spec: bundle_pb2.FeatureSpec
    content_NT: Int64s
    epochs: list[Epoch]
    best: int


def spec_of(tower: TowerConfig) -> bundle_pb2.FeatureSpec:
    """Builds the feature spec of a tower."""
    return feature_spec(
        max_history=tower.max_history,
        dimension=tower.dimension,
        content_buckets=tower.content_buckets,
        max_content_tokens=tower.max_content_tokens,
    )


def train(data: Dataset, split: Split, tower: TowerConfig, config: TrainConfig, console: Console) -> Trained:
    """Trains until the validation NDCG@10 has not risen for `patience` epochs, and returns the best epoch's towers.

    Without validation queries all epochs are run.

    Raises DataError where there is nothing to train on, or the loss stops being a number.
    """
    examples = _examples(split.train)
    config = config.for_events(len(examples))
    _seed_everything(config)
    rng = np.random.default_rng(config.seed)
    spec = spec_of(tower)
    counts_N = np.bincount(split.train.items, minlength=len(data.movies))

    content_NT = content_ids(data.movies, spec)
    bags = ContentBags(torch.from_numpy(content_NT))
    model = TwoTower(tower, torch.from_numpy(counts_N > 0))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    log_q_N = log_q(torch.from_numpy(counts_N), config.batch, config.logq)
    positives = Positives(split.train, len(data.movies))
    best_state, best, epochs = copy.deepcopy(model.state_dict()), 0, list[Epoch]()

    with Progress(console=console, transient=True) as progress:
        steps = len(examples) // config.batch
        for number in range(config.epochs):
            started, total = time.perf_counter(), 0.0
            bar = progress.add_task(f"epoch {number + 1} of at most {config.epochs}", total=steps)
            order = rng.permutation(examples)
            for step in range(steps):
                ends = order[step * config.batch : (step + 1) * config.batch]
                items = split.train.items[ends]
                inputs = _training_input(split.train, ends, spec, config, rng)
                keep_N1 = torch.from_numpy(rng.random((len(data.movies), 1), np.float32) >= config.id_dropout)

                rows_ND, content_rows_ND = model.table(bags, keep_N1)
                at_B = torch.from_numpy(items)
                vectors_BD = model.item_tower.vectors(rows_ND[at_B], content_rows_ND[at_B])
                users_BD = _run_user_tower(model, rows_ND, inputs)
                loss = in_batch_softmax(
                    users_BD @ vectors_BD.T,
                    temperature=config.temperature,
                    log_q_B=log_q_N[at_B],
                    masked_BB=torch.from_numpy(positives.hits(split.train.users[ends], items)),
                )
                if not torch.isfinite(loss):
                    raise DataError(
                        f"the loss became {loss.item()} in epoch {number + 1}, step {step + 1}: lower the learning rate"
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.item()
                progress.advance(bar)

            progress.remove_task(bar)
            recall, ndcg = validate(model, bags, split.validation, spec)
            epochs.append(Epoch(total / steps, recall, ndcg, time.perf_counter() - started))
            console.print(f"epoch {number + 1:2}: {_line(epochs[-1])}", highlight=False)
            if split.validation.size == 0 or ndcg >= epochs[best].ndcg_at_10:
                best, best_state = number, copy.deepcopy(model.state_dict())
            if number - best >= config.patience:
                break

    model.load_state_dict(best_state)
    return Trained(model.eval(), config, spec, content_NT, epochs, best)


@torch.no_grad()
def validate(model: TwoTower, bags: ContentBags, queries: Queries, spec: bundle_pb2.FeatureSpec) -> tuple[float, float]:
    """Ranks the whole catalogue for each query, seen movies removed; returns mean recall@10 and NDCG@10."""
    if queries.size == 0:
        return math.nan, math.nan
    model.eval()
    rows_ND, content_rows_ND = model.table(bags)
    vectors_ND = model.item_tower.vectors(rows_ND, content_rows_ND)
    hits = []
    for start in range(0, queries.size, 512):
        part = queries.part(slice(start, start + 512))
        users_BD = _run_user_tower(model, rows_ND, part.tower_input(spec))
        ranked = top_k((users_BD @ vectors_ND.T).numpy(), part.seen(len(vectors_ND)), 10)
        hits.append(part.hits(ranked))
    model.train()
    hits_QK, counts_Q = np.concatenate(hits), queries.counts
    return float(recall_at(hits_QK, counts_Q, 10).mean()), float(ndcg_at(hits_QK, counts_Q, 10).mean())


def _seed_everything(config: TrainConfig) -> None:
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    # A debugging aid that comes with it and costs 5 % here: nothing reads memory before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _examples(log: EventLog) -> Int64s:
    # A person's first event is a target too: its history is empty, which is the cold start.
    examples = log.eligible()
    if len(examples) < 2:
        raise DataError(f"{len(examples)} events are left to train on; use data with more events a person")
    return examples


def _training_input(
    log: EventLog,
    ends: Int64s,
    spec: bundle_pb2.FeatureSpec,
    config: TrainConfig,
    rng: np.random.Generator,
) -> TowerInput:
    inputs = histories(log, ends, delayed(log.times_ms[ends], rng), spec, rng)
    full_B1 = rng.random((len(ends), 1), np.float32) >= config.empty_share
    return TowerInput(*(column * full_B1.astype(column.dtype) for column in inputs))


def _run_user_tower(model: TwoTower, rows_ND: Tensor, inputs: TowerInput) -> Tensor:
    rows_BLD = F.embedding(torch.from_numpy(inputs.rows), rows_ND)
    vectors_BD: Tensor = model.user_tower(rows_BLD, *(torch.from_numpy(column) for column in inputs[1:]))
    return vectors_BD


def _line(epoch: Epoch) -> str:
    return (
        f"loss {epoch.loss:.3f}, validation recall@10 {epoch.recall_at_10:.4f}, NDCG@10 {epoch.ndcg_at_10:.4f} "
        f"({epoch.seconds:.1f} s)"
    )
