"""Indexes that are open: each checks itself against the vectors, and proposes candidates for a query.

Letters in array names: N movies, D dimension, L lists of an inverted file, Q queries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from marquee.engine.kinds import EXACT, HNSW, IVF, IVF_FP16, IVF_SQ8, STORED, TUNED_AT, Spec
from marquee.errors import BundleError
from marquee.features import Floats, Int64s

Mask = npt.NDArray[np.bool_]

# Under a mask, lists are searched until the last half of them brought at most this share of the candidates.
_BROUGHT = 0.02
# The nearest lists, which say how many movies are allowed where the query is.
_NEAREST_LISTS = 8
# From this share on, finding more and leaving out what is not allowed costs less than looking at each movie's bit; so
# many more are asked for, because what is allowed is not spread evenly.
_MOST_ALLOWED, _SPARE = 0.4, 1.2
# How lists grow with how hard it is to find enough. Measured over a million: 100 movies in a tenth of them took 3 to 4
# times the lists of 100 in all, in 3 % of them 6 to 8 times.
_GROWTH = 0.6
# The share of the lists after which comparing everything that is allowed costs less: a half, or this many times the
# share that is allowed.
_HALF, _TIMES_ALLOWED = 0.5, 10.0
# Below this share of movies, most of eight that lie together are not allowed at all.
_SPARSE = 0.05
# Rows whose vectors are compared with item_vectors.npy when an index is opened, and 1 - cos that is allowed then.
_CHECKED = 16
_NEAR = {EXACT: 1e-6, IVF: 1e-6, HNSW: 1e-6, IVF_FP16: 1e-4, IVF_SQ8: 1e-2}

# Half precision keeps 11 binary digits: of vectors of length 1 no cosine moves by more than 2 ** -11.
HALF_NOISE = 2.0**-11

# FAISS's own annotations are wrong in places: of parameters that its Python module adds, and of kinds it returns.
FaissIndex = Any


class Allowed:
    """Holds which movies may be found: at least one, and not all."""

    __slots__ = ("_bits", "excluded", "mask_N", "share")

    def __init__(self, mask_N: Mask, count: int) -> None:
        self.mask_N = mask_N
        self.share = count / len(mask_N)
        self.excluded = len(mask_N) - count
        self._bits: npt.NDArray[np.uint8] | None = None

    def _packed(self) -> npt.NDArray[np.uint8]:
        if self._bits is None:
            self._bits = np.packbits(self.mask_N, bitorder="little")
        return self._bits

    def put_into(self, parameters: faiss.SearchParameters) -> None:
        """Limits a search of FAISS to them, while this object lives: the selector points into its bits."""
        bits = self._packed()
        parameters.sel = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))

    def rows(self) -> Int64s:
        """Lists their rows, ascending; of few among very many in half of the time that NumPy takes."""
        if self.share >= _SPARSE:
            return np.flatnonzero(self.mask_N)
        bits = self._packed()
        eights = np.flatnonzero(bits.view(bool))
        at = np.flatnonzero(np.unpackbits(bits[eights], bitorder="little").view(bool))
        rows: Int64s = (eights.take(at >> 3) << 3) + (at & 7)
        return rows


def nearest_of(query_D: Floats, vectors_ND: Floats, rows: Int64s, wanted: int) -> Int64s:
    """Lists the `wanted` of the rows that are nearest, in no order; more where they are equally near.

    The vectors are compared where they lie: gathering them first takes three times as long.
    """
    scores = np.empty(len(rows), np.float32)
    out, query, vectors, at = (faiss.swig_ptr(array) for array in (scores, query_D, vectors_ND, rows))
    faiss.fvec_inner_products_by_idx(out, query, vectors, at, len(query_D), 1, len(rows))  # type: ignore[attr-defined]
    if len(rows) <= wanted:
        return rows
    first = len(rows) - wanted
    nearest: Int64s = rows[scores >= np.partition(scores, first)[first]]
    return nearest


class Engine(Protocol):
    """Proposes the rows nearest to a query; one that is `lost` proposes none any more."""

    @property
    def lost(self) -> bool:
        """Says that everything has to be compared in its place."""

    def propose(self, query_D: Floats, wanted: int, allowed: Allowed | None, *, fast: bool) -> Int64s:
        """Lists at most `wanted` rows, all of them allowed, best first; fewer where it comes by no more."""


class _Opened(Engine, Protocol):
    """Is an engine that was opened from a file, and can show what that holds."""

    def vector(self, row: int, near_D: Floats) -> Floats | None:
        """Reads the vector that is stored for a row, None where it is not found where `near_D` belongs."""


class Flat:
    """Compares every vector, in half precision: that takes two thirds of the time, as half of the memory is read.

    Its scores are within HALF_NOISE of the true ones.
    """

    lost = False

    def __init__(self, index: FaissIndex) -> None:
        self._index = index
        half: FaissIndex = faiss.IndexScalarQuantizer(
            index.d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        if index.ntotal:
            half.add(self.stored())
        self._half = half

    def stored(self) -> Floats:
        """Shows FAISS's own memory, [N, D]; valid while this object lives."""
        shape = (self._index.ntotal, self._index.d)
        if 0 in shape:
            return np.zeros(shape, np.float32)
        stored_ND: Floats = faiss.rev_swig_ptr(self._index.get_xb(), shape[0] * shape[1]).reshape(shape)
        return stored_ND

    def propose(self, query_D: Floats, wanted: int, allowed: Allowed | None, *, fast: bool) -> Int64s:
        """Lists rows by FAISS's scan; it is as fast as it gets."""
        parameters = None
        if allowed is not None:
            parameters = faiss.SearchParameters()
            allowed.put_into(parameters)
        return _found(self._half.search(query_D[None], wanted, params=parameters)[1][0])

    def vector(self, row: int, near_D: Floats) -> Floats | None:
        """Reads the vector of a row."""
        vector_D: Floats = self._index.reconstruct(row)
        return vector_D


