"""Trains the towers: one page, in the order things happen.

B people (or queries) in a batch, L history length, N movies, D dimension.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import ConfigError, DataError
from marquee.features import Int64s, content_ids, feature_spec
from training import linear
from training.baselines.interactions import watched
from training.batches import EventLog
from training.checkpoint import Checkpoint, Checkpoints, check_loss, restore, section, training_tensors
from training.config import TrainConfig
from training.data import Dataset
from training.device import choose_device
from training.distributed import Group, average_gradients, copy_from_first, mean_over_processes
from training.metrics import Doubles, ndcg_at, recall_at, top_k
from training.model import ContentBags, TowerConfig, TwoTower
from training.objectives import Hide, Negatives, Next, NextAtEvery, Objective, Table, Task, on, run_user_tower
from training.split import Queries, Split, liked_events
from training.teacher import Teacher

# The learning rate rises over so many steps, and falls to 0 along a cosine.
_WARM_UP = 20
_VALIDATION_QUERIES = 5000


class Epoch(NamedTuple):
    """Holds what one pass over the data came to; the metrics are of the validation split, NaN where nobody asks."""

    loss: float
    recall_at_10: float
    ndcg_at_10: float
    seconds: float
    liked_ndcg_at_10: float = math.nan


class Validated(NamedTuple):
    """Holds the metrics of each validation query; `liked_ndcg_Q` is NaN for queries without a liked target."""

    ndcg_Q: Doubles
    recall_Q: Doubles
    liked_ndcg_Q: Doubles


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
        max_history=tower.longest_history,
        dimension=tower.dimension,
        content_buckets=tower.content_buckets,
        max_content_tokens=tower.max_content_tokens,
    )


def train(
    data: Dataset,
    split: Split,
    tower: TowerConfig,
    config: TrainConfig,
    console: Console,
    checkpoints: Path | None = None,
    group: Group | None = None,
    stop_after: int | None = None,
) -> Trained:
    """Trains until the validation NDCG@10 has not risen for `patience` epochs, and returns the best epoch's towers.

    Without validation queries, and where hidden histories are learned, all epochs are run. With a folder for
    checkpoints, a run that was cut off goes on where it was, to the same weights. `group` are the processes that train
    together; `config.batch` is of all of them. `stop_after` so many epochs the run ends, on its way to all of them.

    Raises DataError where there is nothing to train on, or the loss stops being a number.
    """
    group = group or Group(0, 1, choose_device())
    examples = _examples(split.train, config)
    people = int(np.count_nonzero(np.diff(split.train.starts)))
    config = config.for_data(tower.kind, len(examples), people, split.protocol)
    run = _Run(data, split, tower, config, examples, group)
    kept = Checkpoints(checkpoints, _identity(data, split, tower, config)) if checkpoints else None
    if kept and (found := kept.latest(lambda sentence: console.print(sentence, markup=False))):
        run.go_on(found)
    if mean_over_processes(run.steps_done, group.device) != run.steps_done:
        raise ConfigError(f"{checkpoints}: not all processes find the same checkpoint; name a folder that all can read")
    with Progress(console=console, transient=True) as progress:
        for number in range(len(run.epochs), config.epochs):
            if number == stop_after or run.is_over(number):
                break
            epoch = run.epoch(number, progress, kept)
            console.print(f"{tower.kind} tower, epoch {number + 1:2}: {_line(epoch)}", highlight=False, soft_wrap=True)
            if kept and group.leads:
                run.save(kept)
    return run.trained(split.fit)


class _Run:
    """Is one training on its way: the towers, the running mean of their weights, and the best of it so far."""

    def __init__(
        self, data: Dataset, split: Split, tower: TowerConfig, config: TrainConfig, examples: Int64s, group: Group
    ) -> None:
        log, movies = split.train, len(data.movies)
        self._config, self._group, self._validation = config, group, split.validation
        # Held-out people are few: the highest of their noisy figures is no reason to end a schedule early.
        self._chooses = split.validation.size > 0 and config.objective != "hidden"
        _seed_everything(config, group.device)
        self._rng = np.random.default_rng(config.seed)
        self._spec = spec_of(tower)
        counts_N = np.bincount(log.items, minlength=movies)
        self._content_NT = content_ids(data.movies, self._spec)
        self._bags = ContentBags(on(group.device, self._content_NT))
        self._model = TwoTower(tower, torch.from_numpy(counts_N > 0), config.temperature)
        self._model.log_temperature.requires_grad_(config.learn_temperature)
        teacher = Teacher(log, movies) if config.is_taught else None
        if config.start == "linear":
            _start_table(self._model, linear.start_rows(log, movies, tower.dimension, config.penalty, config.seed))
        elif config.start == "taught" and teacher and teacher.knows:
            self._model.start_at(teacher.low_rank(tower.dimension - 1, config.seed))
        self._model.to(group.device)
        self._objective = _objective(Task(log, examples, counts_N, self._spec, config, group), tower.kind, teacher)
        self._optimizer = torch.optim.Adam(_parameter_groups(self._model, config.learning_rate), fused=True)
        copy_from_first(self._model)
        self._average = copy.deepcopy(self._model.state_dict())
        self._best_state, self._best = copy.deepcopy(self._average), 0
        self.epochs: list[Epoch] = []
        self.steps_done = 0

    def go_on(self, found: Checkpoint) -> None:
        """Goes on where a checkpoint was made."""
        restore(found.tensors, self._model, self._optimizer)
        self._average, self._best_state = (
            {name: tensor.to(self._group.device) for name, tensor in section(found.tensors, which).items()}
            for which in ("average", "best")
        )
        self._rng.bit_generator.state = found.state["rng"]
        self.epochs = [Epoch(*each) for each in found.state["epochs"]]
        self._best, self.steps_done = found.state["best"], found.step

    def is_over(self, number: int) -> bool:
        """Says whether the best epoch is too long ago for another one."""
        return bool(self.epochs) and number - 1 - self._best >= self._config.patience

    def epoch(self, number: int, progress: Progress, kept: Checkpoints | None) -> Epoch:
        """Reads the data once, validates, and keeps the weights where they are the best."""
        started, losses = time.perf_counter(), list[float]()
        batches = self._objective.batches(self._rng)
        bar = progress.add_task(f"epoch {number + 1} of at most {self._config.epochs}", total=len(batches))
        for batch in batches:
            loss = self._loss(batch)
            losses.append(mean_over_processes(loss.item(), self._group.device))
            check_loss(losses[-1], len(losses), number + 1, kept)
            self._step(loss, len(batches) * self._config.epochs)
            progress.advance(bar)
        progress.remove_task(bar)
        ndcg, recall, liked = _validated(self._model, self._average, self._bags, self._validation, self._spec)
        ndcg = mean_over_processes(ndcg, self._group.device)
        if not self._chooses or number == 0 or ndcg > self.epochs[self._best].ndcg_at_10:
            self._best, self._best_state = number, copy.deepcopy(self._average)
        self.epochs.append(Epoch(float(np.mean(losses)), recall, ndcg, time.perf_counter() - started, liked))
        return self.epochs[-1]

    def _loss(self, batch: Int64s) -> Tensor:
        dropout = self._config.id_dropout if self._objective.drops_ids else 0.0
        drawn_N1 = self._rng.random((len(self._content_NT), 1), np.float32)
        table = Table(*self._model.table(self._bags, on(self._group.device, drawn_N1 >= dropout)))
        return self._objective.loss(self._model, table, batch, self._rng)

    def _step(self, loss: Tensor, of: int) -> None:
        for slot in self._optimizer.param_groups:
            slot["lr"] = slot["own"] * _pace(self.steps_done, of)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self._model)
        self._optimizer.step()
        self.steps_done += 1
        _follow(self._average, self._model, min(self._config.average, self.steps_done / (self.steps_done + 10)))

    def save(self, kept: Checkpoints) -> None:
        """Makes a checkpoint after an epoch."""
        state = {"rng": self._rng.bit_generator.state, "epochs": self.epochs, "best": self._best}
        tensors = training_tensors(self._model, self._optimizer, average=self._average, best=self._best_state)
        done = len(self.epochs)
        kept.save(self.steps_done, done, tensors, state, best=self._best == done - 1)

    def trained(self, fit: EventLog) -> Trained:
        """Ends the training with the best epoch's towers; `fit` says what most people have watched."""
        self._model.load_state_dict(self._best_state)
        self._model.cpu().eval()
        _fit_nobody(self._model, self._content_NT, fit)
        return Trained(self._model, self._config, self._spec, self._content_NT, self.epochs, self._best)


