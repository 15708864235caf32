"""Training examples from flat event arrays: no Python object per event.

Letters: E events, U people, B targets in a batch, W stretches of histories, L history length, C candidates, N movies.
"""

from __future__ import annotations

from collections.abc import Iterator
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
Int32s = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Ints = Int32s | Int64s

# Gaps are measured, and first events found, so many at a time.
_AT_ONCE = 1 << 20

_MINUTE_MS, _DAY_MS, _TEN_YEARS_MS = 60e3, 86.4e6, 3.2e11


class EventLog(NamedTuple):
    """Holds the events of one split, by person and then in time. Arrays are [E] but `starts`, which is [U + 1].

    An event takes 22 bytes: arithmetic that may pass an array's type has to widen it first.
    """

    users: Int32s
    items: Int32s
    kinds: Bytes
    values: Floats
    times_ms: Int64s
    gaps: Bytes
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
        """Lists the positions of events that may be targets, ascending."""
        return np.flatnonzero(self.is_eligible())

    def is_eligible(self) -> Mask:
        """Marks events that may be targets, [E].

        A person's first event on a movie, as served lists leave out what was seen before; and no dislike, as nothing
        should learn to recommend those. So a target's own movie never stands in its history.
        """
        eligible_E: Mask = self.first_events() & ~np.isin(self.kinds, (DISLIKED, NOT_INTERESTED))
        return eligible_E

    def first_events(self) -> Mask:
        """Marks each person's first event on a movie, [E]."""
        first_E, movies = np.zeros(self.size, bool), int(self.items.max(initial=0)) + 1
        for of in self._parts():
            pairs = self.users[of].astype(np.int64) * movies + self.items[of]
            first_E[of.start + np.unique(pairs, return_index=True)[1]] = True
        return first_E

    def _parts(self) -> Iterator[slice]:
        """Splits the log into parts that hold all of a person's events, or none."""
        start = 0
        while start < self.size:
            end = int(self.starts[np.searchsorted(self.starts, min(start + _AT_ONCE, self.size))])
            yield slice(start, end)
            start = end

    def last_targets(self) -> Int64s:
        """Finds the position of every person's last eligible event that has a history."""
        positions = self.eligible()
        positions = positions[positions > self.starts[self.users[positions]]]
        users = self.users[positions]
        return positions[np.append(users[1:] != users[:-1], True)] if len(positions) else positions


def event_log(data: Dataset, spec: bundle_pb2.FeatureSpec) -> EventLog:
    """Arranges a dataset's events for training."""
    columns = (data.items, data.kinds, data.values, data.times_ms)
    return _log(data.users, *columns, people=len(data.user_ids), spec=spec)


def _log(
    users: Int32s,
    items: Int32s,
    kinds: Bytes,
    values: Floats,
    times_ms: Int64s,
    *,
    people: int,
    spec: bundle_pb2.FeatureSpec,
) -> EventLog:
    starts = np.searchsorted(users, np.arange(people + 1, dtype=np.int32)).astype(np.int64)
    first = np.zeros(len(users), bool)
    first[starts[:-1][np.diff(starts) > 0]] = True
    return EventLog(users, items, kinds, values, times_ms, _gaps(times_ms, first, spec), starts)


def _gaps(times_ms: Int64s, first: Mask, spec: bundle_pb2.FeatureSpec) -> Bytes:
    gaps = np.zeros(len(times_ms), np.uint8)
    for start in range(0, len(gaps), _AT_ONCE):
        since, end = max(start - 1, 0), start + _AT_ONCE
        gaps[start:end] = gap_buckets(times_ms[since:end], first[since:end], spec)[start - since :]
    return gaps


def histories(
    log: EventLog,
    ends: Int64s,
    as_of_ms: Int64s,
    spec: bundle_pb2.FeatureSpec,
    rng: np.random.Generator | None = None,
    users: Ints | None = None,
) -> TowerInput:
    """Builds the tower input [B, L] of the events that sort before position `ends[i]` of the same person, newest first.

    The person is the one of the event at `ends[i]`, or `users[i]` where that is given: a history may end where the
    log, or the person, does. With `rng` some ratings are turned into the kinds without a value that they stand for, so
    that the tower learns to read those.
    """
    starts = log.starts[log.users[ends] if users is None else users]
    starts = np.maximum(starts, ends - spec.max_history)
    at_BL, real_BL = newest_first(starts, ends)
    ages_BL = age_buckets(log.times_ms[at_BL], as_of_ms[:, None], spec)
    return _input(log, at_BL, real_BL, ages_BL, rng)


def newest_first(starts: Int64s, ends: Int64s) -> tuple[Int64s, Mask]:
    """Lists positions from `ends[i] - 1` down to `starts[i]`, and marks those that are no padding, both [B, L]."""
    at_BL = ends[:, None] - 1 - np.arange(max(int(np.max(ends - starts, initial=1)), 1))
    real_BL = at_BL >= starts[:, None]
    return np.where(real_BL, at_BL, 0), real_BL


def _input(log: EventLog, at_BL: Int64s, real_BL: Mask, ages_BL: Int64s, rng: np.random.Generator | None) -> TowerInput:
    kinds_BL = log.kinds[at_BL].astype(np.int64)
    values_BL = log.values[at_BL]
    if rng is not None:
        kinds_BL = _vary_kinds(kinds_BL, values_BL, rng)
    return TowerInput(
        rows=np.where(real_BL, log.items[at_BL], 0).astype(np.int64),
        ratings=np.where(real_BL, rating_signal(kinds_BL, values_BL), 0).astype(np.float32),
        ages=np.where(real_BL, ages_BL, 0),
        gaps=np.where(real_BL, log.gaps[at_BL], 0).astype(np.int64),
        kinds=np.where(real_BL, kinds_BL, 0),
    )


