"""The one encoding of a person's events, and of a movie's content, into arrays: training and serving share it.

Letters in array names: B people, L history length, n events, N movies, T content tokens.

A history runs newest first and is padded on the right with kind 0, so that the column of an event is its rank from
the newest. Ages are measured from `as_of`; gaps between an event and the one before it. Both are log buckets.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import BundleError
from marquee.movies import MovieRecord
from marquee.v1 import types_pb2

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SPEC_VERSION = 1
MAX_EVENTS = 10_000
MAX_FUTURE_MS = 5 * 60 * 1000
MIN_RATING, MAX_RATING = 0.5, 5.0

RATED = types_pb2.EVENT_KIND_RATED
LIKED = types_pb2.EVENT_KIND_LIKED
DISLIKED = types_pb2.EVENT_KIND_DISLIKED
WATCHED = types_pb2.EVENT_KIND_WATCHED
CLICKED = types_pb2.EVENT_KIND_CLICKED
WATCHLISTED = types_pb2.EVENT_KIND_WATCHLISTED
NOT_INTERESTED = types_pb2.EVENT_KIND_NOT_INTERESTED
RETRACTED = types_pb2.EVENT_KIND_RETRACTED
KINDS = len(types_pb2.EventKind.values())

# The rating, in stars, that an event without one stands for.
_IMPLIED_STARS = np.zeros(KINDS, np.float32)
_IMPLIED_STARS[[LIKED, DISLIKED, WATCHED, CLICKED, WATCHLISTED, NOT_INTERESTED]] = [
    4.5,
    1.5,
    3.5,
    3.0,
    3.5,
    1.0,
]

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
AGE_EDGES_S = (_MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 7 * _DAY, 30 * _DAY, 180 * _DAY, 730 * _DAY)
GAP_EDGES_S = (0.0, 10.0, _MINUTE, 10 * _MINUTE, _HOUR, _DAY, 7 * _DAY, 30 * _DAY, 365 * _DAY)


class Events(NamedTuple):
    """Holds events of one person as parallel columns, each [n].

    `values` are stars for RATED and 0 for every other kind; `times_ms` are UTC milliseconds.
    """

    movie_ids: Int64s
    kinds: Int64s
    values: Floats
    times_ms: Int64s

    @property
    def size(self) -> int:
        """Says how many events there are."""
        return len(self.movie_ids)

    def take(self, keep: npt.NDArray[np.bool_] | Int64s | slice) -> Events:
        """Selects events by mask, indices or slice."""
        return Events(self.movie_ids[keep], self.kinds[keep], self.values[keep], self.times_ms[keep])

    def after(self, older: Events) -> Events:
        """Appends these events to `older`, in the order of arrival."""
        return Events(
            np.concatenate((older.movie_ids, self.movie_ids)),
            np.concatenate((older.kinds, self.kinds)),
            np.concatenate((older.values, self.values)),
            np.concatenate((older.times_ms, self.times_ms)),
        )


NO_EVENTS = Events(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64))


def join(parts: Sequence[Events]) -> Events:
    """Puts events of several one after the other."""
    return Events(*(np.concatenate(column) for column in zip(*parts, strict=True))) if parts else NO_EVENTS


class TowerInput(NamedTuple):
    """Holds what the user tower reads, but for the history rows themselves: each array is [B, L].

    `rows` index the history table (0 where padded); `ratings` are (stars - 3) / 2; `ages`, `gaps` and `kinds` are
    bucket numbers, 0 where padded.
    """

    rows: Int64s
    ratings: Floats
    ages: Int64s
    gaps: Int64s
    kinds: Int64s


class Encoded(NamedTuple):
    """Holds one person's tower input (B = 1) and the account of what went into it."""

    tower: TowerInput
    used: int
    unknown: int
    truncated: int
    newest_ms: int


def feature_spec(
    *, max_history: int, dimension: int, content_buckets: int, max_content_tokens: int
) -> bundle_pb2.FeatureSpec:
    """Builds the spec of this version of the encoding."""
    return bundle_pb2.FeatureSpec(
        version=SPEC_VERSION,
        max_history=max_history,
        dimension=dimension,
        age_edges_s=AGE_EDGES_S,
        gap_edges_s=GAP_EDGES_S,
        content_buckets=content_buckets,
        max_content_tokens=max_content_tokens,
    )


