"""Merges and encodes many people at once: the twin of `features.merge` and `features.encode_history`, equal to the bit.

A numpy call on 50 numbers costs nearly what it costs on 1,500, so that 32 people at once cost a few times one of them.
Letters in array names: B people, n events, L history length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from marquee.bundle.v1 import bundle_pb2
from marquee.features import (
    RETRACTED,
    Events,
    HistoryIndex,
    Int64s,
    TowerInput,
    age_buckets,
    gap_buckets,
    join,
    rating_signal,
    tie_hash,
    user_hash,
)

T = TypeVar("T", np.int64, np.float32)
# Of an integer: 63 hold a person, a movie and a kind.
_PERSON_BITS, _MOVIE_BITS, _KIND_BITS = 15, 44, 4
_TIME_BITS = 44
Mask = npt.NDArray[np.bool_]


class Pair(NamedTuple):
    """Holds one person's stored history, and events sent with a request, to be merged."""

    user_id: str
    stored: Events
    sent: Events


class Histories(NamedTuple):
    """Holds the merged events of B people, one person's after another's, each oldest first.

    `ascending_n` are the same events' movie ids, each person's ascending; `sizes_B` says how many events are whose.
    """

    events: Events
    ascending_n: Int64s
    sizes_B: Int64s


class ManyEncoded(NamedTuple):
    """Holds the tower's input of B people and, as arrays, what `Encoded` says of each of them."""

    tower: TowerInput
    used_B: Int64s
    unknown_B: Int64s
    truncated_B: Int64s
    newest_ms_B: Int64s


def merge_many(people: Sequence[Pair]) -> Histories:
    """Merges each one's stored and sent events, as `merge` does."""
    if not any(one.sent.size for one in people):
        return _stored_only(people)
    sizes = [one.stored.size + one.sent.size for one in people]
    both, whose = join([part for one in people for part in (one.stored, one.sent)]), _whose(sizes)
    ascending_n = _ascending_movies(both, whose)
    if ascending_n is None:
        return _merge_sorting(both, whose, people)
    order = _time_order(both, whose, people)
    return Histories(both.take(order), ascending_n, np.array(sizes, np.int64))


def _ascending_movies(both: Events, whose: Int64s) -> Int64s | None:
    """Sorts movie ids by person, where nobody has a (movie, kind) twice or takes one back; otherwise None.

    Person, movie and kind are packed into one integer: that sorts five times as fast as they do as columns.
    """
    if not _are_packable(both, int(whose[-1]) + 1) or (both.kinds == RETRACTED).any():
        return None
    keys = np.sort((whose << _MOVIE_BITS | both.movie_ids) << _KIND_BITS | both.kinds)
    if (keys[1:] == keys[:-1]).any():
        return None
    ascending_n: Int64s = (keys >> _KIND_BITS) & ((1 << _MOVIE_BITS) - 1)
    return ascending_n


def _are_packable(both: Events, people: int) -> bool:
    return bool(
        people <= 1 << _PERSON_BITS
        and both.movie_ids.max() < 1 << _MOVIE_BITS
        and both.times_ms.min() >= 0
        and both.times_ms.max() < 1 << _TIME_BITS
    )


def _time_order(both: Events, whose: Int64s, people: Sequence[Pair]) -> Int64s:
    """Orders events by person, time, tie and kind: by the first two, and then what is equal in them by the others."""
    # Events come in runs of rising or falling times, which a stable sort finds.
    keys = whose << _TIME_BITS | both.times_ms
    order = np.argsort(keys, kind="stable")
    equal = keys[order[1:]] == keys[order[:-1]]
    if equal.any():
        tied_n = np.zeros(len(keys), bool)
        tied_n[1:] = equal
        tied_n[:-1] |= equal
        tied = np.flatnonzero(tied_n)
        among = order[tied]
        ties = _ties(both.movie_ids[among], whose[among], people)
        order[tied] = among[np.lexsort((both.kinds[among], ties, keys[among]))]
    return order


def _ties(movie_ids: Int64s, whose: Int64s, people: Sequence[Pair]) -> npt.NDArray[np.uint64]:
    # Most are anonymous, or come once: each is hashed once.
    hashes = {user_id: user_hash(user_id) for user_id in {one.user_id for one in people}}
    users_B = np.array([hashes[one.user_id] for one in people], np.uint64)
    return tie_hash(users_B[whose], movie_ids)


def _merge_sorting(both: Events, whose: Int64s, people: Sequence[Pair]) -> Histories:
    """Merges what any history may hold, with two sorts by all columns."""
    # As in `union`: stable, so that of equal (person, movie, kind) the last is the latest, at equal time the sent one.
    order = np.lexsort((both.times_ms, both.kinds, both.movie_ids, whose))
    both, whose = both.take(order), whose[order]
    holds = _holds(both, whose)
    both, whose = both.take(holds), whose[holds]
    order = np.lexsort((both.kinds, _ties(both.movie_ids, whose, people), both.times_ms, whose))
    return Histories(both.take(order), both.movie_ids, np.bincount(whose, minlength=len(people)))


