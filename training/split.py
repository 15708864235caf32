"""Three protocols: `last` (each person's last event), `users` (held-out people, 80/20) and `time` (one global cut).

Ties in time are broken by a hash of (user, movie), never by the file's order. E events, U people, Q queries, T
targets of all queries, N movies, K list length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import ConfigError, DataError
from marquee.features import Events, Int64s, TowerInput, rating_signal, tie_hash, user_hash
from training.batches import EventLog, event_log, histories
from training.data import Dataset

LIKED_STARS = 4.0
FOLDS = 5
_VALIDATED = 10
_HELD_OUT_SHARE = 0.2
_LATE_SHARE = 0.1
# Draws must not follow the order of ties, which hashes (user, movie) as well.
_DRAW = np.uint64(0x5DEECE66D1CE4E5B)

Mask = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]


class Queries(NamedTuple):
    """Holds Q queries: the history of query q is `log` from its person's first event to `ends[q]`, exclusive.

    Its targets are `targets[offsets[q]:offsets[q + 1]]`, at least one; `liked_T` marks those with at least 4 stars, or
    at least the mean of the history. `as_of_ms` is the moment that ages are measured from.
    """

    log: EventLog
    users: Int64s
    ends: Int64s
    as_of_ms: Int64s
    targets: Int64s
    offsets: Int64s
    liked_T: Mask

    @property
    def size(self) -> int:
        """Says how many queries there are."""
        return len(self.users)

    @property
    def starts(self) -> Int64s:
        """Lists where each history starts in the log, [Q]."""
        return self.log.starts[self.users]

    @property
    def counts(self) -> Int64s:
        """Lists how many targets each query has, [Q]."""
        return np.diff(self.offsets)

    def part(self, of: slice) -> Queries:
        """Selects some of the queries."""
        return self.take(np.arange(self.size)[of])

    def take(self, chosen: Int64s) -> Queries:
        """Selects queries by their numbers."""
        counts_Q = self.counts[chosen]
        offsets = _offsets(counts_Q)
        flat = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], counts_Q)
        return Queries(
            self.log,
            self.users[chosen],
            self.ends[chosen],
            self.as_of_ms[chosen],
            self.targets[flat],
            offsets,
            self.liked_T[flat],
        )

    def sample(self, limit: int) -> Queries:
        """Draws at most so many queries, the same ones every time."""
        if self.size <= limit:
            return self
        return self.take(np.sort(np.random.default_rng(0).permutation(self.size)[:limit]).astype(np.int64))

    def only(self, keep_T: Mask) -> Queries:
        """Selects targets, and the queries that have one of them."""
        counts_Q = self.kept(keep_T)
        asks = counts_Q > 0
        return Queries(
            self.log,
            self.users[asks],
            self.ends[asks],
            self.as_of_ms[asks],
            self.targets[keep_T],
            _offsets(counts_Q[asks]),
            self.liked_T[keep_T],
        )

    def only_liked(self) -> Queries:
        """Selects the liked targets, and the queries that have one."""
        return self.only(self.liked_T)

    def kept(self, keep_T: Mask) -> Int64s:
        """Counts the marked targets of each query, [Q]."""
        return np.add.reduceat(keep_T, self.offsets[:-1], dtype=np.int64) if self.size else self.counts

    def history_positions(self) -> tuple[Int64s, Int64s]:
        """Lists all events of all histories: the query and the position in the log of each."""
        lengths_Q = self.ends - self.starts
        queries = np.repeat(np.arange(self.size), lengths_Q)
        within = np.arange(len(queries)) - np.repeat(np.cumsum(lengths_Q) - lengths_Q, lengths_Q)
        return queries, np.repeat(self.starts, lengths_Q) + within

    def seen(self, movies: int) -> Mask:
        """Marks what stands in each history, [Q, N]."""
        queries, positions = self.history_positions()
        seen_QN = np.zeros((self.size, movies), bool)
        seen_QN[queries, self.log.items[positions]] = True
        return seen_QN

    def hits(self, items_QK: Int64s) -> Mask:
        """Marks which of the ranked items are targets of their query, [Q, K]."""
        hits_QK = np.zeros(items_QK.shape, bool)
        places_T = self.places(items_QK)
        found_T = places_T < items_QK.shape[1]
        hits_QK[np.repeat(np.arange(self.size), self.counts)[found_T], places_T[found_T]] = True
        return hits_QK

    def places(self, items_QK: Int64s) -> Int64s:
        """Finds each target's place in the ranked items of its query, [T]: from 0, and K where it is not there."""
        base = 1 + int(max(self.targets.max(initial=0), items_QK.max(initial=0)))
        rows = np.arange(self.size)
        listed = np.where(items_QK >= 0, rows[:, None] * base + items_QK, -1).ravel()
        wanted_T = np.repeat(rows, self.counts) * base + self.targets
        order = np.argsort(listed, kind="stable")
        at_T = order[np.minimum(np.searchsorted(listed[order], wanted_T), max(len(order) - 1, 0))]
        places_T: Int64s = np.where(listed[at_T] == wanted_T, at_T % items_QK.shape[1], items_QK.shape[1])
        return places_T

    def tower_input(self, spec: bundle_pb2.FeatureSpec) -> TowerInput:
        """Builds the user tower's input [Q, L] as of each query's moment."""
        return histories(self.log, self.ends, self.as_of_ms, spec, users=self.users)

    def events(self, query: int, movie_ids: Int64s) -> Events:
        """Selects the history of one query as raw events, oldest first."""
        of = slice(int(self.log.starts[self.users[query]]), int(self.ends[query]))
        log = self.log
        kinds = log.kinds[of].astype(np.int64)
        return Events(movie_ids[log.items[of]], kinds, log.values[of], log.times_ms[of])

    def hashes(self, user_ids: list[str], movie_ids: Int64s) -> Hashes:
        """Names each query by a hash of its person and targets, [Q]: the same in every run, and no person's id."""
        people_T = np.repeat(_user_hashes([user_ids[user] for user in self.users]), self.counts)
        hashes_T = tie_hash(people_T, movie_ids[self.targets])
        return np.bitwise_xor.reduceat(hashes_T, self.offsets[:-1]) if self.size else hashes_T


