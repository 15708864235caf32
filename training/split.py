"""The `last` protocol: each person's last event is the test target, the one before it the validation target.

Ties in time are broken by a hash of (user, movie), never by the file's order. E events, Q queries, N movies.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import DataError
from marquee.features import Events, Floats, Int64s, TowerInput, rating_signal, tie_hash, user_hash
from training.batches import EventLog, event_log, histories
from training.data import Dataset

LIKED_STARS = 4.0


class Queries(NamedTuple):
    """Holds Q queries: the event at `ends[q]` of `log` is the target, and what sorts before it is the history."""

    log: EventLog
    ends: Int64s

    @property
    def size(self) -> int:
        """Says how many queries there are."""
        return len(self.ends)

    @property
    def users(self) -> Int64s:
        """Lists the people that ask, [Q]."""
        return self.log.users[self.ends]

    @property
    def targets(self) -> Int64s:
        """Lists the target items, [Q]."""
        return self.log.items[self.ends]

    def part(self, of: slice) -> Queries:
        """Selects some of the queries."""
        return Queries(self.log, self.ends[of])

    def seen(self, movies: int) -> npt.NDArray[np.bool_]:
        """Marks what stands in each history, [Q, N]."""
        starts = self.log.starts[self.users]
        lengths = self.ends - starts
        rows = np.repeat(np.arange(self.size), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        seen_QN = np.zeros((self.size, movies), bool)
        seen_QN[rows, self.log.items[np.repeat(starts, lengths) + within]] = True
        return seen_QN

    def tower_input(self, spec: bundle_pb2.FeatureSpec) -> TowerInput:
        """Builds the user tower's input [Q, L] as of each target's moment."""
        return histories(self.log, self.ends, self.log.times_ms[self.ends], spec)

    def events(self, query: int, movie_ids: Int64s) -> Events:
        """Selects the history of one query as raw events, oldest first."""
        end = int(self.ends[query])
        of = slice(int(self.log.starts[self.log.users[end]]), end)
        return Events(movie_ids[self.log.items[of]], self.log.kinds[of], self.log.values[of], self.log.times_ms[of])

    def liked(self) -> npt.NDArray[np.bool_]:
        """Marks targets that were liked, [Q]: at least 4 stars, or at least the person's mean before them."""
        stars = rating_signal(self.log.kinds, self.log.values) * 2.0 + 3.0
        sums = np.concatenate([[0.0], np.cumsum(stars, dtype=np.float64)])
        starts = self.log.starts[self.users]
        means_Q = (sums[self.ends] - sums[starts]) / np.maximum(self.ends - starts, 1)
        liked: npt.NDArray[np.bool_] = (stars[self.ends] >= LIKED_STARS) | (stars[self.ends] >= means_Q)
        return liked

    def hashes(self, user_ids: list[str], movie_ids: Int64s) -> npt.NDArray[np.uint64]:
        """Names each query by a hash of (user, target), [Q]: the same in every run, and no person's id."""
        people = np.array([user_hash(user_ids[user]) for user in self.users], np.uint64)
        return tie_hash(people, movie_ids[self.targets])


class Split(NamedTuple):
    """Holds one `last` split.

    `before_test` ends before each person's test target, `train` before their validation target. Where nobody has
    events enough for a validation target, `validation` has no queries.
    """

    train: EventLog
    before_test: EventLog
    validation: Queries
    test: Queries


def last_split(data: Dataset, spec: bundle_pb2.FeatureSpec) -> Split:
    """Splits by each person's last two eligible events; raises DataError where nobody has one after another event."""
    log = event_log(data, spec)
    test = Queries(log, log.last_targets())
    before_test = before(test, spec)
    validation = Queries(before_test, before_test.last_targets())
    train = before(validation, spec)
    if test.size == 0:
        raise DataError(
            f"{data.name}: nobody has two events, so there is nothing to learn from or to test on; "
            "use data with more events a person"
        )
    return Split(train, before_test, validation, test)


def before(queries: Queries, spec: bundle_pb2.FeatureSpec) -> EventLog:
    """Drops each query's target and what the person did after it."""
    log = queries.log
    until = log.starts[1:].copy()
    until[queries.users] = queries.ends
    return log.only(np.arange(log.size) < until[log.users], spec)


def watched(log: EventLog, movies: int) -> Floats:
    """Marks who watched what, [U, N], as 0 and 1."""
    watched_UN = np.zeros((len(log.starts) - 1, movies), np.float32)
    watched_UN[log.users, log.items] = 1.0
    return watched_UN