def check_spec(spec: bundle_pb2.FeatureSpec) -> None:
    """Raises BundleError unless this code implements the spec's version."""
    if spec.version != SPEC_VERSION:
        raise BundleError(
            f"manifest.json: feature spec version {spec.version} is not implemented here (this code has "
            f"{SPEC_VERSION}); run a Marquee that has it, or publish a bundle made by this version"
        )


def user_hash(user_id: str) -> int:
    """Hashes a user id to 64 bits, the same in every process; "" is an anonymous person."""
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8).digest(), "little")


def tie_hash(users: npt.NDArray[np.uint64] | int, movie_ids: Int64s) -> npt.NDArray[np.uint64]:
    """Hashes (user, movie) pairs to order events of equal time (splitmix64's finaliser).

    MovieLens is sorted by movie id inside a user: a stable sort by time alone would leak the id.
    """
    mixed = movie_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ np.asarray(users, np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def merge(stored: Events, request: Events, user: int) -> Events:
    """Merges stored and request events into one history, oldest first.

    Of the same (movie, kind) the later wins, at equal time the request's. A retraction drops itself and every event of
    its movie dated at or before it. Sorted by (time, `tie_hash` of (user, movie), kind).
    """
    return current(union(stored, request, user))


def union(stored: Events, request: Events, user: int) -> Events:
    """Merges like `merge`, but leaves retractions in: what a store keeps, so that a late older event stays retracted.

    `merge` of a union with more events equals `merge` of everything that went into it.
    """
    both = request if stored.size == 0 else request.after(stored) if request.size else stored
    if both.size == 0:
        return NO_EVENTS
    ascending = np.sort(both.movie_ids)
    # An event takes the place of others of its movie only, and mostly no movie is there twice.
    if not _starts(ascending).all():
        both = _drop_superseded(both)
    return both.take(np.lexsort((both.kinds, tie_hash(user, both.movie_ids), both.times_ms)))


def _drop_superseded(events: Events) -> Events:
    # lexsort is stable: the last of each run of equal (movie, kind) is the latest, at equal time the request's.
    events = events.take(np.lexsort((events.times_ms, events.kinds, events.movie_ids)))
    last = np.ones(events.size, bool)
    last[:-1] = (events.movie_ids[1:] != events.movie_ids[:-1]) | (events.kinds[1:] != events.kinds[:-1])
    return _drop_covered(events.take(last))


def union_newer(history: Events, newer: Events, user: int) -> Events:
    """Merges like `union` events that are newer than all of a history that is a union itself.

    Nothing has to be sorted again, so that an event costs a sixth of what it costs `union`.
    """
    if newer.size > 1:
        newer = union(NO_EVENTS, newer, user)
    replaced = np.zeros(history.size, bool)
    for movie_id, kind in zip(newer.movie_ids.tolist(), newer.kinds.tolist(), strict=True):
        same = history.movie_ids == movie_id
        replaced |= same if kind == RETRACTED else same & (history.kinds == kind)
    return newer.after(history.take(~replaced) if replaced.any() else history)


def current(united: Events) -> Events:
    """Selects the events of a union that hold: all but its retractions."""
    holds = united.kinds != RETRACTED
    return united if holds.all() else united.take(holds)


def _drop_covered(events: Events) -> Events:
    retracted = events.kinds == RETRACTED
    if not retracted.any():
        return events
    movies, times = events.movie_ids[retracted], events.times_ms[retracted]  # ascending by movie, one each
    at = np.minimum(np.searchsorted(movies, events.movie_ids), len(movies) - 1)
    covered = (movies[at] == events.movie_ids) & (events.times_ms <= times[at])
    return events.take(retracted | ~covered)


def seen_ids(events: Events) -> Int64s:
    """Lists the movies of merged events, ascending."""
    # np.unique takes three to four times as long for thousands of ids: it hashes before it sorts.
    ascending = np.sort(events.movie_ids)
    return ascending[_starts(ascending)]


def _starts(ascending: Int64s) -> npt.NDArray[np.bool_]:
    starts = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=starts[1:])
    return starts


def rating_signal(kinds: Int64s | npt.NDArray[np.uint8], values: Floats) -> Floats:
    """Maps stars, or what a kind without stars stands for, to (stars - 3) / 2: -1.25 to 1."""
    stars = np.where(kinds == RATED, values, _IMPLIED_STARS[kinds])
    return ((stars - 3.0) / 2.0).astype(np.float32)


