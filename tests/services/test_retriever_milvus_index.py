"""Milvus as one more kind of index: the suite of the others, held to the same twin, with the engine behind a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from marquee.bundle.format import Bundle
from marquee.engine.index import EXACT_MATCHING, Index, Mask
from marquee.engine.kinds import EXACT, HNSW, IVF, Spec
from services.retriever.milvus import MILVUS, Asking, Collection, Milvus
from services.retriever.milvus_filling import search_parameters
from tests.bundles import draft_of
from tests.index_worlds import (
    DECADES,
    MOVIES,
    SPECS,
    Case,
    World,
    cases,
    check_what_always_holds,
    make_world,
    share_found,
    twin,
)
from tests.milvus_rigs import MilvusServer, needs_milvus

pytestmark = needs_milvus

# Of each way to look, one. What Milvus Lite finds says nothing of what a Milvus would.
KINDS = (EXACT, IVF, HNSW)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def milvus(milvus_process: MilvusServer) -> Iterator[Milvus]:
    with milvus_process.connection() as connection:
        assert connection is not None
        yield connection


@pytest.fixture(scope="module")
def indexes(world: World, milvus: Milvus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Index]:
    return {kind: asking(world, milvus, tmp_path_factory.mktemp(kind), SPECS[kind]) for kind in KINDS}


def asking(world: World, milvus: Milvus, folder: Path, spec: Spec) -> Index:
    """Fills a collection, and makes an index that asks it."""
    draft = draft_of(folder, world.ids, world.vectors_ND, spec)
    bundle = Bundle(draft.path, f"{KINDS.index(spec.kind):064x}", draft.manifest)
    return Index(bundle, from_file=False).asking(MILVUS, Asking(Collection(milvus, bundle), None))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(case=cases)
def test_it_does_what_every_kind_always_does(world: World, indexes: dict[str, Index], kind: str, case: Case) -> None:
    check_what_always_holds(world, indexes[kind], case)


@pytest.mark.parametrize("towards", [0.0, 1.0, -1.0], ids=["at random", "near the query", "far from it"])
@pytest.mark.parametrize("selectivity", [*DECADES, 0.95, 0.5, 0.06])
def test_nothing_is_missed_whatever_is_allowed(
    world: World, indexes: dict[str, Index], selectivity: float, towards: float
) -> None:
    rng = np.random.default_rng(11)
    for _ in range(2):
        query_D = world.query(rng)
        mask_N = world.mask(rng, selectivity, query_D, towards)
        assert share_found(indexes[EXACT].search(query_D, 100, mask_N), twin(world, query_D, 100, mask_N)) == 1.0


def allowing(world: World, query_D: np.ndarray, towards: float) -> Mask:
    return world.mask(np.random.default_rng(5), 0.5, query_D, towards)


@pytest.mark.parametrize(("towards", "expected"), [(0.0, 1), (-1.0, 3)], ids=["at random", "far from the query"])
def test_more_are_asked_for_where_few_of_them_are_allowed(
    world: World, indexes: dict[str, Index], monkeypatch: pytest.MonkeyPatch, towards: float, expected: int
) -> None:
    asked: list[int] = []
    plain = Milvus.search

    def counting(self: Milvus, name: str, query_D: np.ndarray, limit: int, *rest: object) -> np.ndarray:
        asked.append(limit)
        return plain(self, name, query_D, limit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Milvus, "search", counting)
    query_D = world.query(np.random.default_rng(6))
    mask_N = allowing(world, query_D, towards)
    found = indexes[EXACT].search(query_D, 100, mask_N)
    assert share_found(found, twin(world, query_D, 100, mask_N)) == 1.0
    # Of half the movies, twice what should do to settle 100 (122), then four times as many again; then all is compared.
    assert asked == [4 * 122, 16 * 122, 4096][:expected]


def test_few_that_are_allowed_are_compared_here(indexes: dict[str, Index]) -> None:
    assert [indexes[EXACT].path_of(np.arange(MOVIES) < count) for count in (60, 500, 501, MOVIES)] == [
        *[EXACT_MATCHING] * 2,
        *[MILVUS] * 2,
    ]


def test_it_looks_as_hard_as_the_bundle_says_and_half_as_hard() -> None:
    assert search_parameters(SPECS[EXACT], 116, fast=False) == {}
    assert [search_parameters(SPECS[IVF], limit, fast=False) for limit in (10, 100, 400, 4096)] == [
        {"nprobe": nprobe} for nprobe in (16, 16, 32, 64)
    ]
    assert search_parameters(SPECS[IVF], 100, fast=True) == {"nprobe": 8}
    assert [search_parameters(SPECS[HNSW], limit, fast=False) for limit in (10, 100, 200)] == [
        {"ef": ef} for ef in (300, 300, 600)
    ]
    # No fewer than it is to find.
    assert search_parameters(Spec(HNSW, {"ef_search": 20}), 116, fast=True) == {"ef": 116}
