"""Finds a list with options: above a score, varied, under caps. N movies, D dimension."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from marquee.engine.index import Hits, Index, Mask
from marquee.features import Floats
from marquee.v1 import retriever_pb2
from services.retriever.filters import Filters
from services.retriever.measures import LISTS, MATCHING
from services.retriever.picking import Cap, Picks
from services.retriever.queries import Options, Wanted

# A list is picked from so many candidates for each movie wanted, and from this many at least. However much diversity is
# asked for, the list then stays among the nearest: with all movies to pick from, a diversity of 1 would show the
# farthest. And each pick costs as much as there are candidates.
_POOL, _LEAST_POOL = 4, 200
_REASON_NAMES = {
    retriever_pb2.SHORT_REASON_UNSPECIFIED: "none",
    retriever_pb2.SHORT_REASON_CATALOG: "catalog",
    retriever_pb2.SHORT_REASON_FILTER: "filter",
    retriever_pb2.SHORT_REASON_EXCLUDED: "excluded",
    retriever_pb2.SHORT_REASON_CAPS: "caps",
    retriever_pb2.SHORT_REASON_SCORE: "score",
}


class Found(NamedTuple):
    """Holds a list of movies, why it is shorter than was asked for, and what else was asked for.

    `share` is how much of all movies it was chosen from under a filter, from 0 to 1; None: there was none.
    """

    hits: Hits
    short_reason: retriever_pb2.ShortReason
    share: float | None = None
    vectors: bytes = b""
    debug: retriever_pb2.SearchDebug | None = None


def tell(lists: Iterable[Found]) -> None:
    """Says of lists why they are short, and how much their filters left."""
    for found in lists:
        LISTS.count(_REASON_NAMES[found.short_reason])
        if found.share is not None:
            MATCHING.observe(found.share)


def share_of(index: Index, wanted: Wanted, mask: Mask | None) -> float | None:
    """Says how much of all movies a mask leaves, where there is a filter."""
    return index.matching(mask) / index.count if wanted.filter is not None and index.count else None


def short_reason(
    index: Index, filters: Filters, found: int, wanted: Wanted, mask: Mask | None
) -> retriever_pb2.ShortReason:
    """Says why a list is short; where it is neither catalogue, filter nor exclusions, that is CAPS."""
    if found == wanted.k:
        return retriever_pb2.SHORT_REASON_UNSPECIFIED
    if index.count < wanted.k:
        return retriever_pb2.SHORT_REASON_CATALOG
    if wanted.filter is not None and index.matching(filters.passing(wanted.filter)) < wanted.k:
        return retriever_pb2.SHORT_REASON_FILTER
    if index.matching(mask) < wanted.k:
        return retriever_pb2.SHORT_REASON_EXCLUDED
    return retriever_pb2.SHORT_REASON_CAPS


class Finding:
    """Is one search with options."""

    def __init__(self, index: Index, filters: Filters, query_D: Floats, wanted: Wanted, options: Options) -> None:
        self._index = index
        self._filters = filters
        self._query_D = query_D
        self._wanted = wanted
        self._options = options
        self._filter_ns = self._search_ns = 0

    def found(self) -> Found:
        """Finds min(k, matching) movies: those match that filter, exclusions and options all let through."""
        began = time.perf_counter_ns()
        mask = self._filters.matching(self._wanted.filter, self._wanted.excluded)
        self._filter_ns = time.perf_counter_ns() - began
        hits = self._find(mask)
        vectors = self._index.vectors(hits.movie_ids).astype("<f4").tobytes() if self._options.vectors else b""
        spent_ns = time.perf_counter_ns() - began
        debug = self._debug(mask, spent_ns) if self._options.debug else None
        reason = self._short_reason(len(hits.movie_ids), mask)
        return Found(hits, reason, share_of(self._index, self._wanted, mask), vectors, debug)

    def _find(self, mask: Mask | None) -> Hits:
        if self._options.picks:
            return self._picked(mask)
        return self._nearest(self._wanted.k, mask)

    def _nearest(self, k: int, mask: Mask | None) -> Hits:
        """Finds the k nearest movies of those that reach the score."""
        began = time.perf_counter_ns()
        hits = self._index.search(self._query_D, k, mask, self._options.quality)
        self._search_ns += time.perf_counter_ns() - began
        if self._options.min_score is None:
            return hits
        # They are sorted: what reaches the score comes first.
        count = int(np.count_nonzero(hits.scores >= self._options.min_score))
        return Hits(hits.movie_ids[:count], hits.scores[:count])

    def _caps(self) -> list[Cap]:
        capped = (
            (self._filters.genres, self._options.max_per_genre),
            (self._filters.directors, self._options.max_per_director),
        )
        return [Cap(groups, most) for groups, most in capped if most]

    def _picked(self, mask: Mask | None) -> Hits:
        """Picks from the nearest; where caps use those up, from the nearest of what they leave, until none is left."""
        caps, k, left_N = self._caps(), self._wanted.k, mask
        picks = Picks(self._options.diversity, caps)
        while True:
            size = max(_POOL * (k - len(picks)), _LEAST_POOL)
            pool = self._nearest(size, left_N)
            rows = self._index.rows(pool.movie_ids)
            picks.pick(pool, rows, self._index.vectors(pool.movie_ids), k)
            if len(picks) == k or len(rows) < size:
                return picks.hits()
            if left_N is None or left_N is mask:
                left_N = np.ones(self._index.count, bool) if mask is None else mask.copy()
            left_N[rows] = False
            for cap in caps:
                cap.shut_out(left_N)

    def _short_reason(self, found: int, mask: Mask | None) -> retriever_pb2.ShortReason:
        reason = short_reason(self._index, self._filters, found, self._wanted, mask)
        if reason != retriever_pb2.SHORT_REASON_CAPS:
            return reason
        reach = len(self._nearest(self._wanted.k, mask).movie_ids)
        return retriever_pb2.SHORT_REASON_SCORE if reach < self._wanted.k else reason

    def _debug(self, mask: Mask | None, spent_ns: int) -> retriever_pb2.SearchDebug:
        return retriever_pb2.SearchDebug(
            candidates=self._index.count,
            matching=self._index.matching(mask),
            path=self._index.path_of(mask, self._options.quality),
            filter_us=self._filter_ns // 1000,
            search_us=self._search_ns // 1000,
            finish_us=(spent_ns - self._filter_ns - self._search_ns) // 1000,
        )
