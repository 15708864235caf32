"""The user towers: what a state may know, how far a pool reads, and what the linear start is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from marquee.errors import ConfigError
from marquee.features import LIKED, RATED, TowerInput
from tests.logs import log_of
from training import linear
from training.baselines.interactions import watched
from training.export import random_input
from training.model import TOWERS, ContentBags, TowerConfig, TwoTower
from training.objectives import run_user_tower
from training.pooled import PooledUserTower
from training.sequence import SequenceUserTower, distance_buckets
from training.teacher import LowRank
from training.train import spec_of

MOVIES, PEOPLE, LENGTH = 50, 5, 12


def made(kind: str, **knobs: object) -> TwoTower:
    """Makes towers with random weights everywhere, so that no part is hidden by a zero."""
    torch.manual_seed(5)
    config = TowerConfig(kind=kind, dimension=16, max_history=LENGTH)
    model = TwoTower(dataclasses.replace(config, **knobs), torch.ones(MOVIES)).eval()  # type: ignore[arg-type]
    for weights in model.parameters():
        weights.data += 0.2 * torch.randn_like(weights)
    return model


def full_inputs(model: TwoTower, length: int = LENGTH) -> TowerInput:
    """Makes up histories without padding."""
    rng = np.random.default_rng(1)
    people = [random_input(rng, 1, length, MOVIES, spec_of(model.config)) for _ in range(PEOPLE)]
    return TowerInput._make(np.concatenate(columns) for columns in zip(*people, strict=True))


def tensors(model: TwoTower, inputs: TowerInput) -> list[Tensor]:
    rows, *columns = (torch.from_numpy(column) for column in inputs)
    return [model.ids.weight[rows], *columns]


def query(model: TwoTower, inputs: TowerInput) -> Tensor:
    with torch.no_grad():
        vectors_BD: Tensor = model.user_tower(*tensors(model, inputs))
    return vectors_BD


def states(model: TwoTower, inputs: TowerInput, *, newest_only: bool = False) -> Tensor:
    assert isinstance(model.user_tower, SequenceUserTower)
    rows, ratings, _, gaps, kinds = tensors(model, inputs)
    with torch.no_grad():
        return model.user_tower.states(rows, ratings, gaps, kinds, newest_only=newest_only)


def cut(inputs: TowerInput, of: slice) -> TowerInput:
    return TowerInput._make(column[:, of] for column in inputs)


def padded(inputs: TowerInput, more: int) -> TowerInput:
    return TowerInput._make(np.pad(column, ((0, 0), (0, more))) for column in inputs)


@pytest.mark.parametrize("place", range(LENGTH))
def test_the_state_of_an_event_is_what_it_would_be_were_it_the_newest(place: int) -> None:
    model = made("sequence")
    inputs = full_inputs(model)
    alone_BD = states(model, cut(inputs, slice(place, None)))[:, 0]
    torch.testing.assert_close(states(model, inputs)[:, place], alone_BD, rtol=0, atol=2e-6)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_asking_for_the_newest_state_only_gives_the_same_state(blocks: int) -> None:
    model = made("sequence", blocks=blocks)
    inputs = full_inputs(model)
    newest_BD = states(model, inputs, newest_only=True)
    assert newest_BD.shape == (PEOPLE, 1, 16)
    torch.testing.assert_close(newest_BD[:, 0], states(model, inputs)[:, 0], rtol=0, atol=2e-6)


def test_a_state_depends_on_every_older_event() -> None:
    model = made("sequence")
    inputs = full_inputs(model)
    for place in range(LENGTH):
        ratings = inputs.ratings.copy()
        ratings[:, place] += 1
        changed_BL = (states(model, inputs._replace(ratings=ratings)) - states(model, inputs)).abs().amax(dim=2) > 1e-6
        assert changed_BL[:, : place + 1].all()
        assert not changed_BL[:, place + 1 :].any()


def test_a_training_query_is_the_served_one_but_for_what_is_said() -> None:
    model = made("sequence", like_pull=0.0, dislike_pull=0.0)
    inputs = full_inputs(model)
    tower = model.user_tower
    assert isinstance(tower, SequenceUserTower)
    with torch.no_grad():
        ages, real = torch.from_numpy(inputs.ages), torch.ones(PEOPLE, LENGTH, dtype=torch.bool)
        trained_BLD = tower.query(states(model, inputs), ages, real)
    for place in range(LENGTH):
        served_BD = query(model, cut(inputs, slice(place, None)))
        torch.testing.assert_close(trained_BLD[:, place], served_BD, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("length", [1, 5])
def test_padding_does_not_matter(kind: str, length: int) -> None:
    model = made(kind)
    inputs = full_inputs(model, length)
    torch.testing.assert_close(query(model, padded(inputs, 7)), query(model, inputs), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", TOWERS)
def test_an_empty_history_asks_without_what_its_padding_holds(kind: str) -> None:
    model = made(kind)
    nothing = TowerInput._make(np.zeros_like(column) for column in full_inputs(model))
    vectors_BD = query(model, nothing)
    torch.testing.assert_close(vectors_BD, query(model, nothing._replace(rows=nothing.rows + 7)))
    torch.testing.assert_close(vectors_BD.norm(dim=1), torch.ones(PEOPLE))


def below_the_last_buckets(inputs: TowerInput) -> TowerInput:
    """Leaves room for one more of everything that is a number of a row or bucket."""
    return inputs._replace(rows=inputs.rows % (MOVIES - 1), ages=inputs.ages.clip(max=8), gaps=inputs.gaps.clip(max=8))


@pytest.mark.parametrize("kind", TOWERS)
def test_queries_are_of_unit_length_and_depend_on_every_column(kind: str) -> None:
    model = made(kind)
    inputs = below_the_last_buckets(full_inputs(model))
    vectors_BD = query(model, inputs)
    torch.testing.assert_close(vectors_BD.norm(dim=1), torch.ones(PEOPLE))
    for name in TowerInput._fields:
        changed = np.where(inputs.kinds == RATED, LIKED, RATED) if name == "kinds" else getattr(inputs, name) + 1
        others = [changed if name == each else getattr(inputs, each) for each in TowerInput._fields]
        different = (query(model, TowerInput._make(others)) - vectors_BD).abs().amax(dim=1)
        assert (different > 1e-5).all(), name


def test_a_tower_reads_as_far_back_as_suits_its_kind() -> None:
    pooled, sequence = (TowerConfig(kind=kind) for kind in TOWERS)
    assert pooled.longest_history > sequence.longest_history > 64
    assert [spec_of(one).max_history for one in (pooled, sequence)] == [
        pooled.longest_history,
        sequence.longest_history,
    ]
    assert TowerConfig(max_history=30).longest_history == 30


@pytest.mark.parametrize("place", [0, 64, 65, 200, 499])
def test_the_pool_reads_beyond_64_events(place: int) -> None:
    model = made("pooled", max_history=0, half_lives=(float("inf"),))
    # Alike for all ranks, as an infinite half-life has it: random weights would drown a single event in 500.
    assert isinstance(model.user_tower, PooledUserTower)
    model.user_tower.rank_logits_HL.data.zero_()
    inputs = full_inputs(model, 500)
    rows = inputs.rows.copy()
    rows[:, place] = (rows[:, place] + 1) % MOVIES
    different = (query(model, inputs._replace(rows=rows)) - query(model, inputs)).abs().amax(dim=1)
    assert (different > 1e-6).all()


def test_distances_have_buckets_of_their_own_up_to_15_and_share_them_farther_out() -> None:
    found = distance_buckets(torch.tensor([-3, 0, 1, 15, 16, 22, 23, 31, 32, 45, 46, 64, 182, 100_000])).tolist()
    # 16 x sqrt(2) is 22.6, and 32 x sqrt(2) is 45.3, and 128 x sqrt(2) is 181.02.
    assert found == [0, 0, 1, 15, 16, 16, 17, 17, 18, 18, 19, 20, 23, 23]


def test_the_linear_start_is_the_ridge_autoencoder_of_its_rank() -> None:
    rng = np.random.default_rng(3)
    log = log_of(*((user, int(item), RATED) for user in range(9) for item in np.sort(rng.choice(7, 3, replace=False))))
    assert len(np.unique(log.items)) == 7
    matrix_UN = watched(log, 7).toarray().astype(np.float64)
    # The ridge autoencoder (X'X + 2 I)^-1 X'X, cut to its four largest directions.
    gram_NN = matrix_UN.T @ matrix_UN
    values, directions = np.linalg.eigh(gram_NN)
    largest = directions[:, -4:]
    expected_NN = largest @ largest.T @ np.linalg.solve(gram_NN + 2.0 * np.eye(7), gram_NN)
    rows_ND = linear.start_rows(log, 7, 4, penalty=2.0, seed=0).astype(np.float64)
    found_NN = rows_ND @ rows_ND.T
    np.testing.assert_allclose(found_NN / np.trace(found_NN), expected_NN / np.trace(expected_NN), atol=1e-5)
    assert rows_ND.std() == pytest.approx(linear.ROW_SCALE, rel=1e-5)
    assert np.all(values[-4:] > values[-5] + 1e-3), "the four directions are told apart"


def test_a_movie_that_nobody_watched_starts_at_nothing() -> None:
    log = log_of((0, 0, RATED), (0, 2, RATED), (1, 2, RATED), (1, 3, RATED), (2, 0, RATED))
    rows_ND = linear.start_rows(log, 5, 8, penalty=2.0, seed=0)
    assert rows_ND.shape == (5, 8)
    np.testing.assert_allclose(rows_ND[[1, 4]], 0, atol=1e-6)
    assert not rows_ND[:, 2:].any(), "three people give a rank of two"


def test_one_person_starts_at_nothing() -> None:
    assert not linear.start_rows(log_of((0, 0, RATED), (0, 1, RATED)), 3, 4, penalty=1.0, seed=0).any()


@pytest.mark.parametrize("shared", [True, False])
def test_towers_that_start_at_a_linear_model_rank_as_it_does(shared: bool) -> None:
    rng = np.random.default_rng(6)
    # Another movie in fifty is not known, rows are of all lengths, and the mix is not symmetric.
    known_M = np.sort(rng.permutation(MOVIES)[: MOVIES - 10])
    rows_MR = (rng.standard_normal((len(known_M), 9)) * rng.uniform(0.1, 3.0, (len(known_M), 1))).astype(np.float32)
    mix_RR = rng.standard_normal((9, 9)).astype(np.float32)
    torch.manual_seed(5)
    config = TowerConfig(kind="pooled", dimension=16, max_history=LENGTH, shared_table=shared)
    model = TwoTower(config, torch.ones(MOVIES))
    model.start_at(LowRank(known_M, rows_MR, mix_RR))
    rows_NR = np.zeros((MOVIES, 9), np.float32)
    rows_NR[known_M] = rows_MR
    inputs = full_inputs(model)
    # Long after: a head that reads all alike leads then.
    inputs = inputs._replace(ages=np.full_like(inputs.ages, inputs.ages.max()), kinds=np.full_like(inputs.kinds, RATED))
    bags = ContentBags(torch.from_numpy(rng.integers(1, 99, (MOVIES, 3))))
    with torch.no_grad():
        rows_ND, content_ND = model.table(bags)
        vectors_ND = model.item_tower.vectors(rows_ND, content_ND)
        found_BN = run_user_tower(model.train(), rows_ND, inputs) @ vectors_ND.T
    expected_BN = rows_NR[inputs.rows].sum(axis=1) @ mix_RR @ rows_NR.T
    for found_N, expected_N in zip(found_BN.numpy(), expected_BN, strict=True):
        assert np.corrcoef(found_N, expected_N)[0, 1] > 0.999
    np.testing.assert_allclose(vectors_ND.norm(dim=1), 1.0, rtol=1e-5)


def test_a_linear_model_that_says_nothing_is_a_start_too() -> None:
    config = TowerConfig(kind="pooled", dimension=16, max_history=LENGTH)
    model = TwoTower(config, torch.ones(MOVIES))
    model.start_at(LowRank(np.array([3]), np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)))
    vectors_BD = query(model.eval(), full_inputs(model))
    np.testing.assert_allclose(vectors_BD.norm(dim=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("knobs", "problem"),
    [
        ({"kind": "tall"}, "tower is 'tall'; it must be one of pooled, sequence"),
        ({"dimension": 1}, "dimension is 1"),
        ({"half_lives": ()}, "half_lives"),
        ({"max_history": -1}, "max_history"),
        ({"kind": "sequence", "dimension": 9}, "heads divide the dimension, 9"),
        ({"kind": "sequence", "blocks": 0}, "blocks is 0"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
    ],
)
def test_a_wrong_shape_is_named(knobs: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        TowerConfig(**knobs)  # type: ignore[arg-type]