class Nowhere:
    """Proposes nothing, so that an index compares every vector where it is mapped."""

    lost = True

    def propose(self, query_D: Floats, wanted: int, allowed: Allowed | None, *, fast: bool) -> Int64s:
        """Lists no rows."""
        return np.zeros(0, np.int64)


class Graph:
    """Walks a graph of neighbours."""

    lost = False

    def __init__(self, index: FaissIndex, spec: Spec) -> None:
        self._index = index
        self._ef = spec.parameters["ef_search"]

    def propose(self, query_D: Floats, wanted: int, allowed: Allowed | None, *, fast: bool) -> Int64s:
        """Lists rows by a walk that keeps `ef_search` candidates.

        What is not allowed is found with the rest and left out: all of it may lie nearest to the query.
        """
        asked = wanted if allowed is None else wanted + allowed.excluded
        kept = (self._ef / 2 if fast else self._ef) * max(1.0, asked / TUNED_AT)
        parameters = faiss.SearchParametersHNSW()  # type: ignore[attr-defined]
        parameters.efSearch = max(asked, min(int(kept), self._index.ntotal))
        rows = _found(self._index.search(query_D[None], asked, params=parameters)[1][0])
        return rows if allowed is None else rows[allowed.mask_N[rows]][:wanted]

    def vector(self, row: int, near_D: Floats) -> Floats | None:
        """Reads the vector of a row."""
        vector_D: Floats = self._index.reconstruct(row)
        return vector_D


class _Nearest(NamedTuple):
    """Is a query, its cosine to each list's centroid, and the lists, the nearest first."""

    query_D: Floats
    cosines_L: Floats
    order_L: Int64s


