"""Indexes that are open: each checks itself against the vectors, and proposes candidates for a query.

Letters in array names: N movies, D dimension, L lists of an inverted file, S sampled rows of a list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from marquee.engine.kinds import EXACT, HNSW, IVF, IVF_FP16, IVF_SQ8, STORED, TUNED_AT, Spec
from marquee.errors import BundleError
from marquee.features import Floats, Int64s

Mask = npt.NDArray[np.bool_]

# Rows of a list that are looked up in a mask, to guess how many of the list are allowed.
_SAMPLED = 32
# Rows whose vectors are compared with item_vectors.npy when an index is opened, and 1 - cos that is allowed then.
_CHECKED = 16
_NEAR = {EXACT: 1e-6, IVF: 1e-6, HNSW: 1e-6, IVF_FP16: 1e-4, IVF_SQ8: 1e-2}

_NO_ROW = np.zeros(_SAMPLED, np.int64)
# FAISS's own annotations are wrong in places: of parameters that its Python module adds, and of kinds it returns.
FaissIndex = Any


class Engine(Protocol):
    """Proposes the rows nearest to a query."""

    def propose(self, query_D: Floats, wanted: int, allowed_N: Mask | None, *, fast: bool) -> Int64s:
        """Lists at most `wanted` rows, all of them allowed, best first; fewer where it comes by no more."""

    def vector(self, row: int, near_D: Floats) -> Floats | None:
        """Reads the vector that is stored for a row, None where it is not found where `near_D` belongs."""


class Flat:
    """Compares every vector."""

    def __init__(self, index: FaissIndex) -> None:
        self._index = index

    def propose(self, query_D: Floats, wanted: int, allowed_N: Mask | None, *, fast: bool) -> Int64s:
        """Lists rows by FAISS's scan; it is as fast as it gets."""
        parameters = None if allowed_N is None else _only(faiss.SearchParameters(), allowed_N)
        return _found(self._index.search(query_D[None], wanted, params=parameters)[1][0])

    def vector(self, row: int, near_D: Floats) -> Floats | None:
        """Reads the vector of a row."""
        vector_D: Floats = self._index.reconstruct(row)
        return vector_D


class Graph:
    """Walks a graph of neighbours."""

    def __init__(self, index: FaissIndex, spec: Spec) -> None:
        self._index = index
        self._ef = spec.parameters["ef_search"]

    def propose(self, query_D: Floats, wanted: int, allowed_N: Mask | None, *, fast: bool) -> Int64s:
        """Lists rows by a walk that keeps `ef_search` candidates, the more the fewer of them are allowed."""
        kept = self._ef / 2 if fast else self._ef
        kept *= max(1.0, wanted / TUNED_AT)
        if allowed_N is not None:
            kept *= len(allowed_N) / max(1, int(np.count_nonzero(allowed_N)))
        parameters = faiss.SearchParametersHNSW()  # type: ignore[attr-defined]
        parameters.efSearch = max(wanted, min(int(kept), self._index.ntotal))
        if allowed_N is not None:
            _only(parameters, allowed_N)
        return _found(self._index.search(query_D[None], wanted, params=parameters)[1][0])

    def vector(self, row: int, near_D: Floats) -> Floats | None:
        """Reads the vector of a row."""
        vector_D: Floats = self._index.reconstruct(row)
        return vector_D


