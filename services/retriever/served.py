"""Looks at a sampled share of the lists that Search answers with: whether everybody gets the same, and how near it is.

Compared are lists that ought to differ: of ten movies or more, without a filter, for somebody of whom something is left
out. Whoever has done nothing yet gets what everybody gets, and rightly so.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from marquee.bundle.v1 import bundle_pb2
from marquee.v1 import retriever_pb2
from services.common.served import Sample, ServedFolder
from services.common.spaces import ACTIVE, Loaded, Spaces
from services.common.telemetry import Telemetry
from services.retriever.finding import Found
from services.retriever.retrieval import Retrieval

# What is compared of a list; the bundle's report is of as much.
TOP = 10
# Lists that are kept to be compared, and how many people's there must be before anything is said of them.
_KEPT, _LEAST = 1000, 100
# What is written of a longer list.
_MOST_WRITTEN = 100


class _Kept(NamedTuple):
    """Is a list that is compared: whose it is, by what was left out; its first ten; its first score."""

    asker: int
    top: frozenset[int]
    score: float


class Recent:
    """Compares the last lists of one bundle."""

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque(maxlen=_KEPT)
        self.bundle_id = ""

    def add(self, bundle_id: str, asker: int, movie_ids: list[int], score: float) -> None:
        """Keeps a list, and forgets those of another bundle."""
        if bundle_id != self.bundle_id:
            self._kept.clear()
            self.bundle_id = bundle_id
        self._kept.append(_Kept(asker, frozenset(movie_ids[:TOP]), score))

    @property
    def lists(self) -> int:
        """Counts the lists that are kept."""
        return len(self._kept)

    def distinct_share(self) -> float:
        """Computes how many different lists there are, a person; NaN of too few people."""
        # The last one of each: who asks twice may get the same twice.
        tops = {one.asker: one.top for one in tuple(self._kept)}
        return len(set(tops.values())) / len(tops) if len(tops) >= _LEAST else math.nan

    def overlap(self) -> float:
        """Computes how much of a list the next person's has, too, the mean; NaN of too few."""
        pairs = [len(one.top & other.top) for one, other in pairwise(tuple(self._kept)) if one.asker != other.asker]
        return sum(pairs) / (TOP * len(pairs)) if len(pairs) >= _LEAST else math.nan

    def score(self) -> float:
        """Computes the mean score of a list's first movie; NaN of too few lists."""
        scores = [one.score for one in tuple(self._kept)]
        return sum(scores) / len(scores) if len(scores) >= _LEAST else math.nan


class ServedLists:
    """Samples lists: compares those that can be, and writes all of them where there is a folder."""

    def __init__(self, share: float, folder: ServedFolder | None) -> None:
        self._sample = Sample(share)
        self._folder = folder
        self.recent = Recent()

    def add(
        self, request: retriever_pb2.SearchRequest, request_id: str, loaded: Loaded[Retrieval], found: Found
    ) -> None:
        """Looks at an answer, where its request is of the sample."""
        if not self._sample.takes(request_id):
            return
        movie_ids = found.hits.movie_ids[:_MOST_WRITTEN].tolist()
        scores = found.hits.scores[:_MOST_WRITTEN].tolist()
        if loaded.role == ACTIVE and _may_be_compared(request, len(movie_ids)):
            self.recent.add(loaded.bundle.id, hash(request.exclude_packed), movie_ids, scores[0])
        if self._folder is not None:
            self._folder.add(_row(request, request_id, loaded) | {"movie_ids": movie_ids, "scores": _rounded(scores)})


def _may_be_compared(request: retriever_pb2.SearchRequest, movies: int) -> bool:
    return movies >= TOP and bool(request.exclude_packed) and not _is_filtered(request)


def _is_filtered(request: retriever_pb2.SearchRequest) -> bool:
    # The SDK sends a filter always, and an empty one asks for nothing.
    return request.filter.ByteSize() > 0


def _row(request: retriever_pb2.SearchRequest, request_id: str, loaded: Loaded[Retrieval]) -> dict[str, object]:
    return {
        "time_ms": time.time_ns() // 1_000_000,
        "request_id": request_id,
        "space": loaded.bundle.space,
        "revision": loaded.bundle.manifest.revision,
        "bundle_id": loaded.bundle.id,
        "k": request.k,
        "filtered": _is_filtered(request),
        "left_out": len(request.exclude_packed) // 8,
    }


def _rounded(scores: list[float]) -> list[float]:
    # As answers round them; float32 would be written with ten digits of nothing.
    return [round(score, 6) for score in scores]


def watch_lists(telemetry: Telemetry, served: ServedLists, spaces: Spaces[Retrieval]) -> None:
    """Adds what the last lists are like to the metrics, beside what the active bundle's report expects."""
    recent = served.recent

    def of_active(read: Callable[[], float], none: float = math.nan) -> Callable[[], float]:
        # Until a new bundle has answered, the lists are the former's.
        return lambda: read() if recent.bundle_id == spaces.get("").bundle.id else none

    lists = of_active(lambda: recent.lists, 0)
    telemetry.gauge("served_lists_compared", "Sampled lists that the next figures are of.", lists)
    telemetry.gauge("served_distinct_share", "Different lists, a person.", of_active(recent.distinct_share))
    telemetry.gauge("served_overlap", "Share of a list that the next person's has, too.", of_active(recent.overlap))
    telemetry.gauge("served_score", "Mean score of a list's first movie.", of_active(recent.score))
    telemetry.gauge(
        "served_score_expected",
        "What the active bundle's report measured as the mean score of a list's first movie.",
        lambda: expected_score(spaces.get("").report),
    )


def expected_score(report: bundle_pb2.Report) -> float:
    """Reads the mean score of a list's first movie from a bundle's report; NaN where that has none."""
    return next((one.value for one in report.metrics if (one.system, one.name) == ("model", "score@1")), math.nan)
