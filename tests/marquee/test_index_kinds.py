"""Every kind of index against one plain twin in NumPy: what it must always do, and how much of the truth it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee.bundle.format import INDEX, ITEM_VECTORS, MOVIE_IDS
from marquee.bundle.gate import check_gate
from marquee.engine.engines import Allowed
from marquee.engine.index import EXACT_AFTER_ALL, EXACT_MATCHING, Index, Quality
from marquee.engine.kinds import EXACT, HNSW, IVF, IVF_FP16, IVF_SQ8, KINDS, Spec, build_index, write_index
from marquee.errors import BundleError
from marquee.features import Floats, Int64s
from tests.bundles import draft_of, make_bundle
from tests.index_worlds import (
    DECADES,
    DIMENSION,
    MOVIES,
    ROUNDING,
    SPECS,
    Case,
    World,
    cases,
    check_what_always_holds,
    make_world,
    share_found,
    twin,
    unit,
)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def indexes(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Index]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    return {kind: Index(draft_of(folders[kind], world.ids, world.vectors_ND, SPECS[kind])) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases)
def test_what_every_kind_always_does(world: World, indexes: dict[str, Index], kind: str, case: Case) -> None:
    check_what_always_holds(world, indexes[kind], case)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("towards", [0.0, 1.0, -1.0], ids=["at random", "near the query", "far from it"])
@pytest.mark.parametrize("selectivity", [*DECADES, 0.95, 0.5, 0.03])
def test_recall_in_every_decade_of_selectivity(
    world: World, indexes: dict[str, Index], kind: str, selectivity: float, towards: float
) -> None:
    rng, shares = np.random.default_rng(11), []
    for _ in range(12):
        query_D = world.query(rng)
        mask_N = world.mask(rng, selectivity, query_D, towards)
        shares.append(share_found(indexes[kind].search(query_D, 100, mask_N), twin(world, query_D, 100, mask_N)))
    assert np.mean(shares) >= (1.0 if kind == EXACT else 0.99)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(batch=st.lists(cases, min_size=1, max_size=20))
def test_many_searches_find_what_each_finds_to_the_bit(
    world: World, indexes: dict[str, Index], kind: str, batch: list[Case]
) -> None:
    index, queries, ks, masks = indexes[kind], [], [], []
    for seed, selectivity, towards, k, _ in batch:
        rng = np.random.default_rng(seed)
        queries.append(world.query(rng))
        ks.append(k)
        masks.append(world.mask(rng, selectivity, queries[-1], towards) if selectivity < 1 else None)
    # The same query may be there with several masks, and nothing may match.
    queries.append(queries[0])
    ks.append(ks[0])
    masks.append(np.zeros(MOVIES, bool))
    kept = [None if mask is None else mask.copy() for mask in masks]
    found = index.search_many(np.stack(queries), ks, masks)
    for at, hits in enumerate(found):
        alone = index.search(queries[at], ks[at], kept[at])
        assert hits.movie_ids.tolist() == alone.movie_ids.tolist()
        assert hits.scores.tobytes() == alone.scores.tobytes()


@pytest.mark.parametrize("selectivity", [1.0, 0.95, 0.9])
def test_a_long_list_begins_as_a_short_one_to_the_bit(
    world: World, indexes: dict[str, Index], selectivity: float
) -> None:
    rng, index = np.random.default_rng(31), indexes[EXACT]
    # From 23 on, all scores of 10,000 x 16 are compared at once, and FAISS proposes the others.
    for _ in range(20):
        query_D = world.query(rng)
        mask_N = world.mask(rng, selectivity, query_D, 1.0) if selectivity < 1 else None
        longest = index.search(query_D, 600, mask_N)
        assert len(longest.movie_ids) == 600
        for k in (1, 22, 23, 200):
            found = index.search(query_D, k, mask_N)
            assert found.movie_ids.tolist() == longest.movie_ids[:k].tolist()
            assert found.scores.tobytes() == longest.scores[:k].tobytes()


def test_ties_at_the_end_of_a_list_go_by_id_in_a_batch_too(tmp_path: Path) -> None:
    """Two thousand equal vectors: whichever the engine proposes, the smallest ids are shown."""
    rng = np.random.default_rng(4)
    ids, vector_D = rng.permutation(2000) + 1, unit(rng.standard_normal(DIMENSION))
    index = Index(draft_of(tmp_path, ids, np.tile(vector_D, (2000, 1))))
    found = index.search_many(np.tile(vector_D, (3, 1)), [5, 100, 2000], [None, None, None])
    assert [hits.movie_ids.tolist() for hits in found] == [list(range(1, k + 1)) for k in (5, 100, 2000)]


def test_what_half_precision_cannot_tell_apart_an_exact_index_does(tmp_path: Path) -> None:
    """Three thousand movies whose cosines lie within the error of half precision."""
    rng = np.random.default_rng(6)
    query_D = unit(rng.standard_normal(DIMENSION))
    drawn_ND = rng.standard_normal((3000, DIMENSION))
    across_ND = unit(drawn_ND - np.outer(drawn_ND @ query_D, query_D))
    cosines_N = rng.uniform(0.5, 0.5003, (3000, 1))
    vectors_ND = unit(cosines_N * query_D + np.sqrt(1 - cosines_N**2) * across_ND)
    index = Index(draft_of(tmp_path, np.arange(1, 3001), vectors_ND))
    truth = np.sort(np.round(vectors_ND.astype(np.float64) @ query_D, 6))[::-1]
    # Up to 6 FAISS proposes.
    for k in (1, 3, 6, 10, 100, 1000):
        hits = index.search(query_D, k)
        np.testing.assert_allclose(hits.scores, truth[:k], atol=ROUNDING)
        (many, _) = index.search_many(np.stack([query_D, query_D]), [k, k], [None, None])
        assert many.movie_ids.tolist() == hits.movie_ids.tolist()


class Miserly:
    """Proposes one movie, however many are asked for."""

    lost = False

    def propose(self, query_D: Floats, wanted: int, allowed: Allowed | None, *, fast: bool) -> Int64s:
        return np.zeros(1, np.int64)


def test_each_search_is_told_by_what_found_its_movies(tmp_path: Path, world: World) -> None:
    told: list[str] = []
    index = Index(draft_of(tmp_path, world.ids, world.vectors_ND, SPECS[IVF]), told=told.append)
    rng = np.random.default_rng(3)
    query_D = world.query(rng)
    narrow_N, none_N = world.mask(rng, 0.001, query_D, 0.0), np.zeros(MOVIES, bool)
    for mask_N in (None, narrow_N, none_N):
        index.search(query_D, 10, mask_N)
    index.search(query_D, 10, None, Quality.EXACT)
    index.search_many(np.stack([query_D, query_D]), [10, 10], [None, narrow_N])
    found = index.asking("miserly", Miserly()).search(query_D, 10)
    # Where nothing is allowed, nothing is searched.
    assert told == [IVF, EXACT_MATCHING, EXACT, IVF, EXACT_MATCHING, EXACT_AFTER_ALL]
    assert found.movie_ids.tolist() == twin(world, query_D, 10, None).movie_ids.tolist()


def test_searches_in_one_product_are_told_one_by_one(tmp_path: Path, world: World) -> None:
    told: list[str] = []
    index = Index(draft_of(tmp_path, world.ids, world.vectors_ND), told=told.append)
    queries_QD = np.stack([world.query(np.random.default_rng(seed)) for seed in range(3)])
    index.search_many(queries_QD, [10, 10, 10], [None, None, None])
    assert told == [EXACT] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_ever_more_is_found_by_quality(world: World, indexes: dict[str, Index], kind: str) -> None:
    rng = np.random.default_rng(2)
    queries = [world.query(rng) for _ in range(40)]
    fast, balanced, exact = (
        np.mean(
            [
                share_found(indexes[kind].search(query, 100, None, quality), twin(world, query, 100, None))
                for query in queries
            ]
        )
        for quality in (Quality.FAST, Quality.BALANCED, Quality.EXACT)
    )
    assert fast <= balanced <= exact == 1.0
    assert (fast < 1.0) == (kind != EXACT)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != EXACT])
def test_a_search_that_comes_by_too_few_looks_everywhere(world: World, tmp_path: Path, kind: str) -> None:
    spec = SPECS[kind]
    narrow = spec._replace(parameters=spec.parameters | ({"ef_search": 1} if kind == HNSW else {"nprobe": 1}))
    index = Index(draft_of(tmp_path, world.ids[:2000], world.vectors_ND[:2000], narrow))
    query_D = world.query(np.random.default_rng(1))
    assert len(index.search(query_D, 1000, None, Quality.FAST).movie_ids) == 1000
    assert len(index.search(query_D, 2000).movie_ids) == 2000


def test_the_path_is_told(world: World, indexes: dict[str, Index]) -> None:
    few, many = np.arange(MOVIES) < 60, np.arange(MOVIES) < 9500
    assert [indexes[IVF].path_of(mask) for mask in (None, few, many)] == ["ivf", EXACT_MATCHING, "ivf"]
    assert [indexes[EXACT].path_of(mask) for mask in (None, few, many)] == ["exact", EXACT_MATCHING, "exact"]
    exactly = [indexes[HNSW].path_of(mask, Quality.EXACT) for mask in (None, few, many)]
    assert exactly == ["exact", EXACT_MATCHING, EXACT_MATCHING]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_give_equal_bytes(world: World, kind: str) -> None:
    one = faiss.serialize_index(build_index(world.vectors_ND[:3000], SPECS[kind]))
    faiss.omp_set_num_threads(2)
    other = faiss.serialize_index(build_index(world.vectors_ND[:3000].copy(), SPECS[kind]))
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_of_any_kind_answers_its_probes(tmp_path: Path, kind: str) -> None:
    small = {"nlist": 5, "nprobe": 4, "m": 4, "ef_construction": 20, "ef_search": 20}
    spec = Spec(kind, {name: small[name] for name in SPECS[kind].parameters})
    bundle = make_bundle(tmp_path / "bundle", movies=80, index=spec)
    Index(bundle).probe(bundle)
    check_gate(bundle, None)
    assert make_bundle(tmp_path / "again", movies=80, index=spec).id == bundle.id
    assert make_bundle(tmp_path / "exact", movies=80).space == bundle.space


def test_an_index_that_misses_what_the_probes_found_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", movies=600, index=Spec(IVF, {"nlist": 20, "nprobe": 1}))
    with pytest.raises(BundleError, match=r"the ivf index finds \d+ of the \d+ movies of the probes: do not serve it"):
        Index(bundle).probe(bundle)


def refused(draft_folder: Path, world: World, built: Spec, claimed: Spec | None = None) -> str:
    with pytest.raises(BundleError) as error:
        Index(draft_of(draft_folder, world.ids[:1000], world.vectors_ND[:1000], built, claimed))
    assert error.value.message.startswith(str(draft_folder / INDEX))
    return error.value.message


@pytest.mark.parametrize("claimed", KINDS)
@pytest.mark.parametrize("built", KINDS)
def test_an_index_of_another_kind_is_refused(tmp_path: Path, world: World, built: str, claimed: str) -> None:
    if built != claimed:
        message = refused(tmp_path, world, SPECS[built], SPECS[claimed])
        assert f"is no {claimed} index by inner product; publish the bundle again" in message


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_over_other_vectors_or_rows_is_refused(tmp_path: Path, world: World, kind: str) -> None:
    draft = draft_of(tmp_path, world.ids[:1000], world.vectors_ND[:1000], SPECS[kind])
    for others in (world.vectors_ND[1000:2000], np.roll(world.vectors_ND[:1000], 1, axis=0)):
        write_index(draft.file(INDEX), others, SPECS[kind])
        with pytest.raises(BundleError, match=r"row 0 is not the vector in item_vectors\.npy; publish"):
            Index(draft)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_of_other_sizes_or_cut_off_is_refused(tmp_path: Path, world: World, kind: str) -> None:
    draft = draft_of(tmp_path, world.ids[:1000], world.vectors_ND[:1000], SPECS[kind])
    file = draft.file(INDEX)
    for others in (world.vectors_ND[:999], world.vectors_ND[:1000, :8]):
        write_index(file, others, SPECS[kind])
        with pytest.raises(BundleError, match=r"holds .* the bundle 1000 of length 16; publish the bundle again"):
            Index(draft)
    write_index(file, world.vectors_ND[:1000], SPECS[kind])
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BundleError, match="FAISS cannot open it"):
        Index(draft)


@pytest.mark.parametrize(("kind", "name"), [(IVF, "nlist"), (IVF_FP16, "nlist"), (IVF_SQ8, "nlist"), (HNSW, "m")])
def test_parameters_that_are_not_the_files_are_refused(tmp_path: Path, world: World, kind: str, name: str) -> None:
    spec = SPECS[kind]
    other = spec._replace(parameters=spec.parameters | {name: 32})
    assert f"has {name} = {spec.parameters[name]}, the manifest says 32" in refused(tmp_path, world, spec, other)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None, True, [8], 2.0**40])
def test_parameters_that_are_no_numbers_are_refused(tmp_path: Path, world: World, value: Any) -> None:
    draft = draft_of(tmp_path, world.ids[:1000], world.vectors_ND[:1000], SPECS[IVF])
    draft.manifest.index.parameters.update({"nprobe": value})
    with pytest.raises(BundleError, match=f"{INDEX}: nprobe of the ivf index is .*, which is no whole number from 1"):
        Index(draft)
    del draft.manifest.index.parameters.fields["nprobe"]
    with pytest.raises(BundleError, match="nprobe of the ivf index is None"):
        Index(draft)


def test_lists_that_hold_a_movie_twice_are_refused(tmp_path: Path, world: World) -> None:
    draft = draft_of(tmp_path, world.ids[:1000], world.vectors_ND[:1000], SPECS[IVF])
    rows = np.arange(1000)
    rows[500] = 501
    index = build_index(world.vectors_ND[:1000], SPECS[IVF])
    index.reset()
    index.add_with_ids(world.vectors_ND[:1000], rows)
    faiss.write_index(index, str(draft.file(INDEX)))
    with pytest.raises(BundleError, match="its lists do not hold each of 1000 movies once"):
        Index(draft)


def test_more_lists_than_movies_are_refused_when_they_are_built(world: World) -> None:
    with pytest.raises(BundleError, match="cannot spread 63 movies over nlist = 64 lists; export the bundle with kind"):
        build_index(world.vectors_ND[:63], SPECS[IVF])


def test_files_are_read_as_they_are(tmp_path: Path, world: World) -> None:
    draft = draft_of(tmp_path, world.ids, world.vectors_ND, SPECS[IVF_SQ8])
    assert {file.name for file in tmp_path.iterdir()} == {INDEX, ITEM_VECTORS, MOVIE_IDS}
    assert draft.file(INDEX).stat().st_size < 0.8 * draft.file(ITEM_VECTORS).stat().st_size