class Lists:
    """Compares the vectors of the lists whose centroids are nearest to the query.

    Of what is allowed it compares as much as an unfiltered search does of everything: it goes on to further lists
    while there was less, by samples of each list. So a filter that fits the query costs little, and one that goes
    against it finds its movies where they are.
    """

    def __init__(self, index: FaissIndex, spec: Spec, path: Path) -> None:
        self._index = index
        self._share = spec.parameters["nprobe"] / index.nlist
        self._centroids_LD: Floats = index.quantizer.reconstruct_n(0, index.nlist)
        rows_of = [self._rows(number) for number in range(index.nlist)]
        _check_rows(path, rows_of, index.ntotal)
        self._size_L = np.array([len(rows) for rows in rows_of])
        # Evenly spaced, as often as it takes where a list has fewer.
        places_S = (np.arange(_SAMPLED) + 0.5) / _SAMPLED
        self._sample_LS = np.stack(
            [rows[(places_S * len(rows)).astype(np.int64)] if len(rows) else _NO_ROW for rows in rows_of]
        )

    def _rows(self, number: int) -> Int64s:
        lists = self._index.invlists
        size = lists.list_size(number)
        rows: Int64s = faiss.rev_swig_ptr(lists.get_ids(number), size).copy() if size else _NO_ROW[:0]
        return rows

    def propose(self, query_D: Floats, wanted: int, allowed_N: Mask | None, *, fast: bool) -> Int64s:
        """Lists rows out of the nearest lists."""
        share = min(1.0, (self._share / 2 if fast else self._share) * max(1.0, wanted / TUNED_AT))
        parameters = faiss.SearchParametersIVF()
        if allowed_N is None:
            parameters.nprobe = max(1, round(share * self._index.nlist))
            return _found(self._index.search(query_D[None], wanted, params=parameters)[1][0])
        near_L, cosines_L = self._nearest(query_D, allowed_N, share)
        parameters.nprobe = len(near_L)
        _only(parameters, allowed_N)
        rows = self._index.search_preassigned(query_D[None], wanted, near_L[None], cosines_L[None], params=parameters)
        return _found(rows[1][0])

    def _nearest(self, query_D: Floats, allowed_N: Mask, share: float) -> tuple[Int64s, Floats]:
        """Orders lists by their centroids, and cuts where enough is allowed, or at the end."""
        cosines_L = self._centroids_LD @ query_D
        order_L = np.argsort(-cosines_L)
        allowed_L = allowed_N[self._sample_LS[order_L]].mean(axis=1) * self._size_L[order_L]
        enough = np.searchsorted(np.cumsum(allowed_L), share * self._index.ntotal) + 1
        return order_L[:enough], cosines_L[order_L[:enough]]

    def vector(self, row: int, near_D: Floats) -> Floats | None:
        """Reads the vector of a row out of the list where `near_D` belongs."""
        number = int(self._index.quantizer.search(near_D[None], 1)[1][0, 0])
        places = np.flatnonzero(self._rows(number) == row)
        vector_D: Floats | None = self._index.reconstruct_from_offset(number, int(places[0])) if len(places) else None
        return vector_D


def _check_rows(path: Path, rows_of: list[Int64s], movies: int) -> None:
    if not np.array_equal(np.sort(np.concatenate(rows_of)), np.arange(movies)):
        raise BundleError(f"{path}: its lists do not hold each of {movies} movies once; publish the bundle again")


def _only(parameters: faiss.SearchParameters, allowed_N: Mask) -> faiss.SearchParameters:
    bits = np.packbits(allowed_N, bitorder="little")
    parameters.sel = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    # The selector points into `bits` and does not keep it.
    parameters.bits = bits  # type: ignore[attr-defined]
    return parameters


def _found(rows: Int64s) -> Int64s:
    return rows[rows >= 0]  # FAISS pads short answers with -1


def open_engine(path: Path, spec: Spec, vectors_ND: Floats) -> Engine:
    """Opens an index file; raises BundleError unless it is of this kind and over these vectors."""
    # A flat index is as large as the vectors: mapped, it is in memory once, with all processes.
    flags = faiss.IO_FLAG_MMAP_IFC if spec.kind == EXACT else 0
    try:
        index: FaissIndex = faiss.read_index(str(path), flags)
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


def _engine(index: FaissIndex, path: Path, spec: Spec) -> Engine:
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


def _check_vectors(path: Path, engine: Engine, spec: Spec, vectors_ND: Floats) -> None:
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
