"""The item index, run by FAISS. N movies, Q queries, D dimension."""

from __future__ import annotations

from typing import NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from marquee.bundle.format import INDEX, ITEM_VECTORS, MOVIE_IDS, Bundle
from marquee.bundle.probes import TOP, read_probes
from marquee.errors import BundleError
from marquee.features import Floats, Int64s

Mask = npt.NDArray[np.bool_]

# Extra candidates that are rescored with the k wanted, so that rounding at the end of the list is settled by the
# rescoring and not by the engine.
_SLACK = 16
# How far a rounded score may lie from the one that the engine ranked by: half a rounding step and float32's noise.
_NOISE = 2e-6
# A table from id to row is kept where the largest id is at most this many times the number of movies.
_SPARSE = 64


class Hits(NamedTuple):
    """Holds the nearest movies of one query: descending score, then ascending id."""

    movie_ids: Int64s
    scores: Floats


def use_threads(threads: int) -> None:
    """Sets how many threads FAISS may use when the calling thread searches; OpenMP keeps this for each thread."""
    faiss.omp_set_num_threads(threads)


class Index:
    """Finds the nearest movies to a query vector, exactly, among those that a mask allows."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.space = bundle.space
        self.movie_ids: Int64s = np.asarray(bundle.array(MOVIE_IDS), np.int64)
        self._vectors_ND: Floats = np.ascontiguousarray(bundle.array(ITEM_VECTORS), np.float32)
        self._index = _open_index(bundle, len(self.movie_ids))
        if self._vectors_ND.shape != (self.count, bundle.features.dimension):
            raise BundleError(
                f"{bundle.file(ITEM_VECTORS)}: is {self._vectors_ND.shape}, the bundle has {self.count} movies and "
                f"{bundle.features.dimension} dimensions; export the bundle again"
            )
        self._rows = _RowsOfIds(self.movie_ids)
        use_threads(threads)

    @property
    def dimension(self) -> int:
        """Says how long a vector is."""
        return int(self._vectors_ND.shape[1])

    @property
    def count(self) -> int:
        """Says how many movies there are."""
        return len(self.movie_ids)

    def rows(self, movie_ids: Int64s) -> Int64s:
        """Looks up the rows of movie ids; ids that are not in the index are left out."""
        rows = self._rows.find(movie_ids)
        return rows[rows >= 0]

    def vectors(self, movie_ids: Int64s) -> Floats:
        """Reads the vectors of movies, [n, D], leaving out those that are not in the index."""
        return self._vectors_ND[self.rows(movie_ids)]

    def search(self, query_D: Floats, k: int, allowed_N: Mask | None = None) -> Hits:
        """Finds min(k, allowed) movies; `query_D` must have L2 norm 1."""
        if self.count == 0:
            return Hits(self.movie_ids, np.zeros(0, np.float32))
        query_1D = query_D[None]
        parameters = _only(allowed_N)
        wanted = min(k + _SLACK, self.count)
        while True:
            rows = self._index.search(query_1D, wanted, params=parameters)[1][0]
            hits, settled = self._rescore(query_D, rows[rows >= 0], k)  # FAISS pads short answers with -1
            if settled or wanted == self.count or rows[-1] < 0:
                return hits
            # More movies than the slack lie at the end of the list, within rounding: ids must decide between them all.
            wanted = min(8 * wanted, self.count)

    def search_batch(self, queries_QD: Floats, ks: list[int], allowed: list[Mask | None]) -> list[Hits]:
        """Finds the movies of Q queries, each with its own k and mask; equal to Q single searches, to the bit.

        One by one: on one thread FAISS's batched scan took 74 µs a query over 9,724 × 64, the single one 56 µs.
        """
        return [
            self.search(query_D, k, allowed_N) for query_D, k, allowed_N in zip(queries_QD, ks, allowed, strict=True)
        ]

    def _rescore(self, query_D: Floats, rows: Int64s, k: int) -> tuple[Hits, bool]:
        """Orders candidates by rounded score and id; also says whether no movie outside them can belong in between."""
        scores = np.round(np.einsum("nd,d->n", self._vectors_ND[rows], query_D), 6).astype(np.float32, copy=False)
        ids = self.movie_ids[rows]
        order = np.lexsort((ids, -scores))
        best = order[:k]
        settled = len(order) > k and bool(scores[order[-1]] + _NOISE < scores[best[-1]])
        return Hits(ids[best], scores[best]), settled

    def probe(self, bundle: Bundle) -> None:
        """Replays the bundle's probes: each recorded vector must find its recorded movies, but for ties."""
        probes = read_probes(bundle)
        for number, (vector, expected) in enumerate(zip(probes.vectors, probes.top_ids, strict=True)):
            found = self.search(vector, TOP)
            wanted = expected[expected >= 0]
            if not np.array_equal(found.movie_ids, wanted) and not self._tied(vector, found, wanted):
                raise BundleError(
                    f"{bundle.file(INDEX)}: probe {number} finds {found.movie_ids.tolist()}, "
                    f"the export found {wanted.tolist()}: do not serve it"
                )

    def _tied(self, vector: Floats, found: Hits, wanted: Int64s) -> bool:
        scores = np.sort(self.vectors(wanted) @ vector)[::-1]
        return len(scores) == len(found.scores) and bool(np.allclose(scores, found.scores, atol=2e-6))


