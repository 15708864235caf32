"""Movies in clusters, whose nearest are known by plain arithmetic, and what any index over them must always do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from marquee.engine.index import EXACT_MATCHING, Hits, Index, Mask, Quality
from marquee.engine.kinds import EXACT, HNSW, IVF, IVF_FP16, IVF_SQ8, Spec
from marquee.features import Floats, Int64s

MOVIES, DIMENSION, CLUSTERS = 10_000, 16, 60
_LISTS = {"nlist": 64, "nprobe": 16}
SPECS = {
    EXACT: Spec(EXACT, {}),
    IVF: Spec(IVF, _LISTS),
    IVF_FP16: Spec(IVF_FP16, _LISTS),
    IVF_SQ8: Spec(IVF_SQ8, _LISTS),
    HNSW: Spec(HNSW, {"m": 16, "ef_construction": 60, "ef_search": 300}),
}
DECADES = (1.0, 0.1, 0.01, 0.001, 0.0001)
# Scores are float32, rounded to 1e-6: two sums of the same numbers may differ by that.
ROUNDING = 2e-6


class World(NamedTuple):
    """Holds movies in clusters, and the directions of those."""

    ids: Int64s
    vectors_ND: Floats
    centres: Floats

    def query(self, rng: np.random.Generator) -> Floats:
        """Draws somebody who likes two clusters."""
        return unit(self.centres[rng.integers(0, CLUSTERS, 2)].sum(axis=0) + 0.3 * rng.standard_normal(DIMENSION))

    def mask(self, rng: np.random.Generator, selectivity: float, query_D: Floats, towards: float) -> Mask:
        """Allows so many movies: at random, or the more the nearer to the query, or the farther from it."""
        lot_N = towards * 20 * (self.vectors_ND @ query_D) + rng.gumbel(size=MOVIES)
        mask_N = np.zeros(MOVIES, bool)
        mask_N[np.argsort(-lot_N)[: max(1, round(selectivity * MOVIES))]] = True
        return mask_N


def unit(vectors: np.ndarray) -> Floats:
    found: Floats = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return found


def make_world() -> World:
    """Draws the movies."""
    rng = np.random.default_rng(7)
    centres = unit(rng.standard_normal((CLUSTERS, DIMENSION)))
    vectors_ND = unit(centres[rng.integers(0, CLUSTERS, MOVIES)] + 0.15 * rng.standard_normal((MOVIES, DIMENSION)))
    return World(rng.permutation(MOVIES).astype(np.int64) + 1, vectors_ND, centres)


def twin(world: World, query_D: Floats, k: int, mask_N: Mask | None) -> Hits:
    """Compares every vector that is allowed, in double precision."""
    rows = np.arange(MOVIES) if mask_N is None else np.flatnonzero(mask_N)
    scores = np.round(world.vectors_ND[rows].astype(np.float64) @ query_D, 6)
    order = np.lexsort((world.ids[rows], -scores))[:k]
    return Hits(world.ids[rows[order]], scores[order].astype(np.float32))


def share_found(found: Hits, truth: Hits) -> float:
    return float(np.count_nonzero(found.scores >= truth.scores[-1] - ROUNDING)) / len(truth.scores)


# Seed, share of the movies that are allowed, whether these are near the query, k, quality.
Case = tuple[int, float, float, int, Quality]
cases = st.tuples(
    st.integers(0, 2**32 - 1),
    st.sampled_from(DECADES) | st.floats(0.0001, 1.0),
    st.sampled_from((-1.0, 0.0, 1.0)),
    st.integers(1, 1000),
    st.sampled_from(Quality),
)


def check_what_always_holds(world: World, index: Index, case: Case) -> None:
    """Searches once: the list is full, of movies that are allowed, in order, with their scores."""
    seed, selectivity, towards, k, quality = case
    rng = np.random.default_rng(seed)
    query_D = world.query(rng)
    mask_N = world.mask(rng, selectivity, query_D, towards) if selectivity < 1 else None
    found, truth = index.search(query_D, k, mask_N, quality), twin(world, query_D, k, mask_N)
    assert len(found.movie_ids) == len(truth.movie_ids)
    rows = index.rows(found.movie_ids)
    assert mask_N is None or bool(mask_N[rows].all())
    assert len(set(rows.tolist())) == len(rows)
    np.testing.assert_allclose(found.scores, world.vectors_ND[rows] @ query_D, atol=ROUNDING)
    assert np.array_equal(np.lexsort((found.movie_ids, -found.scores)), np.arange(len(rows)))
    if quality is Quality.EXACT or index.kind == EXACT or index.path_of(mask_N, quality) == EXACT_MATCHING:
        np.testing.assert_allclose(found.scores, truth.scores, atol=ROUNDING)