class Split(NamedTuple):
    """Holds one split, or one fold of the five of `users`.

    Towers learn from `train`, without validation and test events; baselines, once tuned, are refitted on `fit`, which
    has what validation held out as well. `skipped` people of the test part are no queries, having no history or no
    target. `validation` may have no queries.
    """

    protocol: str
    fold: int
    train: EventLog
    fit: EventLog
    validation: Queries
    test: Queries
    skipped: int = 0


def splits(data: Dataset, spec: bundle_pb2.FeatureSpec, protocol: str) -> list[Split]:
    """Splits by a protocol: one split for `last` and `time`, five for `users`.

    Raises DataError where it leaves nothing to learn from or to test on.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol is {protocol!r}; it must be one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol](data, event_log(data, spec), spec)


def _last(data: Dataset, log: EventLog, spec: bundle_pb2.FeatureSpec) -> list[Split]:
    test = last_queries(log)
    if test.size == 0:
        raise DataError(
            f"{data.name}: nobody has two events, so there is nothing to learn from or to test on; "
            "use data with more events a person"
        )
    fit = before(test, spec)
    validation = last_queries(fit)
    return [Split("last", 0, before(validation, spec), fit, validation, test, _people(log) - test.size)]


def last_queries(log: EventLog) -> Queries:
    """Asks for every person's last eligible event, as of its time, by what sorts before it."""
    ends = log.last_targets()
    users = log.users[ends].astype(np.int64)
    return _queries(log, users, ends, log.times_ms[ends], ends, log, _offsets(np.ones(len(ends), np.int64)))


def before(queries: Queries, spec: bundle_pb2.FeatureSpec) -> EventLog:
    """Drops what each asking person did from the end of the history on."""
    log = queries.log
    until = log.starts[1:].copy()
    until[queries.users] = queries.ends
    return log.only(np.arange(log.size) < until[log.users], spec)


def _users(data: Dataset, log: EventLog, spec: bundle_pb2.FeatureSpec) -> list[Split]:
    """Deals people into five folds by a hash of their ids."""
    hashes_U = _user_hashes(data.user_ids)
    place_U = np.argsort(np.argsort(hashes_U ^ _DRAW, kind="stable"), kind="stable")
    held_out_E = _held_out(log, tie_hash(hashes_U[log.users] ^ _DRAW, data.movie_ids[log.items]))
    if _people(log) < FOLDS or not held_out_E.any():
        raise DataError(
            f"{data.name}: {_people(log)} people, of whom {len(np.unique(log.users[held_out_E]))} have two movies, are "
            f"too few for {FOLDS} folds; use data with more people"
        )
    return [_users_fold(log, place_U, held_out_E, fold, spec) for fold in range(FOLDS)]


