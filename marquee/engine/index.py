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

# Extra candidates that are rescored with the k wanted, so that ties and rounding at the end of the list are settled
# by the rescoring and not by the engine.
_SLACK = 16


class Hits(NamedTuple):
    """Holds the nearest movies of one query: descending score, then ascending id."""

    movie_ids: Int64s
    scores: Floats


class Index:
    """Finds the nearest movies to a query vector, exactly, among those that a mask allows."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.space = bundle.space
        self.movie_ids: Int64s = np.asarray(bundle.array(MOVIE_IDS), np.int64)
        self._vectors_ND: Floats = np.ascontiguousarray(bundle.array(ITEM_VECTORS), np.float32)
        self._index = _open_index(bundle, len(self.movie_ids))
        self._order = np.argsort(self.movie_ids, kind="stable")
        self._sorted = self.movie_ids[self._order]
        faiss.omp_set_num_threads(threads)

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
        if self.count == 0 or len(movie_ids) == 0:
            return np.zeros(0, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, movie_ids), self.count - 1)
        rows: Int64s = self._order[at[self._sorted[at] == movie_ids]]
        return rows

    def vectors(self, movie_ids: Int64s) -> Floats:
        """Reads the vectors of movies, [n, D], leaving out those that are not in the index."""
        return self._vectors_ND[self.rows(movie_ids)]

    def search(self, query_D: Floats, k: int, allowed_N: Mask | None = None) -> Hits:
        """Finds min(k, allowed) movies; `query_D` must have L2 norm 1."""
        return self.search_batch(query_D[None], [k], [allowed_N])[0]

    def search_batch(self, queries_QD: Floats, ks: list[int], allowed: list[Mask | None]) -> list[Hits]:
        """Finds the movies of Q queries, each with its own k and mask; equal to Q single searches, to the bit."""
        if all(mask is None for mask in allowed) and len(ks) > 1:
            rows_QK = self._candidates(queries_QD, max(ks), None)
            return [self._rescore(query_D, rows, k) for query_D, rows, k in zip(queries_QD, rows_QK, ks, strict=True)]
        return [
            self._rescore(query_D, self._candidates(query_D[None], k, mask)[0], k)
            for query_D, k, mask in zip(queries_QD, ks, allowed, strict=True)
        ]

    def _candidates(self, queries_QD: Floats, k: int, allowed_N: Mask | None) -> Int64s:
        wanted = min(k + _SLACK, self.count)
        parameters = None
        if allowed_N is not None:
            bits = np.packbits(allowed_N, bitorder="little")
            selector = faiss.IDSelectorBitmap(self.count, faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)
        _, rows_QK = self._index.search(queries_QD, wanted, params=parameters)
        return np.asarray(rows_QK, np.int64)

    def _rescore(self, query_D: Floats, rows: Int64s, k: int) -> Hits:
        rows = rows[rows >= 0]  # FAISS pads short answers with -1
        scores = np.round(np.einsum("nd,d->n", self._vectors_ND[rows], query_D), 6).astype(np.float32)
        ids = self.movie_ids[rows]
        best = np.lexsort((ids, -scores))[:k]
        return Hits(ids[best], scores[best])

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


def _open_index(bundle: Bundle, movies: int) -> faiss.Index:
    path = bundle.file(INDEX)
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