def _stored_only(people: Sequence[Pair]) -> Histories:
    """Puts stored histories together, which are in order, without their retractions."""
    events, whose = join([one.stored for one in people]), _whose([one.stored.size for one in people])
    holds = events.kinds != RETRACTED
    if not holds.all():
        events, whose = events.take(holds), whose[holds]
    sizes_B = np.bincount(whose, minlength=len(people))
    ascending_n = events.movie_ids.copy()
    # In place, one by one: several times as fast as one sort by person and movie.
    for part in np.split(ascending_n, np.cumsum(sizes_B)[:-1]):
        part.sort()
    return Histories(events, ascending_n, sizes_B)


def _whose(sizes: Sequence[int]) -> Int64s:
    return np.repeat(np.arange(len(sizes)), sizes)


def _holds(both: Events, whose: Int64s) -> Mask:
    """Marks what is left of events sorted by person, movie, kind and time."""
    new_movie = _differs(whose) | _differs(both.movie_ids)
    # The last of each (person, movie, kind).
    last = np.append((new_movie | _differs(both.kinds))[1:], True)
    if not (both.kinds == RETRACTED).any():
        return last
    # Retractions sort behind every other kind, so a movie's latest is the last of the movie.
    ends = np.append(np.flatnonzero(new_movie)[1:], len(whose)) - 1
    end_n = ends[np.cumsum(new_movie) - 1]
    covered = (both.kinds[end_n] == RETRACTED) & (both.times_ms <= both.times_ms[end_n])
    holds: Mask = last & ~covered & (both.kinds != RETRACTED)
    return holds


def _differs(column: Int64s) -> Mask:
    """Marks what is not as the one before it; the first is not."""
    marks = np.ones(len(column), bool)
    np.not_equal(column[1:], column[:-1], out=marks[1:])
    return marks


def seen_many(histories: Histories) -> list[Int64s]:
    """Lists the movies of each one's merged events, ascending, as `seen_ids` does."""
    whose = _whose(histories.sizes_B.tolist())
    once = _differs(histories.ascending_n) | _differs(whose)
    counts_B = np.bincount(whose[once], minlength=len(histories.sizes_B))
    ends = np.cumsum(counts_B).tolist()
    ids = histories.ascending_n[once]
    return [ids[end - count : end] for end, count in zip(ends, counts_B.tolist(), strict=True)]


def newest_ms(histories: Histories) -> Int64s:
    """Says when each one's newest event is, [B]; 0 where there is none."""
    return _at_ends(histories.events.times_ms, histories.sizes_B)


def _at_ends(times_ms: Int64s, sizes_B: Int64s) -> Int64s:
    # The 0 is what people without events end at, however many have been before.
    return np.where(sizes_B > 0, np.append(times_ms, 0)[np.cumsum(sizes_B) - 1], 0)


def encode_many(
    histories: Histories, index: HistoryIndex, as_of_ms_B: Int64s, spec: bundle_pb2.FeatureSpec
) -> ManyEncoded:
    """Encodes merged events as the tower's input, padded on the right, as `encode_history` and `pad_batch` do."""
    people, events, whose = len(histories.sizes_B), histories.events, _whose(histories.sizes_B.tolist())
    rows, in_time = index.rows(events.movie_ids), events.times_ms <= as_of_ms_B[whose]
    unknown_B = np.bincount(whose[in_time & (rows < 0)], minlength=people)
    readable = in_time & (rows >= 0)
    if not readable.all():
        events, rows, whose = events.take(readable), rows[readable], whose[readable]
    sizes_B = np.bincount(whose, minlength=people)
    gaps = gap_buckets(events.times_ms, _differs(whose), spec)
    # Newest first: an event's column counts from the end of its person's.
    column = np.cumsum(sizes_B)[whose] - np.arange(1, len(whose) + 1)
    used_B = np.minimum(sizes_B, spec.max_history)
    read = column < spec.max_history
    if not read.all():
        events, rows, whose, gaps, column = events.take(read), rows[read], whose[read], gaps[read], column[read]
    shape = people, int(used_B.max(initial=0))
    place = whose * shape[1] + column
    tower = TowerInput(
        rows=_padded(rows, place, shape),
        ratings=_padded(rating_signal(events.kinds, events.values), place, shape),
        ages=_padded(age_buckets(events.times_ms, as_of_ms_B[whose], spec), place, shape),
        gaps=_padded(gaps, place, shape),
        kinds=_padded(events.kinds, place, shape),
    )
    return ManyEncoded(tower, used_B, unknown_B, sizes_B - used_B, _at_ends(events.times_ms, used_B))


def _padded(values: npt.NDArray[T], place: Int64s, shape: tuple[int, int]) -> npt.NDArray[T]:
    out = np.zeros(shape[0] * shape[1], values.dtype)
    out[place] = values
    return out.reshape(shape)
