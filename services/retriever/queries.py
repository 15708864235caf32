"""Reads what callers send: checked values, or InvalidRequest with the field's path.

`path` is what stands before the field in the request: "" in Search, "queries[3]." in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from google.protobuf import field_mask_pb2

from marquee.engine.facts import MAX_IDS, check_filter
from marquee.engine.index import Quality
from marquee.errors import InvalidRequest
from marquee.features import Floats, Int64s
from marquee.v1 import catalog_pb2, retriever_pb2, types_pb2

MAX_K = 1000
MAX_QUERIES = 1024
MAX_EXAMPLES = 100

MOVIE_FIELDS = tuple(field.name for field in types_pb2.Movie.DESCRIPTOR.fields)

_QUALITIES = {
    retriever_pb2.QUALITY_UNSPECIFIED: Quality.BALANCED,
    retriever_pb2.QUALITY_EXACT: Quality.EXACT,
    retriever_pb2.QUALITY_BALANCED: Quality.BALANCED,
    retriever_pb2.QUALITY_FAST: Quality.FAST,
}

NO_IDS: Int64s = np.zeros(0, np.int64)


class Options(NamedTuple):
    """Holds what else a list is to be; `min_score` None and caps of 0: no condition."""

    min_score: float | None
    quality: Quality
    diversity: float
    max_per_genre: int
    max_per_director: int
    vectors: bool
    debug: bool

    @property
    def picks(self) -> bool:
        """Says whether the list is picked one by one: for variety, or under caps."""
        return bool(self.diversity or self.max_per_genre or self.max_per_director)


class Wanted(NamedTuple):
    """Holds what a list must be like: its length, its filter (None: no condition) and the movies to leave out."""

    k: int
    filter: types_pb2.MovieFilter | None
    excluded: Int64s
    options: Options | None


Request = retriever_pb2.SearchRequest | retriever_pb2.BatchSearchQuery | retriever_pb2.SearchSimilarRequest


def read_wanted(request: Request, path: str) -> Wanted:
    """Reads k, filter, exclusions and options of a query."""
    k = read_k(request.k, path)
    wanted_filter = read_filter(request, path)
    options = _read_options(request.options, f"{path}options") if request.HasField("options") else None
    return Wanted(k, wanted_filter, read_excluded(request.exclude_packed, f"{path}exclude_packed"), options)


def read_k(k: int, path: str) -> int:
    """Reads how many movies are wanted."""
    if not 1 <= k <= MAX_K:
        raise InvalidRequest(f"{path}k is {k}; send 1 to {MAX_K}", field=f"{path}k")
    return k


def read_filter(
    request: Request | catalog_pb2.GetFacetsRequest | catalog_pb2.TopMoviesRequest, path: str
) -> types_pb2.MovieFilter | None:
    """Reads which movies are wanted; None: all, as an empty filter says, which the SDK sends where nothing is asked."""
    if not request.filter.ByteSize():
        return None
    check_filter(request.filter, f"{path}filter")
    return request.filter


def _read_options(options: retriever_pb2.SearchOptions, path: str) -> Options:
    # NaN is in no range.
    _check_between(options.min_score, -1.0, 1.0, f"{path}.min_score")
    _check_between(options.diversity, 0.0, 1.0, f"{path}.diversity")
    for name in ("max_per_genre", "max_per_director"):
        cap = getattr(options, name)
        if cap < 0:
            raise InvalidRequest(f"{path}.{name} is {cap}; send 1 or more, or 0 for no cap", field=f"{path}.{name}")
    if options.quality not in _QUALITIES:
        names = ", ".join(retriever_pb2.Quality.keys())
        raise InvalidRequest(
            f"{path}.quality is {options.quality}, which is no Quality; send one of {names}", field=f"{path}.quality"
        )
    return Options(
        options.min_score if options.HasField("min_score") else None,
        _QUALITIES[options.quality],
        options.diversity,
        options.max_per_genre,
        options.max_per_director,
        options.vectors,
        options.debug,
    )


def _check_between(value: float, low: float, high: float, field: str) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{field} is {value:g}; send {low:g} to {high:g}", field=field)


def read_excluded(packed: bytes, field: str) -> Int64s:
    """Reads ids of movies to leave out."""
    if not packed:
        return NO_IDS
    if len(packed) % 8:
        raise InvalidRequest(
            f"{field} has {len(packed)} bytes, not a multiple of 8; pass back `seen` as Encode gave it", field=field
        )
    ids = np.frombuffer(packed, "<i8")
    if len(ids) > MAX_IDS:
        raise InvalidRequest(f"{field} has {len(ids)} ids; send at most {MAX_IDS}", field=field)
    falling = ids[1:] < ids[:-1]
    if falling.any():
        at = int(falling.argmax()) + 1
        raise InvalidRequest(
            f"{field} is not ascending: id {at} ({ids[at]}) comes after {ids[at - 1]}; pass back `seen` as Encode gave "
            "it, or sort the ids",
            field=field,
        )
    return ids


def read_vector(packed: bytes, dimension: int, path: str) -> Floats:
    """Reads a query vector and gives it L2 norm 1."""
    field = f"{path}vector"
    if len(packed) != 4 * dimension:
        raise InvalidRequest(
            f"{field} has {len(packed)} bytes; the space has {dimension} dimensions, so send {4 * dimension} (float32)",
            field=field,
        )
    # In float64 no finite float32 overflows or vanishes when squared.
    vector_D = np.frombuffer(packed, "<f4").astype(np.float64)
    norm = math.sqrt(vector_D @ vector_D)
    if not math.isfinite(norm):
        at = int(np.isfinite(vector_D).argmin())
        raise InvalidRequest(f"{field} is not finite: entry {at} is {vector_D[at]}", field=field)
    if norm == 0.0:
        raise InvalidRequest(f"{field} is zero and points nowhere; pass back Encode's", field=field)
    return (vector_D / norm).astype(np.float32)


def read_examples(movie_ids: Sequence[int], field: str, *, least: int) -> Int64s:
    """Reads ids of example movies: `least` to 100, each positive."""
    if not least <= len(movie_ids) <= MAX_EXAMPLES:
        raise InvalidRequest(f"{field} has {len(movie_ids)} movies; send {least} to {MAX_EXAMPLES}", field=field)
    for at, movie_id in enumerate(movie_ids):
        if movie_id < 1:
            entry = f"{field}[{at}]"
            raise InvalidRequest(f"{entry} is {movie_id}; movie ids are positive", field=entry)
    return np.array(movie_ids, np.int64)


def read_details(mask: field_mask_pb2.FieldMask, field: str = "details") -> tuple[str, ...]:
    """Reads which fields of Movie are wanted; "*" is all, an empty mask none."""
    paths = mask.paths
    if not paths:
        return ()
    for path in paths:
        if path != "*" and path not in MOVIE_FIELDS:
            raise InvalidRequest(
                f"{field}: Movie has no field {path[:100]!r}; send some of {', '.join(MOVIE_FIELDS)}, or *", field=field
            )
    return MOVIE_FIELDS if "*" in paths else tuple(paths)
