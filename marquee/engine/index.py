"""The item index: the nearest movies to a query, always as many as there are. N movies, Q queries, D dimension."""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import faiss
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from marquee.bundle.format import INDEX, ITEM_VECTORS, MOVIE_IDS, Bundle
from marquee.bundle.probes import TOP, read_probes
from marquee.engine.engines import HALF_NOISE, Allowed, Engine, Flat, Nowhere, nearest_of, open_engine
from marquee.engine.engines import Mask as Mask
from marquee.engine.kinds import EXACT, HNSW, IVF, IVF_FP16, IVF_SQ8, read_spec
from marquee.errors import BundleError
from marquee.features import Floats, HistoryIndex, Int64s

# Extra candidates that are rescored with the k wanted, so that rounding at the end of the list is settled by the
# rescoring and not by the engine.
_SLACK = 16
# Scores are rounded to steps of 1e-6.
_STEPS = np.float32(1e6)
# How far a rounded score may lie from the one that the engine ranked by: half a rounding step and float32's noise.
ROUNDING = 2e-6
# What `path_of` says of a scan of what is allowed; EXACT is one of every vector.
EXACT_MATCHING = "exact over the matching"
# What `told` hears of a search whose index found too few, so that all that is allowed was compared.
EXACT_AFTER_ALL = "exact after too few"
# Up to this share of the movies, what is allowed is compared row by row. Over 9,724 × 64 that takes 9 ns a row, as does
# FAISS's scan of all, where a selector costs a fifth more; over a million, where rows lie in memory and not in a cache,
# 16 to 20 ns and as much to list them, which is as long as lists take at about 2 %.
_SCANNED = {EXACT: 0.8, IVF: 0.02, IVF_FP16: 0.02, IVF_SQ8: 0.02}
# The same of an index that is asked over a network: it costs a round trip, and many candidates that are not allowed.
_SCANNED_ELSEWHERE = 0.05
# A graph is asked for as many more movies as are not allowed, up to so many: with FAISS's selector it found half of the
# nearest under a filter that went against the query.
_MOST_WALKED_OVER = 1000
# Comparing so few costs less than any search.
_ALWAYS_SCANNED = 250
# Queries that are compared in one matrix product: more gain little. And its multiplications, about half a millisecond,
# after which other calls get their turn.
_TOGETHER = 16
_PRODUCT = _TOGETHER * 10_000 * 64
# Up to so many floats for each movie of a list, all scores at once and a partition cost less than FAISS's heap: over
# 9,742 movies a list of 500 takes 0.44 of the time at 64 dimensions, and 0.59 at 128.
_FLOATS_A_HIT = 7_000
# Share of the probes' movies that an index must find, to be taken for the one that was exported.
_PROBES_FOUND = 0.8


Proposer = Callable[[int], Int64s]


def _nobody(path: str) -> None:
    """Hears of a search where nobody asked to be told."""


class Hits(NamedTuple):
    """Holds the nearest movies of one query: descending score, then ascending id."""

    movie_ids: Int64s
    scores: Floats


def use_threads(threads: int) -> None:
    """Sets how many threads FAISS may use when the calling thread searches; OpenMP keeps this for each thread."""
    faiss.omp_set_num_threads(threads)


def use_blas_threads(threads: int) -> None:
    """Sets how many threads one matrix product may use, in the whole process: `search_many` makes them."""
    threadpool_limits(threads, "blas")


class Quality(enum.Enum):
    """Says how hard to look: at every vector, as the export tuned it, or at half of that."""

    EXACT = enum.auto()
    BALANCED = enum.auto()
    FAST = enum.auto()