def refit(
    data: Dataset,
    split: Split,
    trained: Trained,
    console: Console,
    checkpoints: Path | None = None,
    group: Group | None = None,
) -> Trained:
    """Trains anew on `split.fit`, as long as the best epoch took: what baselines do, once tuned.

    The epochs that are returned are those of `trained`, as nothing is left to validate on. `checkpoints` and `group`
    are as in `train`.
    """
    nobody = split.validation.take(np.zeros(0, np.int64))
    whole = split._replace(train=split.fit, validation=nobody)
    tower, config, epochs = trained.model.config, trained.config, trained.best + 1
    again = train(data, whole, tower, config, console, checkpoints, group, stop_after=epochs)
    return trained._replace(model=again.model)


def validate(model: TwoTower, bags: ContentBags, queries: Queries, spec: bundle_pb2.FeatureSpec) -> Validated:
    """Ranks the whole catalogue for each query, seen movies removed; returns NDCG@10 and recall@10, [Q] each."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        table = Table(*model.table(bags))
        vectors_ND = model.item_tower.vectors(*table)
        ranked = [np.zeros((0, 10), np.int64)]
        for start in range(0, queries.size, 256):
            part = queries.part(slice(start, start + 256))
            users_BD = run_user_tower(model, table.rows_ND, part.tower_input(spec))
            top_BK = top_k((users_BD @ vectors_ND.T).cpu().numpy(), part.seen(len(vectors_ND)), 10)
            ranked.append(np.pad(top_BK, ((0, 0), (0, 10 - top_BK.shape[1])), constant_values=-1))
    model.train(was_training)
    return _measured(queries, np.concatenate(ranked))


def _measured(queries: Queries, ranked_QK: Int64s) -> Validated:
    hits_QK, liked = queries.hits(ranked_QK), queries.only_liked()
    asks_Q = queries.kept(queries.liked_T) > 0
    liked_ndcg_Q = np.full(queries.size, np.nan)
    liked_ndcg_Q[asks_Q] = ndcg_at(liked.hits(ranked_QK[asks_Q]), liked.counts, 10)
    return Validated(ndcg_at(hits_QK, queries.counts, 10), recall_at(hits_QK, queries.counts, 10), liked_ndcg_Q)


def _validated(
    model: TwoTower, average: dict[str, Tensor], bags: ContentBags, queries: Queries, spec: bundle_pb2.FeatureSpec
) -> tuple[float, ...]:
    """Validates the averaged weights: the mean of each metric, NaN without queries."""
    mean = copy.deepcopy(model)
    mean.load_state_dict(average)
    measured = validate(mean, bags, queries.sample(_VALIDATION_QUERIES), spec)
    known = (values_Q[~np.isnan(values_Q)] for values_Q in measured)
    return tuple(float(values_Q.mean()) if len(values_Q) else math.nan for values_Q in known)


def _seed_everything(config: TrainConfig, device: torch.device) -> None:
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    # The same bits are promised on a CPU only: some sums have no deterministic form on a GPU.
    torch.use_deterministic_algorithms(device.type == "cpu")
    # A debugging aid that comes with it and costs 5 % here: nothing reads memory before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@torch.no_grad()
def _fit_nobody(model: TwoTower, content_NT: Int64s, log: EventLog) -> None:
    """Points the query of somebody without events at what most people have watched."""
    vectors_ND = model.item_tower.vectors(*model.table(ContentBags(torch.from_numpy(content_NT)))).numpy()
    people_N = np.asarray(watched(log, len(vectors_ND)).sum(axis=0), np.float32)
    nobody_D = model.user_tower.get_parameter("nobody_D")
    nobody_D.copy_(torch.from_numpy(linear.popular_direction(vectors_ND, people_N)))


def _examples(log: EventLog, config: TrainConfig) -> Int64s:
    # A person's first event is a target too: its history is empty, which is the cold start.
    examples = log.eligible()
    if config.targets == "liked":
        examples = examples[liked_events(log)[examples]]
    if len(examples) < 2:
        raise DataError(f"{len(examples)} events are left to train on; use data with more events a person")
    return examples


def _start_table(model: TwoTower, rows_ND: np.ndarray) -> None:
    with torch.no_grad():
        model.ids.weight.copy_(torch.from_numpy(rows_ND))
        if model.own_rows is not None:
            model.own_rows.weight.copy_(model.ids.weight)


def _objective(task: Task, kind: str, teacher: Teacher | None) -> Objective:
    if task.config.objective == "hidden":
        return Hide(task, teacher if task.config.teach > 0 else None)
    return (Next if kind == "pooled" else NextAtEvery)(task, Negatives(task))


def _parameter_groups(model: TwoTower, learning_rate: float) -> list[dict[str, Any]]:
    """Lets tables, whose rows are each seen seldom, go at half the pace of everything else."""
    tables = {id(model.ids.weight), id(model.item_tower.content.weight)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    others = [parameter for parameter in trained if id(parameter) not in tables]
    return [
        {"params": [parameter for parameter in trained if id(parameter) in tables], "own": learning_rate},
        {"params": others, "own": 2.0 * learning_rate},
    ]


def _pace(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / steps)))


@torch.no_grad()
def _follow(average: dict[str, Tensor], model: TwoTower, decay: float) -> None:
    state = model.state_dict()
    names = [name for name, tensor in state.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in names], [state[name] for name in names], 1.0 - decay)


def _identity(data: Dataset, split: Split, tower: TowerConfig, config: TrainConfig) -> dict[str, Any]:
    return {
        "data": data.fingerprint,
        "split": [split.protocol, split.fold],
        "tower": dataclasses.asdict(tower),
        "training": dataclasses.asdict(config),
    }


def _line(epoch: Epoch) -> str:
    return (
        f"loss {epoch.loss:.3f}, validation recall@10 {epoch.recall_at_10:.4f}, NDCG@10 {epoch.ndcg_at_10:.4f}, "
        f"{epoch.liked_ndcg_at_10:.4f} on liked targets ({epoch.seconds:.1f} s)"
    )
