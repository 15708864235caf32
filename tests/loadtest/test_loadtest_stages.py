"""Stages, and when calls are due in them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from clients.loadtest.arrivals import Arrivals, Seconds, Share, due_times
from clients.loadtest.stages import BadStages, Stage, parse_duration, parse_stages, wanted_rate

ALL = Share(0, 1)


def due(stages: list[Stage], kind: Arrivals, share: Share = ALL, seed: int = 0) -> Seconds:
    return np.concatenate([each.times for each in due_times(stages, kind, share, seed)])


def test_stages_are_read() -> None:
    stages = parse_stages("10s@100, 500ms@2.5,ramp 2m@500..1000")
    assert stages == [Stage(10, 100, 100), Stage(0.5, 2.5, 2.5), Stage(120, 500, 1000)]
    assert [str(stage) for stage in stages] == ["10s@100", "0.5s@2.5", "ramp 120s@500..1000"]
    assert stages[2].calls == 120 * 750


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "stage 1, '', is none: write DURATION@RATE"),
        ("10s@100,", "stage 2, '', is none"),
        ("10s", "stage 1, '10s', is none"),
        ("10@100", "stage 1, '10@100': '10' is no duration: write a number and its unit, such as 500ms, 30s, 2m or 1h"),
        ("10s@fast", "stage 1, '10s@fast': 'fast' is no rate: give calls a second, from 0 to 100,000"),
        ("10s@-5", "'-5' is no rate"),
        ("10s@200000", "'200000' is no rate"),
        ("0s@5", "'0s' is no duration to measure for"),
        ("999h@5", "'999h' is no duration to measure for: give more than 0 and at most 168h"),
        ("10s@100..200", "a ramp is written ramp 10s@100..RATE, a steady stage 10s@100"),
        ("ramp 10s@100", "a ramp is written ramp 10s@100..RATE"),
        ("5s@1,10s@0..x", "stage 2, '10s@0..x': 'x' is no rate"),
        ("10s@0,5s@0", "wants no call at all"),
        ("１0s@5", "is no duration"),
    ],
)
def test_bad_stages_say_how_they_are_written(text: str, told: str) -> None:
    with pytest.raises(BadStages) as failure:
        parse_stages(text)
    assert told in str(failure.value)


def test_durations_have_units() -> None:
    assert [parse_duration(text) for text in ("500ms", "1.5s", "2m", "1h")] == [0.5, 1.5, 120, 3600]


def test_the_wanted_rate_is_a_mean_over_a_span() -> None:
    stages = parse_stages("2s@100,ramp 2s@100..300")
    assert wanted_rate(stages, 0, 2) == 100
    # From the middle of the steady stage to the middle of the ramp, where it is 200: (100 + 150) / 2.
    assert wanted_rate(stages, 1, 3) == pytest.approx((100 + 150) / 2)
    assert wanted_rate(stages, 4, 5) == 0


def test_constant_arrivals_are_evenly_spaced() -> None:
    times = due([Stage(2, 100, 100)], Arrivals.CONSTANT)
    assert times == pytest.approx(np.arange(200) / 100 + 0.005)


def test_a_ramp_has_as_many_calls_as_its_area() -> None:
    times = due([Stage(10, 0, 100)], Arrivals.CONSTANT)
    assert len(times) == 500
    # By half of its time a ramp from 0 has sent a quarter of its calls.
    assert np.sum(times < 5) == 125
    assert np.all(np.diff(times) > 0)
    down = due([Stage(10, 100, 0)], Arrivals.CONSTANT)
    assert np.sum(down < 5) == 375


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_of_constant_arrivals_make_up_the_whole(processes: int) -> None:
    stages = [Stage(1.5, 70, 70), Stage(3, 10, 90)]
    parts = [due(stages, Arrivals.CONSTANT, Share(place, processes)) for place in range(processes)]
    assert np.sort(np.concatenate(parts)) == pytest.approx(due(stages, Arrivals.CONSTANT))


@pytest.mark.parametrize("processes", [1, 4])
def test_poisson_arrivals_have_their_mean_and_their_variance(processes: int) -> None:
    stages = [Stage(400, 50, 50)]
    times = np.concatenate([due(stages, Arrivals.POISSON, Share(place, processes), 3) for place in range(processes)])
    counts = np.histogram(times, bins=400, range=(0, 400))[0]
    # 20,000 calls: five standard deviations are 3.5 %; the variance of a Poisson count is its mean.
    assert counts.mean() == pytest.approx(50, rel=0.035)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.35)


def test_poisson_arrivals_follow_a_ramp() -> None:
    times = due([Stage(100, 0, 200)], Arrivals.POISSON)
    assert np.sum(times < 50) / len(times) == pytest.approx(0.25, abs=0.03)
    assert np.all(np.diff(times) >= 0)
    assert 0 <= times[0] <= times[-1] <= 100


def test_the_same_seed_draws_the_same_times_and_another_other_ones() -> None:
    stages = [Stage(3, 50, 50)]
    assert np.array_equal(due(stages, Arrivals.POISSON, seed=1), due(stages, Arrivals.POISSON, seed=1))
    assert not np.array_equal(due(stages, Arrivals.POISSON, seed=1), due(stages, Arrivals.POISSON, seed=2))
    first, second = (due(stages, Arrivals.POISSON, Share(place, 2)) for place in (0, 1))
    assert not np.array_equal(first[:5], second[:5])


def test_every_call_knows_its_stage() -> None:
    stages = [Stage(1, 10, 10), Stage(1, 20, 20)]
    counts = [0, 0]
    spans = list(due_times(stages, Arrivals.CONSTANT, Share(0, 1), 0))
    for each in spans:
        counts[each.stage] += len(each.times)
    assert counts == [10, 20]
    assert all(one.stage <= other.stage for one, other in pairwise(spans))