class Lists:
    """Compares the vectors of the lists whose centroids are nearest to the query.

    Under a mask it starts with more lists, the fewer movies are allowed where the query is, and goes on to as many
    again while the last ones still brought something: so a filter that goes against the query finds its movies where
    they are. Where that would cost more than comparing all that is allowed, it proposes nothing.
    """

    lost = False

    def __init__(self, index: FaissIndex, spec: Spec, path: Path) -> None:
        self._index = index
        self._nprobe = spec.parameters["nprobe"]
        self._centroids_LD: Floats = index.quantizer.reconstruct_n(0, index.nlist)
        lists = [self._rows(number) for number in range(index.nlist)]
        rows = np.concatenate(lists)
        if not np.array_equal(np.sort(rows), np.arange(index.ntotal)):
            raise BundleError(
                f"{path}: its lists do not hold each of {index.ntotal} movies once; publish the bundle again"
            )
        self._list_of_N = np.empty(index.ntotal, np.int32)
        self._list_of_N[rows] = np.repeat(np.arange(index.nlist, dtype=np.int32), [len(each) for each in lists])

    def _rows(self, number: int) -> Int64s:
        lists = self._index.invlists
        size = lists.list_size(number)
        rows: Int64s = faiss.rev_swig_ptr(lists.get_ids(number), size).copy() if size else np.zeros(0, np.int64)
        return rows

    def propose(self, query_D: Floats, wanted: int, allowed: Allowed | None, *, fast: bool) -> Int64s:
        """Lists rows out of the nearest lists."""
        if allowed is not None:
            return self._propose_allowed(query_D, wanted, allowed, fast=fast)
        parameters = faiss.SearchParametersIVF()
        # Measured up to 1,000 movies: lists grow with the root.
        parameters.nprobe = self._lists(wanted / TUNED_AT, 0.5, fast=fast)
        return _found(self._index.search(query_D[None], wanted, params=parameters)[1][0])

    def _lists(self, harder: float, growth: float, *, fast: bool) -> int:
        lists = round(self._nprobe * (0.5 if fast else 1.0) * max(1.0, harder) ** growth)
        return int(min(self._index.nlist, max(1, lists)))

    def _propose_allowed(self, query_D: Floats, wanted: int, allowed: Allowed, *, fast: bool) -> Int64s:
        cosines_L = self._centroids_LD @ query_D
        nearest = _Nearest(query_D, cosines_L, np.argsort(-cosines_L))
        share = self._share_near(nearest, allowed)
        if share >= _MOST_ALLOWED:
            asked = int(_SPARE * wanted / share)
            lists = self._lists(asked / TUNED_AT, 0.5, fast=fast)
            rows, _ = self._of_lists(nearest, slice(lists), asked, None)
            rows = rows[allowed.mask_N[rows]]
            if len(rows) >= wanted:
                return rows[:wanted]
        # Finding 100 in a tenth of the movies is as hard as finding 1,000 in all.
        lists = self._lists(max(1.0, wanted / TUNED_AT) / share, _GROWTH, fast=fast)
        return self._propose_ever_more(nearest, wanted, allowed, lists)

    def _propose_ever_more(self, nearest: _Nearest, wanted: int, allowed: Allowed, lists: int) -> Int64s:
        rows, scores, end = np.zeros(0, np.int64), np.zeros(0, np.float32), 0
        while lists <= self._most_lists(allowed):
            more, theirs = self._of_lists(nearest, slice(end, lists), wanted, allowed)
            rows, scores = np.concatenate((rows, more)), np.concatenate((scores, theirs))
            best = np.argsort(-scores, kind="stable")[:wanted]
            rows, scores, end = rows[best], scores[best], lists
            if len(rows) == wanted and self._brought(rows, nearest.order_L[end // 2 : end]) <= _BROUGHT * wanted:
                return rows
            lists = 2 * end
        return np.zeros(0, np.int64)

    def _most_lists(self, allowed: Allowed) -> float:
        return min(_HALF, _TIMES_ALLOWED * allowed.share) * float(self._index.nlist)

    def _brought(self, rows: Int64s, lists: Int64s) -> int:
        """Counts the rows that are in these lists."""
        among_L = np.zeros(self._index.nlist, bool)
        among_L[lists] = True
        return int(np.count_nonzero(among_L[self._list_of_N[rows]]))

    def _share_near(self, nearest: _Nearest, allowed: Allowed) -> float:
        """Estimates which share of the movies near the query is allowed: above 0."""
        near = np.concatenate([self._rows(number) for number in nearest.order_L[:_NEAREST_LISTS].tolist()])
        return float(np.count_nonzero(allowed.mask_N[near]) + 1) / (len(near) + 1)

    def _of_lists(
        self, nearest: _Nearest, places: slice, wanted: int, allowed: Allowed | None
    ) -> tuple[Int64s, Floats]:
        """Searches lists by their places in the order of nearness; returns rows and scores."""
        lists = nearest.order_L[places]
        cosines = nearest.cosines_L[lists]
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = len(lists)
        if allowed is not None:
            allowed.put_into(parameters)
        rows, scores = np.empty(wanted, np.int64), np.empty(wanted, np.float32)
        query, *out = [faiss.swig_ptr(array) for array in (nearest.query_D, lists, cosines, scores, rows)]
        # The one that takes parameters; FAISS wraps it without them.
        self._index.search_preassigned_c(1, query, wanted, *out, False, parameters)
        found = np.count_nonzero(rows >= 0)
        return rows[:found], scores[:found]

    def vector(self, row: int, near_D: Floats) -> Floats | None:
        """Reads the vector of a row out of the list where `near_D` belongs."""
        number = int(self._index.quantizer.search(near_D[None], 1)[1][0, 0])
        places = np.flatnonzero(self._rows(number) == row)
        if len(places) == 0:
            return None
        vector_D = np.empty_like(near_D)
        self._index.reconstruct_from_offset(number, int(places[0]), faiss.swig_ptr(vector_D))
        return vector_D


def _found(rows: Int64s) -> Int64s:
    return rows if rows[-1] >= 0 else rows[rows >= 0]  # FAISS pads short answers with -1


def open_engine(path: Path, spec: Spec, vectors_ND: Floats) -> Engine:
    """Opens an index file; raises BundleError unless it is of this kind and over these vectors."""
    try:
        index: FaissIndex = faiss.read_index(str(path))
    except RuntimeError as error:
        raise BundleError(f"{path}: FAISS cannot open it ({error}); publish the bundle again") from error
    if (index.ntotal, index.d) != vectors_ND.shape:
        raise BundleError(
            f"{path}: holds {index.ntotal} vectors of length {index.d}, the bundle {len(vectors_ND)} of length "
            f"{vectors_ND.shape[1]}; publish the bundle again"
        )
    if _kind_of(index) != spec.kind or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise BundleError(f"{path}: is no {spec.kind} index by inner product; publish the bundle again")
    engine = _engine(index, path, spec)
    _check_vectors(path, engine, spec, vectors_ND)
    return engine


def _kind_of(index: FaissIndex) -> str:
    if isinstance(index, faiss.IndexIVFScalarQuantizer):
        return next((kind for kind, stored in STORED.items() if stored == index.sq.qtype), "")
    kinds = {faiss.IndexFlat: EXACT, faiss.IndexFlatIP: EXACT, faiss.IndexIVFFlat: IVF, faiss.IndexHNSWFlat: HNSW}
    return kinds.get(type(index), "")


def _engine(index: FaissIndex, path: Path, spec: Spec) -> _Opened:
    if spec.kind == EXACT:
        return Flat(index)
    if spec.kind == HNSW:
        _check_parameter(path, "m", index.hnsw.nb_neighbors(1), spec)
        return Graph(index, spec)
    _check_parameter(path, "nlist", index.nlist, spec)
    return Lists(index, spec, path)


def _check_parameter(path: Path, name: str, found: int, spec: Spec) -> None:
    if found != spec.parameters[name]:
        raise BundleError(
            f"{path}: has {name} = {found}, the manifest says {spec.parameters[name]}; publish the bundle again"
        )


def _check_vectors(path: Path, engine: _Opened, spec: Spec, vectors_ND: Floats) -> None:
    """Compares some rows: what was built over other vectors, or other rows, is told at once."""
    if len(vectors_ND) == 0:
        return
    for row in np.unique(np.linspace(0, len(vectors_ND) - 1, _CHECKED, dtype=np.int64)).tolist():
        stored_D = engine.vector(row, vectors_ND[row])
        # Lengths do not count: half precision and 8 bits change them.
        if stored_D is None or not _cosine(stored_D, vectors_ND[row]) >= 1 - _NEAR[spec.kind]:
            raise BundleError(f"{path}: row {row} is not the vector in item_vectors.npy; publish the bundle again")


def _cosine(one_D: Floats, other_D: Floats) -> float:
    return float(one_D @ other_D / (np.linalg.norm(one_D) * np.linalg.norm(other_D)))