def _users_fold(log: EventLog, place_U: Int64s, held_out_E: Mask, fold: int, spec: bundle_pb2.FeatureSpec) -> Split:
    tested_U = place_U % FOLDS == fold
    validated_U = ~tested_U & (place_U // FOLDS % _VALIDATED == _VALIDATED - 1)
    fit = log.only(~tested_U[log.users], spec)
    train = log.only(~(tested_U | validated_U)[log.users], spec)
    validation = _fold_in(log, validated_U, held_out_E, spec)
    test = _fold_in(log, tested_U, held_out_E, spec)
    return Split("users", fold, train, fit, validation, test, int(np.count_nonzero(tested_U)) - test.size)


def _held_out(log: EventLog, draw_E: Hashes) -> Mask:
    """Marks a fifth of each person's movies, by draw: all their events, [E]; at least one movie, and not all."""
    first_E, pair_E = _first_events(log)
    firsts = np.flatnonzero(first_E)
    people = log.users[firsts]
    order = np.lexsort((draw_E[firsts], people))
    counts_U = np.bincount(people, minlength=_people(log))
    rank = np.arange(len(firsts)) - np.repeat(np.cumsum(counts_U) - counts_U, counts_U)
    quota_U = np.minimum(np.maximum(np.round(_HELD_OUT_SHARE * counts_U).astype(np.int64), 1), counts_U - 1)
    held_P = np.zeros(len(firsts), bool)
    held_P[pair_E[firsts[order]]] = rank < quota_U[people]
    return held_P[pair_E]


def _first_events(log: EventLog) -> tuple[Mask, Int64s]:
    """Marks each person's first event on a movie, and numbers (person, movie) pairs, both [E]."""
    pairs = log.users.astype(np.int64) * (int(log.items.max(initial=0)) + 1) + log.items
    _, first, number = np.unique(pairs, return_index=True, return_inverse=True)
    first_E = np.zeros(log.size, bool)
    first_E[first] = True
    return first_E, number.astype(np.int64)


def _fold_in(log: EventLog, asks_U: Mask, held_out_E: Mask, spec: bundle_pb2.FeatureSpec) -> Queries:
    """Asks for what was held out of some people by the rest, as a server would when the data end."""
    asks_E = asks_U[log.users]
    history = log.only(asks_E & ~held_out_E, spec)
    as_of_U = np.full(_people(log), log.times_ms.max(initial=0))
    return by_person(history, log, log.is_eligible() & asks_E & held_out_E, as_of_U)


def by_person(history: EventLog, log: EventLog, target_E: Mask, as_of_U: Int64s) -> Queries:
    """Asks once for each person with a history and targets: by all of the history."""
    target_E = target_E & (np.diff(history.starts) > 0)[log.users]
    positions = np.flatnonzero(target_E)
    users, counts = np.unique(log.users[positions].astype(np.int64), return_counts=True)
    ends = history.starts[users + 1]
    return _queries(history, users, ends, as_of_U[users], positions, log, _offsets(counts))


def _time(data: Dataset, log: EventLog, spec: bundle_pb2.FeatureSpec) -> list[Split]:
    """Cuts at the last tenth of all events, and for validation at the last tenth of what is before."""
    fit, test = _cut(log, spec)
    if fit.size == 0 or test.size == 0:
        raise DataError(
            f"{data.name}: no cut in time leaves events before it and, of the same people, movies after it; "
            "use the protocols `last` and `users`"
        )
    train, validation = _cut(fit, spec)
    if train.size == 0:
        train = fit
    late = np.unique(log.users[log.times_ms >= test.as_of_ms[0]])
    return [Split("time", 0, train, fit, validation, test, len(late) - test.size)]


def _cut(log: EventLog, spec: bundle_pb2.FeatureSpec) -> tuple[EventLog, Queries]:
    """Cuts at the time of the first of the last tenth of events; returns what is before, and who asks for the rest."""
    times_ms = np.sort(log.times_ms)
    cut_ms = times_ms[int((1 - _LATE_SHARE) * len(times_ms))] if len(times_ms) else np.int64(0)
    early_E = log.times_ms < cut_ms
    history = log.only(early_E, spec)
    return history, by_person(history, log, log.is_eligible() & ~early_E, np.full(_people(log), cut_ms, np.int64))


PROTOCOLS: dict[str, Callable[[Dataset, EventLog, bundle_pb2.FeatureSpec], list[Split]]] = {
    "last": _last,
    "users": _users,
    "time": _time,
}


def _queries(
    history: EventLog,
    users: Int64s,
    ends: Int64s,
    as_of_ms: Int64s,
    positions: Int64s,
    log: EventLog,
    offsets: Int64s,
) -> Queries:
    """Makes queries whose targets are events of `log`, and says which of them were liked."""
    stars = rating_signal(history.kinds, history.values) * 2.0 + 3.0
    sums = np.concatenate([[0.0], np.cumsum(stars, dtype=np.float64)])
    starts = history.starts[users]
    means_Q = (sums[ends] - sums[starts]) / np.maximum(ends - starts, 1)
    stars_T = rating_signal(log.kinds[positions], log.values[positions]) * 2.0 + 3.0
    liked_T: Mask = (stars_T >= LIKED_STARS) | (stars_T >= np.repeat(means_Q, np.diff(offsets)))
    return Queries(history, users, ends, as_of_ms, log.items[positions].astype(np.int64), offsets, liked_T)


def liked_events(log: EventLog) -> Mask:
    """Marks events of at least 4 stars, or at least the mean of the person's earlier ones, [E]."""
    starts = log.starts[log.users]
    stars = rating_signal(log.kinds, log.values) * 2.0 + 3.0
    sums = np.concatenate([[0.0], np.cumsum(stars, dtype=np.float64)])
    at = np.arange(log.size)
    means = (sums[at] - sums[starts]) / np.maximum(at - starts, 1)
    liked: Mask = (stars >= LIKED_STARS) | (stars >= means)
    return liked


def _people(log: EventLog) -> int:
    return len(log.starts) - 1


def _offsets(counts: Int64s) -> Int64s:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _user_hashes(user_ids: list[str]) -> Hashes:
    return np.array([user_hash(user_id) for user_id in user_ids], np.uint64)