class Index:
    """Finds the nearest movies to a query vector among those that a mask allows.

    With `from_file` False the bundle's index stays closed, and vectors are compared where they are mapped: for movies
    that are looked for elsewhere (`asking`). `told` hears of each search what found its movies: what `path_of` says, or
    EXACT_AFTER_ALL.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int = 1, from_file: bool = True, told: Callable[[str], None] = _nobody
    ) -> None:
        self.space = bundle.space
        self._told = told
        self.movie_ids: Int64s = np.asarray(bundle.array(MOVIE_IDS), np.int64)
        # Mapped: of an approximate index, only what is rescored is ever read.
        self._vectors_ND: Floats = np.ascontiguousarray(bundle.array(ITEM_VECTORS), np.float32)
        if self._vectors_ND.shape != (self.count, bundle.features.dimension):
            raise BundleError(
                f"{bundle.file(ITEM_VECTORS)}: is {self._vectors_ND.shape}, the bundle has {self.count} movies and "
                f"{bundle.features.dimension} dimensions; export the bundle again"
            )
        self.kind = EXACT
        self._engine: Engine = Nowhere()
        if from_file:
            self._open(bundle)
        self._rows = HistoryIndex(self.movie_ids)
        use_threads(threads)

    def _open(self, bundle: Bundle) -> None:
        spec = read_spec(bundle.manifest.index, bundle.file(INDEX))
        self.kind = spec.kind
        self._engine = open_engine(bundle.file(INDEX), spec, self._vectors_ND)
        if isinstance(self._engine, Flat):
            # The scan has just read them: rescoring finds them in the cache, and they are in memory once.
            self._vectors_ND = self._engine.stored()

    def asking(self, kind: str, engine: Engine) -> Index:
        """Makes an index over the same movies that has its candidates from another engine; `kind` is for `path_of`."""
        other = copy.copy(self)
        other.kind, other._engine = kind, engine
        return other

    @property
    def dimension(self) -> int:
        """Says how long a vector is."""
        return int(self._vectors_ND.shape[1])

    @property
    def count(self) -> int:
        """Says how many movies there are."""
        return len(self.movie_ids)

    @property
    def together(self) -> int:
        """Says how many queries `search_many` is best given at once."""
        if self.kind != EXACT:
            return 1
        return max(1, min(_TOGETHER, _PRODUCT // max(1, self._vectors_ND.size)))

    def rows(self, movie_ids: Int64s) -> Int64s:
        """Looks up the rows of movie ids; ids that are not in the index are left out."""
        rows = self._rows.rows(movie_ids)
        return rows[rows >= 0]

    def vectors(self, movie_ids: Int64s) -> Floats:
        """Reads the vectors of movies, [n, D], leaving out those that are not in the index."""
        return self._vectors_ND[self.rows(movie_ids)]

    def matching(self, allowed_N: Mask | None) -> int:
        """Counts the movies that a mask allows, None being the one that allows all."""
        return self.count if allowed_N is None else int(np.count_nonzero(allowed_N))

    def search(
        self, query_D: Floats, k: int, allowed_N: Mask | None = None, quality: Quality = Quality.BALANCED
    ) -> Hits:
        """Finds min(k, allowed) movies; `query_D` must have L2 norm 1.

        A search that is not exact and comes by fewer is done again over everything that is allowed.
        """
        matching = self.matching(allowed_N)
        if matching == 0:
            return Hits(self.movie_ids[:0], np.zeros(0, np.float32))
        path = self._path(matching, quality)
        if path == EXACT == self.kind and self._vectors_ND.size <= _FLOATS_A_HIT * k:
            return self._best_of(self._vectors_ND @ query_D, query_D, k, matching, allowed_N)
        allowed = None if allowed_N is None or matching == self.count else Allowed(allowed_N, matching)
        scan = partial(self._scan, query_D, allowed)
        if path != self.kind:
            self._told(path)
            return self._settle(query_D, k, matching, scan)
        propose = partial(self._engine.propose, query_D, allowed=allowed, fast=quality is Quality.FAST)
        # An outsider may be better than it looked, and the last candidate worse.
        noise = 2 * HALF_NOISE if isinstance(self._engine, Flat) else 0.0
        hits = self._settle(query_D, k, matching, propose, noise)
        whole = len(hits.movie_ids) == min(k, matching)
        self._told(path if whole else EXACT_AFTER_ALL)
        return hits if whole else self._settle(query_D, k, matching, scan)

    def search_many(self, queries_QD: Floats, ks: Sequence[int], allowed: Sequence[Mask | None]) -> list[Hits]:
        """Finds the movies of Q queries, each with its k and its mask: what `search` finds, to the bit.

        With an exact index those that are compared with every vector are so in one matrix product: over 9,724 × 64, for
        16 queries, that takes a third of the time of FAISS's scans.
        """
        counts = [self.matching(allowed_N) for allowed_N in allowed]
        together = [at for at, matching in enumerate(counts) if self._is_compared_with_all(matching)]
        found: dict[int, Hits] = {}
        if len(together) > 1:
            scores_QN = queries_QD[together] @ self._vectors_ND.T
            for at, scores_N in zip(together, scores_QN, strict=True):
                found[at] = self._best_of(scores_N, queries_QD[at], ks[at], counts[at], allowed[at])
        return [
            found[at] if at in found else self.search(query_D, ks[at], allowed[at])
            for at, query_D in enumerate(queries_QD)
        ]

    def _best_of(self, scores_N: Floats, query_D: Floats, k: int, matching: int, allowed_N: Mask | None) -> Hits:
        """Picks from the scores of all movies, which it may overwrite."""
        self._told(EXACT)
        rows = _contenders(scores_N, min(k, matching), allowed_N)
        return self._rescore(query_D, rows, k)[0]

    def _is_compared_with_all(self, matching: int) -> bool:
        return self.kind == EXACT and matching > 0 and self._path(matching, Quality.BALANCED) == EXACT

    def path_of(self, allowed_N: Mask | None, quality: Quality = Quality.BALANCED) -> str:
        """Names what looks for movies first: EXACT, EXACT_MATCHING, or the kind of the index."""
        return self._path(self.matching(allowed_N), quality)

    def _path(self, matching: int, quality: Quality) -> str:
        if matching < self.count and self._is_scanned(matching):
            return EXACT_MATCHING
        if self.kind == EXACT or not (quality is Quality.EXACT or self._engine.lost):
            return self.kind
        return EXACT if matching == self.count else EXACT_MATCHING

    def _is_scanned(self, matching: int) -> bool:
        if self.kind == HNSW:
            return self.count - matching > _MOST_WALKED_OVER
        return matching <= max(_ALWAYS_SCANNED, _SCANNED.get(self.kind, _SCANNED_ELSEWHERE) * self.count)

    def _scan(self, query_D: Floats, allowed: Allowed | None, wanted: int) -> Int64s:
        """Compares the vectors of everything that is allowed."""
        if allowed is None:
            return _nearest(query_D, self._vectors_ND, wanted)
        return nearest_of(query_D, self._vectors_ND, allowed.rows(), wanted)

    def _settle(self, query_D: Floats, k: int, matching: int, propose: Proposer, noise: float = 0.0) -> Hits:
        """Asks for candidates until ids have decided between all that lie at the end of the list, within rounding.

        `noise` is how far what was not proposed may lie above the last that was, beside rounding.
        """
        wanted = min(k + _SLACK + k // _SLACK, matching)
        while True:
            rows = propose(wanted)
            hits, below = self._rescore(query_D, rows, k)
            if below > noise + ROUNDING or wanted == matching or len(rows) < wanted:
                return hits
            wanted = min(8 * wanted, matching)

    def _rescore(self, query_D: Floats, rows: Int64s, k: int) -> tuple[Hits, float]:
        """Orders candidates by rounded score and id; also says how far the last one lies below the last of the list."""
        vectors_nD = self._vectors_ND.take(rows, axis=0)
        # A row's sum is the same whatever rows are beside it; a matrix product's is not.
        scores = _rounded(np.einsum("nd,d->n", vectors_nD, query_D))
        ids = self.movie_ids.take(rows)
        order = np.lexsort((ids, -scores))
        best = order[:k]
        below = float(scores[best[-1]] - scores[order[-1]]) if len(order) else 0.0
        return Hits(ids[best], scores[best]), below

    def probe(self, bundle: Bundle) -> None:
        """Replays the bundle's probes: each recorded vector must find its recorded movies, but for ties.

        They were recorded exactly. A search that is not exact must find most of them, over all probes.
        """
        probes = read_probes(bundle)
        found, recorded = 0, 0
        for number, (vector, expected) in enumerate(zip(probes.vectors, probes.top_ids, strict=True)):
            exact, wanted = self.search(vector, TOP, quality=Quality.EXACT), expected[expected >= 0]
            if not np.array_equal(exact.movie_ids, wanted) and not self._tied(vector, exact, wanted):
                raise BundleError(
                    f"{bundle.file(INDEX)}: probe {number} finds {exact.movie_ids.tolist()}, "
                    f"the export found {wanted.tolist()}: do not serve it"
                )
            balanced = exact if self.kind == EXACT else self.search(vector, TOP)
            found += int(np.count_nonzero(balanced.scores >= exact.scores[-1:] - ROUNDING))
            recorded += len(exact.scores)
        if found < _PROBES_FOUND * recorded:
            raise BundleError(
                f"{bundle.file(INDEX)}: the {self.kind} index finds {found} of the {recorded} movies of the probes: "
                "do not serve it; export the bundle again"
            )

    def _tied(self, vector: Floats, found: Hits, wanted: Int64s) -> bool:
        scores = np.sort(self.vectors(wanted) @ vector)[::-1]
        return len(scores) == len(found.scores) and bool(np.allclose(scores, found.scores, atol=ROUNDING))


def _rounded(scores: Floats) -> Floats:
    """Does what np.round does, in half the time."""
    rounded: Floats = np.rint(scores * _STEPS) / _STEPS
    return rounded


def _contenders(scores_N: Floats, wanted: int, allowed_N: Mask | None) -> Int64s:
    """Lists the rows that may be among the `wanted` best once they are rescored; overwrites scores of the rest."""
    if allowed_N is not None:
        scores_N[np.flatnonzero(~allowed_N)] = -np.inf
    first = len(scores_N) - wanted
    # Both the last of the best and what lies below it may move by as much.
    return np.flatnonzero(scores_N >= np.partition(scores_N, first)[first] - 2 * ROUNDING)


def _nearest(query_D: Floats, vectors_ND: Floats, wanted: int) -> Int64s:
    most = min(wanted, len(vectors_ND))
    rows: Int64s = faiss.knn(query_D[None], vectors_ND, most, metric=faiss.METRIC_INNER_PRODUCT)[1][0]
    return rows
