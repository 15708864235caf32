"""Somebody without events is shown what most people have watched, by a direction fitted in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.linear import popular_direction
from training.model import TowerConfig, TwoTower


def test_the_direction_ranks_by_popularity_where_vectors_allow() -> None:
    # Movies on axes of their own: any order is possible, so theirs must be the counts'.
    people = np.array([3, 9, 1, 7, 5], np.float32)
    direction = popular_direction(np.eye(5, dtype=np.float32), people)
    assert np.argsort(-direction).tolist() == [1, 3, 4, 0, 2]
    assert np.linalg.norm(direction) == pytest.approx(1.0)


def test_the_most_watched_come_first_in_few_dimensions() -> None:
    # Vectors that know popularity only roughly, as a trained tower's do.
    rng = np.random.default_rng(3)
    people = np.round(300 / np.arange(1, 2001) ** 0.7).astype(np.float32)
    vectors = rng.normal(size=(2000, 64)).astype(np.float32)
    vectors[:, 0] += 2 * np.log(people)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = np.argsort(-(vectors @ popular_direction(vectors, people)))
    roughly = np.argsort(-vectors[:, 0])
    assert len(set(found[:50].tolist()) & set(range(50))) >= 40
    assert len(set(roughly[:50].tolist()) & set(range(50))) <= 36


def test_nobody_watched_anything() -> None:
    assert np.isfinite(popular_direction(np.eye(3, dtype=np.float32), np.zeros(3, np.float32))).all()


@pytest.mark.parametrize("kind", ["pooled", "sequence"])
def test_only_empty_histories_are_answered_by_it(kind: str) -> None:
    torch.manual_seed(0)
    tower = TwoTower(TowerConfig(kind=kind, dimension=4), torch.ones(3)).eval().user_tower
    rows, zeros = torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)
    kinds = torch.tensor([[0, 0, 0], [4, 0, 0]])
    with torch.no_grad():
        before = tower(rows, torch.zeros(2, 3), zeros, zeros, kinds)
        tower.get_parameter("nobody_D").copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
        after = tower(rows, torch.zeros(2, 3), zeros, zeros, kinds)
    torch.testing.assert_close(after[0], torch.tensor([0.0, 1.0, 0.0, 0.0]))
    torch.testing.assert_close(after[1], before[1])
