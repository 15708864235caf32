"""The logic of `benchmarks.peers_retrieval`: curves, the frontier, recall, and which goals are met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.chosen import BARE, OURS
from benchmarks.peers_retrieval import (
    GRAPHS,
    Point,
    Size,
    System,
    draw,
    frontier_ms,
    milliseconds_at,
    recall_of,
    rows_of,
)
from benchmarks.report import Row
from benchmarks.sweeping import K, found_file, sweep

CURVE = (Point(100, 0.90, 1.0), Point(200, 0.98, 4.0), Point(400, 0.99, 8.0))
COSTS = {"bytes": 2e6, "resident": 3e6, "build_s": 1.5, "open_s": 0.1}


@pytest.mark.parametrize(
    ("recall", "expected"),
    [
        (0.90, 1.0),
        # Half of the way from 0.90 to 0.98 is half of the way from 1 to 4 ms on the axis of the picture: √(1 · 4).
        (0.94, 2.0),
        (0.98, 4.0),
        (0.80, 1.0),
        (0.995, None),
    ],
)
def test_a_curve_is_read_off_between_its_settings(recall: float, expected: float | None) -> None:
    assert milliseconds_at(CURVE, recall) == (None if expected is None else pytest.approx(expected))


def test_a_slower_setting_that_finds_less_does_not_count() -> None:
    disturbed = (*CURVE, Point(150, 0.97, 9.0))

    assert milliseconds_at(disturbed, 0.94) == pytest.approx(2.0)


def test_the_frontier_is_whoever_is_fastest_at_that_recall() -> None:
    quick = System("quick", (Point(1, 0.95, 0.5),), {})
    thorough = System("thorough", CURVE, {})

    assert frontier_ms((quick, thorough), 0.95) == ("quick", 0.5)
    assert frontier_ms((quick, thorough), 0.98) == ("thorough", 4.0)
    assert frontier_ms((quick, thorough), 1.0) is None


def test_recall_counts_the_nearest_rows_and_their_ties() -> None:
    scores = np.arange(300, dtype=np.float32)
    scores[199] = scores[200]
    nearest = np.arange(200, 300)
    half = np.concatenate([nearest[: K // 2], np.full(K // 2, -1)])
    tied = np.concatenate([nearest[1:], [199]])
    found_QK = np.stack([nearest, half, tied])
    queries_QD = np.ones((3, 1), np.float32)

    assert recall_of(found_QK, scores[:, None], queries_QD) == pytest.approx((1.0 + 0.5 + 1.0) / 3)


def test_a_sweep_keeps_what_each_setting_found(tmp_path: Path) -> None:
    np.save(tmp_path / "queries.npy", np.eye(3, dtype=np.float32))

    points = sweep(lambda value: lambda query_D: np.arange(value), (5, K), tmp_path, "a system")

    assert [point["value"] for point in points] == [5, K]
    assert all(point["ms"] > 0 for point in points)
    few_QK = np.load(found_file(tmp_path, "a system", 5))
    assert few_QK.shape == (3, K)
    assert few_QK[0].tolist() == [0, 1, 2, 3, 4] + [-1] * (K - 5)


def test_ours_on_the_frontier_and_near_bare_faiss_meets_both_goals() -> None:
    frontier, over_bare = _goals(_size(ours_ms=3.9, over=1.05))

    assert (frontier.met, over_bare.met) == (True, True)
    assert frontier.value == pytest.approx(3.9 / 4.0)
    assert over_bare.value == pytest.approx(1.05)


def test_ours_behind_the_frontier_and_dear_misses_both_goals() -> None:
    frontier, over_bare = _goals(_size(ours_ms=4.4, over=1.2))

    assert (frontier.met, over_bare.met) == (False, False)


def test_where_no_peer_finds_as_much_there_is_no_goal() -> None:
    frontier = rows_of(_size(ours_ms=50.0, recall=0.999))[0]

    assert frontier.goal is None
    assert frontier.value == pytest.approx(50.0 / 8.0)
    assert "the most was 0.9900" in frontier.beside


def test_a_system_that_never_finds_enough_is_told_at_the_most_that_it_finds() -> None:
    poor = System("hnswlib", (Point(100, 0.6, 1.0), Point(200, 0.7, 2.0)), COSTS)
    size = _size(ours_ms=1.0)._replace(systems=(poor,))

    cost = rows_of(size._replace(systems=(*_size(ours_ms=1.0).systems, poor)))[-1]

    assert cost.value == pytest.approx(2000.0)
    assert cost.measured.endswith("a search that finds 0.7")


def test_the_picture_has_a_panel_for_each_size(tmp_path: Path) -> None:
    draw(tmp_path / "curves.png", [_size(ours_ms=3.0), _size(ours_ms=3.5)])

    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def _size(*, ours_ms: float, over: float = 1.0, recall: float = 0.98) -> Size:
    tuned = Point(16, recall, ours_ms)
    systems = [System(name, CURVE, COSTS) for name in GRAPHS]
    ours = System(OURS, (tuned,), COSTS)
    chosen = {"kind": "ivf", "parameters": {"nlist": 64, "nprobe": 16}}
    return Size(1000, chosen, tuned, (ours, *systems), (OURS, BARE), [[over * 1e-3, 1e-3]] * 3)


def _goals(size: Size) -> list[Row]:
    return [row for row in rows_of(size) if row.goal is not None]
