"""The index finds exactly what arithmetic says, ties included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee.engine import index as engine_index
from marquee.engine.index import Index
from marquee.engine.kinds import Spec
from marquee.errors import BundleError
from marquee.features import Floats, Int64s
from tests.bundles import draft_of


@pytest.fixture(autouse=True, params=[True, False], ids=["all scores at once", "proposed by FAISS"])
def long_lists(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over so few movies every list is a long one, unless none is."""
    if not request.param:
        monkeypatch.setattr(engine_index, "_FLOATS_A_HIT", 0)


def index_of(folder: Path, ids: Int64s, vectors_ND: Floats) -> Index:
    """Opens an exact index over vectors of the test's own making."""
    return Index(draft_of(folder, ids, vectors_ND))


def twins(rng: np.random.Generator, count: int) -> tuple[Int64s, Floats]:
    """Makes `count` movies with the same vector, (1, 0), and as many with (0, 1), in no order."""
    ids = rng.permutation(np.arange(1, 2 * count + 1)).astype(np.int64)
    vectors_ND = np.zeros((2 * count, 2), np.float32)
    vectors_ND[np.arange(2 * count), (ids % 2).astype(np.int64)] = 1.0
    return ids, vectors_ND


@pytest.mark.parametrize("k", [1, 7, 150, 250, 600])
def test_ids_decide_between_any_number_of_equal_scores(tmp_path: Path, k: int) -> None:
    ids, vectors_ND = twins(np.random.default_rng(3), 300)
    hits = index_of(tmp_path, ids, vectors_ND).search(np.array([1.0, 0.0], np.float32), k)
    even, odd = list(range(2, 601, 2)), list(range(1, 600, 2))
    assert hits.movie_ids.tolist() == (even + odd)[:k]
    assert hits.scores.tolist() == ([1.0] * 300 + [0.0] * 300)[:k]


def test_ties_are_settled_under_a_mask(tmp_path: Path) -> None:
    ids, vectors_ND = twins(np.random.default_rng(4), 300)
    index = index_of(tmp_path, ids, vectors_ND)
    query = np.array([0.0, 1.0], np.float32)
    allowed_N = ids > 101
    expected = list(range(103, 600, 2))[:40]
    assert index.search(query, 40, allowed_N).movie_ids.tolist() == expected
    assert index.search(query, 3).movie_ids.tolist() == [1, 3, 5]


@pytest.mark.parametrize("step", [3, 10**9])
def test_rows_are_found_for_dense_and_for_sparse_ids(tmp_path: Path, step: int) -> None:
    rng = np.random.default_rng(5)
    ids = rng.permutation(np.arange(1, 41)) * np.int64(step)
    index = index_of(tmp_path, ids, np.eye(40, dtype=np.float32))
    wanted = np.array([-5, 0, 1, step, 2 * step, 40 * step, 40 * step + 1, 2**62], np.int64)
    expected = [ids.tolist().index(n * step) for n in (1, 2, 40)]
    assert index.rows(wanted).tolist() == expected
    assert index.vectors(wanted).tolist() == np.eye(40)[expected].tolist()
    assert index.rows(np.zeros(0, np.int64)).tolist() == []


def test_nothing_allowed_finds_nothing(tmp_path: Path) -> None:
    index = index_of(tmp_path, np.arange(1, 4), np.eye(3, dtype=np.float32))
    hits = index.search(np.array([1, 0, 0], np.float32), 2, np.zeros(3, bool))
    assert (hits.movie_ids.tolist(), hits.scores.tolist()) == ([], [])


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = index_of(tmp_path, np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
    assert index.search(np.array([1, 0, 0], np.float32), 2).movie_ids.tolist() == []
    assert index.rows(np.array([1])).tolist() == []


def test_a_kind_that_is_not_implemented_is_refused(tmp_path: Path) -> None:
    message = "kind 'annoy' is not served here; export the bundle with one of exact, ivf, "
    with pytest.raises(BundleError, match=message):
        Index(draft_of(tmp_path, np.arange(1, 4), np.eye(3, dtype=np.float32), claimed=Spec("annoy", {})))
