"""The kinds of index that FAISS builds: their names, their parameters, and how each is built. N movies, D dimension."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from google.protobuf import json_format

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import BundleError
from marquee.features import Floats

EXACT = "exact"
IVF, IVF_FP16, IVF_SQ8 = "ivf", "ivf_fp16", "ivf_sq8"
HNSW = "hnsw"
STORED = {IVF: None, IVF_FP16: faiss.ScalarQuantizer.QT_fp16, IVF_SQ8: faiss.ScalarQuantizer.QT_8bit}
PARAMETERS: dict[str, tuple[str, ...]] = {
    EXACT: (),
    IVF: ("nlist", "nprobe"),
    IVF_FP16: ("nlist", "nprobe"),
    IVF_SQ8: ("nlist", "nprobe"),
    HNSW: ("m", "ef_construction", "ef_search"),
}
KINDS = tuple(PARAMETERS)

# The number of nearest movies that nprobe and ef_search are tuned for; where more are wanted, more is compared.
TUNED_AT = 100
_SEED = 1
_ITERATIONS = 10
_POINTS_A_LIST = 64


class Spec(NamedTuple):
    """Is a kind of index with its parameters."""

    kind: str
    parameters: dict[str, int]

    def message(self) -> bundle_pb2.IndexSpec:
        """Writes it as the manifest has it."""
        message = bundle_pb2.IndexSpec(kind=self.kind)
        message.parameters.update(self.parameters)
        return message


def read_spec(message: bundle_pb2.IndexSpec, path: Path | str) -> Spec:
    """Reads kind and parameters; raises BundleError, naming `path`, where this code cannot serve them."""
    if message.kind not in PARAMETERS:
        raise BundleError(
            f"{path}: an index of kind {message.kind!r} is not served here; export the bundle with one of "
            f"{', '.join(KINDS)}"
        )
    given = json_format.MessageToDict(message.parameters)
    parameters = {}
    for name in PARAMETERS[message.kind]:
        value = given.get(name)
        if not isinstance(value, float) or not value.is_integer() or not 1 <= value <= 1 << 30:
            raise BundleError(
                f"{path}: {name} of the {message.kind} index is {value!r}, which is no whole number from 1; export "
                "the bundle again"
            )
        parameters[name] = int(value)
    return Spec(message.kind, parameters)


def build_index(vectors_ND: Floats, spec: Spec) -> faiss.Index:
    """Builds an inner-product index over L2-normalised vectors, on one thread: equal input gives equal bytes.

    Raises BundleError where there are fewer movies than lists.
    """
    vectors_ND = np.ascontiguousarray(vectors_ND, np.float32)
    faiss.omp_set_num_threads(1)
    index = _empty(vectors_ND, spec)
    if not index.is_trained:
        index.train(vectors_ND)
    index.add(vectors_ND)
    return index


def _empty(vectors_ND: Floats, spec: Spec) -> faiss.Index:
    movies, dimension = vectors_ND.shape
    if spec.kind == EXACT:
        return faiss.IndexFlatIP(dimension)
    if spec.kind == HNSW:
        index = faiss.IndexHNSWFlat(dimension, spec.parameters["m"], faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = spec.parameters["ef_construction"]
        return index
    lists = spec.parameters["nlist"]
    if movies < lists:
        raise BundleError(
            f"an index of kind {spec.kind} cannot spread {movies} movies over nlist = {lists} lists; export the "
            "bundle with kind exact"
        )
    return _inverted(dimension, lists, STORED[spec.kind])


def _inverted(dimension: int, lists: int, stored: int | None) -> faiss.IndexIVF:
    centroids = faiss.IndexFlatIP(dimension)
    metric = faiss.METRIC_INNER_PRODUCT
    index: faiss.IndexIVF = faiss.IndexIVFFlat(centroids, dimension, lists, metric)
    if stored is not None:
        index = faiss.IndexIVFScalarQuantizer(centroids, dimension, lists, stored, metric, False)
    index.cp.spherical = True
    index.cp.seed = _SEED
    index.cp.niter = _ITERATIONS
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = _POINTS_A_LIST
    return index


def write_index(path: Path, vectors_ND: Floats, spec: Spec | None = None) -> None:
    """Builds an index over L2-normalised vectors and writes it: exact, where no other kind is named."""
    faiss.write_index(build_index(vectors_ND, spec or Spec(EXACT, {})), str(path))
