"""The ablation: each variant changes what it says and nothing else, and differences are paired by query."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.planted import write_planted
from training.ablation import DEFAULT, VARIANTS, Outcome, as_row, main, variant
from training.config import TrainConfig
from training.model import TowerConfig


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_what_it_names_and_nothing_else(name: str) -> None:
    tower, config = TowerConfig(), TrainConfig()
    changed = [dataclasses.asdict(one) for one in variant(VARIANTS[name], tower, config)]
    for before, after in zip((dataclasses.asdict(tower), dataclasses.asdict(config)), changed, strict=True):
        assert {key: value for key, value in after.items() if value != before[key]} == {
            key: value for key, value in VARIANTS[name].items() if key in before
        }


def test_differences_are_of_the_same_queries() -> None:
    default = Outcome(np.array([0.0, 0.5, 1.0, 0.5]), np.array([0.0, 1.0, 1.0, 1.0]), 2.0)
    better = Outcome(default.ndcg_Q + 0.25, default.recall_Q, 3.0)
    row = as_row("better", better, default)
    # Every query gains a quarter, so the interval of the difference is a point, though that of the mean is wide.
    assert row["ndcg@10"]["value"] == pytest.approx((0.25 + 0.75 + 1.25 + 0.75) / 4)
    assert row["ndcg@10"]["high"] - row["ndcg@10"]["low"] > 0.1
    assert row["ndcg@10 difference"] == pytest.approx({"value": 0.25, "low": 0.25, "high": 0.25, "n": 4})
    assert row["recall@10 difference"]["value"] == 0.0


def test_an_unknown_variant_is_named_with_those_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_planted(tmp_path / "data")
    assert main(["--data", str(data), "--only", "no luck"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ablation: no luck: no such variant; there are ")
    assert DEFAULT in said