class Windows(NamedTuple):
    """Holds W stretches of histories for training at every position; all arrays are [W, L].

    The state after input event (w, l) is to find the movie `targets[w, l]` of the event after it; `ages` of the inputs
    count to that moment. `asked` marks positions that have an eligible target.
    """

    inputs: TowerInput
    targets: Int64s
    users: Int64s
    asked: Mask


def window_bounds(log: EventLog, length: int, rng: np.random.Generator) -> tuple[Int64s, Int64s]:
    """Cuts every history into stretches of at most `length` + 1 events, each beginning with the last of the one before.

    Where the first cut falls is drawn, so that another epoch cuts elsewhere. Returns starts and ends [W].
    """
    counts_U = np.diff(log.starts)
    first_U = np.where(counts_U > length + 1, rng.integers(1, length + 1, len(counts_U)), length)
    parts_U = np.where(counts_U > 1, 1 + np.maximum(counts_U - 2 - first_U + length, 0) // length, 0)
    users = np.repeat(np.arange(len(counts_U)), parts_U)
    number = np.arange(len(users)) - np.repeat(np.cumsum(parts_U) - parts_U, parts_U)
    starts = log.starts[users] + np.where(number == 0, 0, first_U[users] + (number - 1) * length)
    ends = np.minimum(log.starts[users] + first_U[users] + number * length + 1, log.starts[users + 1])
    return starts, ends


def windows(
    log: EventLog,
    eligible_E: Mask,
    starts: Int64s,
    ends: Int64s,
    spec: bundle_pb2.FeatureSpec,
    rng: np.random.Generator,
) -> Windows:
    """Builds stretches for training from `starts[w]` to `ends[w]`, whose last event is a target only."""
    at_WL, real_WL = newest_first(starts, ends - 1)
    as_of_WL = delayed(log.times_ms[at_WL + 1], rng)
    ages_WL = age_buckets(log.times_ms[at_WL], as_of_WL, spec)
    inputs = _input(log, at_WL, real_WL, ages_WL, rng)
    targets_WL, users_W = log.items[at_WL + 1].astype(np.int64), log.users[starts].astype(np.int64)
    return Windows(inputs, targets_WL, users_W, real_WL & eligible_E[at_WL + 1])


class Hidden(NamedTuple):
    """Holds B people with a part of their history hidden: what is left as input, and [B, N] marks of both parts."""

    inputs: TowerInput
    left_BN: Mask
    hidden_BN: Mask


def hide(
    log: EventLog,
    eligible_E: Mask,
    users: Int64s,
    movies: int,
    spec: bundle_pb2.FeatureSpec,
    rng: np.random.Generator,
) -> Hidden:
    """Hides 20 to 80 % of the events of each person, and asks for the eligible ones by the rest, long after."""
    lengths = log.starts[users + 1] - log.starts[users]
    rows = np.repeat(np.arange(len(users)), lengths)
    at = np.arange(len(rows)) + np.repeat(log.starts[users] - (np.cumsum(lengths) - lengths), lengths)
    is_left = rng.random(len(at)) < rng.uniform(0.2, 0.8, len(users))[rows]
    left, hidden = at[is_left], at[~is_left & eligible_E[at]]
    columns = (log.items[left], log.kinds[left], log.values[left], log.times_ms[left])
    kept = _log(rows[is_left].astype(np.int32), *columns, people=len(users), spec=spec)
    as_of_ms = later(log.times_ms[log.starts[users + 1] - 1], rng)
    inputs = histories(kept, kept.starts[1:], as_of_ms, spec, rng, users=np.arange(len(users)))
    left_BN, hidden_BN = np.zeros((2, len(users), movies), bool)
    left_BN[rows[is_left], log.items[left]] = True
    hidden_BN[rows[~is_left & eligible_E[at]], log.items[hidden]] = True
    return Hidden(inputs, left_BN, hidden_BN & ~left_BN)


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
    return np.where(rng.random(times_ms.shape) < 0.5, later(times_ms, rng, _MINUTE_MS), times_ms)


def later(times_ms: Int64s, rng: np.random.Generator, least_ms: float = _DAY_MS) -> Int64s:
    """Moves moments later, by `least_ms` to ten years, all orders of magnitude alike."""
    delay_ms = np.exp(rng.uniform(np.log(least_ms), np.log(_TEN_YEARS_MS), times_ms.shape))
    return times_ms + delay_ms.astype(np.int64)


class Positives:
    """Knows every person's movies, to mask accidental hits."""

    def __init__(self, log: EventLog, movies: int) -> None:
        self._log = log
        self._column = np.full(movies, -1, np.int64)

    def hits(self, users_B: Ints, items_C: Ints) -> Mask:
        """Marks [B, C]: candidate j is a movie of person i, the target itself among them."""
        items, item_of_C = np.unique(items_C, return_inverse=True)
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
        # Rows and then columns, which costs less than both at once.
        hits_BC: Mask = np.take(watched[user_of_B], item_of_C, axis=1)
        return hits_BC