class _RowsOfIds:
    """Finds rows by movie id: in a table where ids are dense enough (2 µs for 2,700 ids), else by bisection (30 µs)."""

    def __init__(self, movie_ids: Int64s) -> None:
        self._order = np.argsort(movie_ids, kind="stable")
        self._sorted = movie_ids[self._order]
        self._table: Int64s | None = None
        if len(movie_ids) and self._sorted[0] > 0 and self._sorted[-1] <= _SPARSE * len(movie_ids):
            # Ids outside are clipped to the first and the last entry, where no movie is.
            self._table = np.full(self._sorted[-1] + 2, -1, np.int64)
            self._table[movie_ids] = np.arange(len(movie_ids))

    def find(self, movie_ids: Int64s) -> Int64s:
        """Finds the row of each id, -1 where there is none."""
        if self._table is not None:
            return self._table.take(movie_ids, mode="clip")
        if len(self._sorted) == 0:
            return np.full(len(movie_ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, movie_ids), len(self._sorted) - 1)
        return np.where(self._sorted[at] == movie_ids, self._order[at], -1)


def _only(allowed_N: Mask | None) -> faiss.SearchParameters | None:
    if allowed_N is None:
        return None
    bits = np.packbits(allowed_N, bitorder="little")
    parameters = faiss.SearchParameters()
    parameters.sel = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    # The selector points into `bits` and does not keep it.
    parameters.bits = bits  # type: ignore[attr-defined]
    return parameters


def _open_index(bundle: Bundle, movies: int) -> faiss.Index:
    path = bundle.file(INDEX)
    kind = bundle.manifest.index.kind
    if kind != "exact":
        raise BundleError(f"{path}: an index of kind {kind!r} is not served here; export the bundle with kind exact")
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise BundleError(f"{path}: FAISS cannot open it ({error}); publish the bundle again") from error
    if index.ntotal != movies or index.d != bundle.features.dimension:
        raise BundleError(
            f"{path}: holds {index.ntotal} vectors of length {index.d}, the bundle {movies} of length "
            f"{bundle.features.dimension}; publish the bundle again"
        )
    return index


def write_index(path: str, vectors_ND: Floats) -> None:
    """Builds an exact inner-product index over L2-normalised vectors and writes it."""
    index = faiss.IndexFlatIP(vectors_ND.shape[1])
    index.add(np.ascontiguousarray(vectors_ND, np.float32))
    faiss.write_index(index, path)
