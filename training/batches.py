"""Training examples from flat event arrays: no Python object per event.

Letters: E events, U people, B targets in a batch, L history length.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.v1 import bundle_pb2
from marquee.features import (
    DISLIKED,
    LIKED,
    NOT_INTERESTED,
    RATED,
    WATCHED,
    Floats,
    Int64s,
    TowerInput,
    age_buckets,
    gap_buckets,
    rating_signal,
)
from training.data import Dataset

Mask = npt.NDArray[np.bool_]


class EventLog(NamedTuple):
    """Holds the events of one split, by person and then in time. Arrays are [E] but `starts`, which is [U + 1]."""

    users: Int64s
    items: Int64s
    kinds: Int64s
    values: Floats
    times_ms: Int64s
    gaps: Int64s
    starts: Int64s

    @property
    def size(self) -> int:
        """Says how many events there are."""
        return len(self.items)

    def only(self, keep: Mask, spec: bundle_pb2.FeatureSpec) -> EventLog:
        """Selects events and measures the gaps anew."""
        users = self.users[keep]
        columns = (self.items[keep], self.kinds[keep], self.values[keep], self.times_ms[keep])
        return _log(users, *columns, people=len(self.starts) - 1, spec=spec)

    def eligible(self) -> Int64s:
        """Lists the positions of events that may be targets, ascending.

        A person's first event on a movie, as served lists leave out what was seen before; and no dislike, as nothing
        should learn to recommend those. So a target's own movie never stands in its history.
        """
        pairs = self.users * (int(self.items.max(initial=0)) + 1) + self.items
        first = np.zeros(self.size, bool)
        first[np.unique(pairs, return_index=True)[1]] = True
        return np.flatnonzero(first & ~np.isin(self.kinds, (DISLIKED, NOT_INTERESTED)))

    def last_targets(self) -> Int64s:
        """Finds the position of every person's last eligible event that has a history."""
        positions = self.eligible()
        positions = positions[positions > self.starts[self.users[positions]]]
        users = self.users[positions]
        return positions[np.append(users[1:] != users[:-1], True)] if len(positions) else positions


def event_log(data: Dataset, spec: bundle_pb2.FeatureSpec) -> EventLog:
    """Arranges a dataset's events for training."""
    columns = (data.items.astype(np.int64), data.kinds.astype(np.int64), data.values, data.times_ms)
    return _log(data.users.astype(np.int64), *columns, people=len(data.user_ids), spec=spec)


def _log(
    users: Int64s,
    items: Int64s,
    kinds: Int64s,
    values: Floats,
    times_ms: Int64s,
    *,
    people: int,
    spec: bundle_pb2.FeatureSpec,
) -> EventLog:
    starts = np.searchsorted(users, np.arange(people + 1)).astype(np.int64)
    first = np.zeros(len(users), bool)
    first[starts[:-1][np.diff(starts) > 0]] = True
    return EventLog(users, items, kinds, values, times_ms, gap_buckets(times_ms, first, spec), starts)


def histories(
    log: EventLog,
    ends: Int64s,
    as_of_ms: Int64s,
    spec: bundle_pb2.FeatureSpec,
    rng: np.random.Generator | None = None,
    users: Int64s | None = None,
) -> TowerInput:
    """Builds the tower input [B, L] of the events that sort before position `ends[i]` of the same person, newest first.

    The person is the one of the event at `ends[i]`, or `users[i]` where that is given: a history may end where the
    log, or the person, does. With `rng` some ratings are turned into the kinds without a value that they stand for, so
    that the tower learns to read those.
    """
    starts = log.starts[log.users[ends] if users is None else users]
    longest = int(min(spec.max_history, np.max(ends - starts, initial=1)))
    at_BL = ends[:, None] - 1 - np.arange(max(longest, 1))
    real_BL = at_BL >= starts[:, None]
    at_BL = np.where(real_BL, at_BL, 0)
    rows_BL = log.items[at_BL]
    kinds_BL = log.kinds[at_BL]
    values_BL = log.values[at_BL]
    if rng is not None:
        kinds_BL = _vary_kinds(kinds_BL, values_BL, rng)
    return TowerInput(
        rows=np.where(real_BL, rows_BL, 0),
        ratings=np.where(real_BL, rating_signal(kinds_BL, values_BL), 0).astype(np.float32),
        ages=np.where(real_BL, age_buckets(log.times_ms[at_BL], as_of_ms[:, None], spec), 0),
        gaps=np.where(real_BL, log.gaps[at_BL], 0),
        kinds=np.where(real_BL, kinds_BL, 0),
    )


def _vary_kinds(kinds_BL: Int64s, values_BL: Floats, rng: np.random.Generator) -> Int64s:
    draw_BL = rng.random(kinds_BL.shape, np.float32)
    rated_BL = kinds_BL == RATED
    varied = np.where(rated_BL & (values_BL >= 4.0) & (draw_BL < 0.15), LIKED, kinds_BL)
    varied = np.where(rated_BL & (values_BL <= 2.0) & (draw_BL < 0.10), DISLIKED, varied)
    return np.where(rated_BL & (draw_BL > 0.95), WATCHED, varied)


def delayed(times_ms: Int64s, rng: np.random.Generator) -> Int64s:
    """Moves half of the moments that ages are measured from later, by a minute to ten years.

    In training a target follows its history by seconds; a served person's newest event may be years old.
    """
    delay_ms = np.exp(rng.uniform(np.log(60e3), np.log(3.2e11), len(times_ms))).astype(np.int64)
    return times_ms + np.where(rng.random(len(times_ms)) < 0.5, delay_ms, 0)


class Positives:
    """Knows every person's movies, to mask accidental hits."""

    def __init__(self, log: EventLog, movies: int) -> None:
        self._log = log
        self._column = np.full(movies, -1, np.int64)

    def hits(self, users_B: Int64s, items_B: Int64s) -> Mask:
        """Marks [B, B]: off the diagonal, target j is the movie, or another movie, of person i."""
        items, item_of_B = np.unique(items_B, return_inverse=True)
        users, user_of_B = np.unique(users_B, return_inverse=True)
        self._column[items] = np.arange(len(items))
        starts = self._log.starts[users]
        lengths = self._log.starts[users + 1] - starts
        rows = np.repeat(np.arange(len(users)), lengths)
        first = np.cumsum(lengths) - lengths
        columns = self._column[self._log.items[np.arange(len(rows)) + np.repeat(starts - first, lengths)]]
        self._column[items] = -1
        watched = np.zeros((len(users), len(items)), bool)
        watched[rows[columns >= 0], columns[columns >= 0]] = True
        # Everybody has watched their own target, so the same movie elsewhere in the batch is a hit as well.
        hits_BB: Mask = watched[user_of_B[:, None], item_of_B[None]]
        np.fill_diagonal(hits_BB, False)
        return hits_BB