def age_buckets(times_ms: Int64s, as_of_ms: Int64s | int, spec: bundle_pb2.FeatureSpec) -> Int64s:
    """Buckets ages, 1 to len(edges) + 1; the last one is above every edge."""
    edges_s = _edges(tuple(spec.age_edges_s))
    return 1 + np.searchsorted(edges_s, (as_of_ms - times_ms) / 1000.0).astype(np.int64)


@functools.lru_cache(maxsize=16)
def _edges(edges_s: tuple[float, ...]) -> npt.NDArray[np.float64]:
    return np.array(edges_s)


def gap_buckets(times_ms: Int64s, first: npt.NDArray[np.bool_], spec: bundle_pb2.FeatureSpec) -> Int64s:
    """Buckets the gap to the event before, for times oldest first; `first` marks events that have none before them.

    Returns 1 to len(edges) + 1, and len(edges) + 2 for a first event.
    """
    gaps_ms = np.zeros(len(times_ms), np.int64)
    np.subtract(times_ms[1:], times_ms[:-1], out=gaps_ms[1:])
    return np.where(first, _no_gap(spec), _gap_buckets(gaps_ms, spec))


def _gap_buckets(gaps_ms: Int64s, spec: bundle_pb2.FeatureSpec) -> Int64s:
    return 1 + np.searchsorted(_edges(tuple(spec.gap_edges_s)), gaps_ms / 1000.0).astype(np.int64)


def _no_gap(spec: bundle_pb2.FeatureSpec) -> int:
    return len(spec.gap_edges_s) + 2


# Ids below it are looked up in a table of 4 bytes each, a tenth of the time that a search takes.
_TABLE_IDS = 4 << 20


class HistoryIndex:
    """Finds the row of a movie id: of the history table, or of anything else that has a row a movie."""

    def __init__(self, movie_ids: Int64s) -> None:
        self._order = np.argsort(movie_ids, kind="stable").astype(np.int64)
        self._sorted = movie_ids[self._order]
        self._table = self._made_table() if len(movie_ids) and self._sorted[-1] < _TABLE_IDS else None

    def _made_table(self) -> npt.NDArray[np.int32]:
        # One more at either end: whatever is below or above finds -1 there.
        table = np.full(max(0, int(self._sorted[-1])) + 2, -1, np.int32)
        positive = self._sorted > 0
        # Backwards: of equal ids the first stays, as a search finds it.
        table[self._sorted[positive][::-1]] = self._order[positive][::-1]
        return table

    def rows(self, movie_ids: Int64s) -> Int64s:
        """Looks rows of positive ids up; -1 where there is none."""
        if self._table is not None:
            return self._table.take(movie_ids, mode="clip").astype(np.int64)
        if len(self._sorted) == 0:
            return np.full(len(movie_ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, movie_ids), len(self._sorted) - 1)
        return np.where(self._sorted[at] == movie_ids, self._order[at], -1)


def encode_history(merged: Events, index: HistoryIndex, as_of_ms: int, spec: bundle_pb2.FeatureSpec) -> Encoded:
    """Encodes merged events as the tower's input at `as_of_ms`; events after it are not read."""
    known, rows, unknown = _readable(merged, index, as_of_ms)
    start = max(0, known.size - spec.max_history)
    read = known.take(slice(start, None))
    newest_ms = int(read.times_ms[-1]) if read.size else 0
    return Encoded(_tower_input(known, rows, start, as_of_ms, spec), read.size, unknown, start, newest_ms)


class Without(NamedTuple):
    """Holds a person's tower input without each of K events (B = K), and those events, newest first."""

    tower: TowerInput
    events: Events


def encode_without_each(
    merged: Events, index: HistoryIndex, as_of_ms: int, spec: bundle_pb2.FeatureSpec, most: int
) -> Without:
    """Encodes merged events without each of the newest `most` that `encode_history` reads, one left out at a time.

    Each input is what `encode_history` makes of the history without that event: the next older one moves up, and the
    gap before the next newer one grows.
    """
    known, rows, _ = _readable(merged, index, as_of_ms)
    # One event more than is read: it moves in where another is left out.
    start = max(0, known.size - spec.max_history - 1)
    whole = _tower_input(known, rows, start, as_of_ms, spec)
    newest_first = known.take(slice(start, None)).take(slice(None, None, -1))
    out_K = np.arange(min(most, newest_first.size, spec.max_history))
    kept_L = np.arange(max(0, newest_first.size - 1))
    kept_KL = kept_L + (kept_L >= out_K[:, None])
    tower = TowerInput._make(column[0][kept_KL] for column in whole)
    tower.gaps[out_K[1:], out_K[1:] - 1] = _gaps_across(newest_first.times_ms, out_K[1:], spec)
    return Without(tower, newest_first.take(out_K))


