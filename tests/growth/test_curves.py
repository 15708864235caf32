"""Figures between, before and beyond what was measured."""

from __future__ import annotations

import pytest

from benchmarks.curves import Curve

CURVE = Curve([10, 20, 40], [1.0, 3.0, 4.0])


@pytest.mark.parametrize(("size", "value"), [(10, 1), (15, 2), (20, 3), (30, 3.5), (40, 4), (60, 5), (5, 1), (0, 1)])
def test_lines_between_flat_before_and_on_beyond(size: float, value: float) -> None:
    assert CURVE.at(size) == value


def test_one_point_is_flat() -> None:
    assert Curve([10], [2.0]).at(1_000) == 2


def test_a_step_stays_a_step() -> None:
    step = Curve([99_999, 100_000, 200_000], [1.0, 0.1, 0.2])
    assert step.at(99_999) == 1.0
    assert step.at(100_000) == pytest.approx(0.1)
    assert step.at(150_000) == pytest.approx(0.15)


def test_what_falls_at_the_end_falls_no_further() -> None:
    falling = Curve([10, 20], [3.0, 1.0])
    assert [falling.at(size) for size in (15, 20, 21, 1_000)] == [2.0, 1.0, 1.0, 1.0]


def test_what_is_beyond_is_known() -> None:
    assert CURVE.reaches(40)
    assert not CURVE.reaches(41)
