"""The logic of `benchmarks.peers_training`: when a curve gets somewhere, and which goals are met."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers_training import Learned, World, best_of_peers, rows_of, seconds_to
from benchmarks.report import Row

WORLD = World("small", Path("small"), 64)
CURVE = ((2.0, 0.01), (4.0, 0.05), (6.0, 0.04))


@pytest.mark.parametrize(("recall", "expected"), [(0.01, 2.0), (0.03, 4.0), (0.05, 4.0), (0.06, None)])
def test_a_curve_gets_there_with_the_first_pass_that_is_as_good(recall: float, expected: float | None) -> None:
    assert seconds_to(CURVE, recall) == expected


def test_what_is_to_be_reached_is_the_best_of_any_peer_at_any_time() -> None:
    ours = _learned("ours", ours=True)._replace(curve=((1.0, 0.9),))

    assert best_of_peers([ours, _learned("a peer"), _learned("another")._replace(curve=((1.0, 0.02),))]) == 0.05


def test_pace_is_compared_by_what_a_pass_learns_and_not_by_its_seconds() -> None:
    ours = _learned("our tower", ours=True)._replace(events=1000, pass_s=5.0)
    # Half of the seconds, because it reads a quarter of the events.
    peer = _learned("SASRec")._replace(events=250, pass_s=2.5)

    pace, _ = _goals([ours, peer])

    assert pace.value == pytest.approx((1000 / 5.0) / (250 / 2.5))
    assert pace.met


def test_faster_but_worse_misses_one_of_the_two_goals() -> None:
    ours = _learned("our tower", ours=True)._replace(events=1000, recall=0.03)
    peer = _learned("SASRec")._replace(recall=0.06)

    pace, quality = _goals([ours, peer])

    assert (pace.met, quality.met) == (True, False)
    assert quality.value == pytest.approx(-3.0)


def test_a_peer_that_found_nothing_is_one_to_be_above() -> None:
    _, quality = _goals([_learned("our tower", ours=True), _learned("SASRec")._replace(recall=0.0)])

    assert quality.met
    assert quality.value == pytest.approx(6.0)


def test_only_neural_peers_are_the_goals_measure() -> None:
    ours = _learned("our tower", ours=True)._replace(events=1000)
    factors = _learned("implicit ALS")._replace(neural=False, events=1_000_000, recall=0.9)

    pace, quality = _goals([ours, factors, _learned("SASRec")])

    assert (pace.met, quality.met) == (True, True)


def test_who_does_not_reach_the_best_peer_is_told_so() -> None:
    slow = _learned("another")._replace(curve=((1.0, 0.02),))

    beside = [row.beside for row in rows_of(WORLD, [_learned("our tower", ours=True), _learned("SASRec"), slow])]

    assert sum("recall@10 of 0.0500 on validation, the best of the peers: after 4.0 s" in text for text in beside) == 2
    assert sum("the best of the peers: not reached" in text for text in beside) == 1


def _learned(name: str, *, ours: bool = False) -> Learned:
    return Learned(name, True, ours, 2.0, 100, CURVE, 0.06, 0.03, 3, 10**9, "a note")


def _goals(learned: list[Learned]) -> list[Row]:
    return [row for row in rows_of(WORLD, learned) if row.goal is not None]