def _gaps_across(newest_first_ms: Int64s, out_K: Int64s, spec: bundle_pb2.FeatureSpec) -> Int64s:
    """Buckets the gaps between the neighbours of events that are left out, none of them the newest."""
    older_K = np.minimum(out_K + 1, len(newest_first_ms) - 1)
    gaps_K = _gap_buckets(newest_first_ms[out_K - 1] - newest_first_ms[older_K], spec)
    return np.where(out_K == older_K, _no_gap(spec), gaps_K)


def _readable(merged: Events, index: HistoryIndex, as_of_ms: int) -> tuple[Events, Int64s, int]:
    """Selects the events that the tower can read, with their rows; counts those of unknown movies."""
    if merged.size and merged.times_ms[-1] > as_of_ms:
        merged = merged.take(merged.times_ms <= as_of_ms)
    rows = index.rows(merged.movie_ids)
    known = rows >= 0
    unknown = merged.size - int(np.count_nonzero(known))
    return (merged.take(known), rows[known], unknown) if unknown else (merged, rows, 0)


def _tower_input(known: Events, rows: Int64s, start: int, as_of_ms: int, spec: bundle_pb2.FeatureSpec) -> TowerInput:
    """Encodes the events from `start` on, oldest first, as the tower's input (B = 1), newest first."""
    # One event more than is read: the oldest that is read has a gap to it.
    since = max(0, start - 1)
    first = np.zeros(known.size - since, bool)
    first[:1] = since == 0
    gaps = gap_buckets(known.times_ms[since:], first, spec)[start - since :][::-1]
    read = known.take(slice(start, None))
    return TowerInput(
        rows=rows[start:][::-1][None],
        ratings=rating_signal(read.kinds, read.values)[None, ::-1],
        ages=age_buckets(read.times_ms, as_of_ms, spec)[None, ::-1],
        gaps=gaps[None],
        kinds=read.kinds[None, ::-1],
    )


def pad_batch(inputs: list[TowerInput]) -> TowerInput:
    """Stacks tower inputs of different lengths, padding on the right with 0."""
    length = max((one.rows.shape[1] for one in inputs), default=0)
    people = sum(len(one.rows) for one in inputs)

    def stack(column: int) -> npt.NDArray[np.int64]:
        out = np.zeros((people, length), inputs[0][column].dtype)
        row = 0
        for one in inputs:
            part = one[column]
            out[row : row + len(part), : part.shape[1]] = part
            row += len(part)
        return out

    rows, ratings, ages, gaps, kinds = (stack(column) for column in range(5))
    return TowerInput(rows, ratings.astype(np.float32, copy=False), ages, gaps, kinds)


_WORD = re.compile(r"\w+")


def content_tokens(movie: MovieRecord) -> list[str]:
    """Lists a movie's content as tokens: genres, year and decade, language, people, title words."""
    tokens = [f"genre:{genre.casefold()}" for genre in movie.genres]
    if movie.year is not None:
        tokens += [f"year:{movie.year}", f"decade:{movie.year // 10}"]
    if movie.language:
        tokens.append(f"language:{movie.language.casefold()}")
    tokens += [f"director:{fold(name)}" for name in movie.directors]
    tokens += [f"title:{word}" for word in _WORD.findall(fold(movie.title)) if len(word) > 2]
    tokens += [f"cast:{fold(name)}" for name in movie.cast]
    return tokens


def content_ids(movies: list[MovieRecord], spec: bundle_pb2.FeatureSpec) -> Int64s:
    """Hashes the content tokens of movies to [N, T]: 1 to content_buckets, 0 where padded."""
    ids_NT = np.zeros((len(movies), spec.max_content_tokens), np.int64)
    for row, movie in enumerate(movies):
        hashed = sorted(
            {_bucket(token, spec.content_buckets) for token in content_tokens(movie)[: spec.max_content_tokens]}
        )
        ids_NT[row, : len(hashed)] = hashed
    return ids_NT


def _bucket(token: str, buckets: int) -> int:
    return 1 + int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest(), "little") % buckets


def fold(text: str) -> str:
    """Folds case and strips diacritics: "Amélie" is "amelie"."""
    folded = text.casefold()
    if folded.isascii():
        return folded
    decomposed = unicodedata.normalize("NFKD", folded)
    return "".join(char for char in decomposed if not unicodedata.combining(char))
