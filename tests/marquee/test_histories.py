"""Many people at once are merged and encoded to the bit as one by one."""

from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marquee.features import (
    CLICKED,
    LIKED,
    NO_EVENTS,
    RATED,
    RETRACTED,
    Events,
    HistoryIndex,
    TowerInput,
    current,
    encode_history,
    feature_spec,
    merge,
    pad_batch,
    seen_ids,
    union,
    user_hash,
)
from marquee.histories import Pair, _ascending_movies, encode_many, merge_many, newest_ms, seen_many
from tests.encoder_rigs import Row, events

DAY_MS = 86_400_000
AS_OF = 10 * DAY_MS
INDEX = HistoryIndex(np.array([30, 10, 20, 40], np.int64))

# Few movies, kinds and times, so that every tie and every retraction comes up; 5 and 2^62 are unknown.
ROWS = st.lists(
    st.builds(
        Row,
        movie=st.sampled_from([10, 20, 30, 40, 5, 2**62]),
        kind=st.sampled_from([RATED, LIKED, CLICKED, RETRACTED]),
        value=st.sampled_from([0.5, 3.0, 5.0]),
        time=st.sampled_from([0, 5_000, 60_000, DAY_MS, 9 * DAY_MS, 11 * DAY_MS]),
    ),
    max_size=9,
)
# Nothing twice and nothing taken back, as most requests are; times are equal more often than not.
PLAIN = st.lists(
    st.builds(
        Row,
        movie=st.sampled_from([10, 20, 30, 40, 5, 6, 7, 8]),
        kind=st.sampled_from([RATED, LIKED, CLICKED]),
        value=st.sampled_from([0.5, 3.0, 5.0]),
        time=st.sampled_from([0, 5_000, 9 * DAY_MS]),
    ),
    max_size=12,
    unique_by=lambda row: (row.movie, row.kind),
)
SENT = st.lists(st.tuples(st.sampled_from(["", "ada", "bob"]), st.builds(list[Row]), PLAIN), min_size=1, max_size=5)
PEOPLE = st.lists(st.tuples(st.sampled_from(["", "ada", "bob"]), ROWS, ROWS), min_size=1, max_size=5)
STORED = st.lists(st.tuples(st.sampled_from(["ada", "bob"]), ROWS, st.builds(list[Row])), min_size=1, max_size=5)


Someone = tuple[str, list[Row], list[Row]]


def made(rows: list[Row]) -> Events:
    return events(*rows) if rows else NO_EVENTS


def pairs(people: list[Someone]) -> list[Pair]:
    return [Pair(name, union(NO_EVENTS, made(stored), user_hash(name)), made(sent)) for name, stored, sent in people]


def lists(of: Events) -> list[list[float]]:
    return [column.tolist() for column in of]


@given(st.one_of(PEOPLE, STORED, SENT), st.integers(1, 6))
def test_many_are_as_one_by_one(people: list[Someone], longest: int) -> None:
    spec = feature_spec(max_history=longest, dimension=4, content_buckets=8, max_content_tokens=4)
    asked = pairs(people)
    merged = [
        merge(one.stored, one.sent, user_hash(one.user_id)) if one.sent.size else current(one.stored) for one in asked
    ]
    histories = merge_many(asked)
    assert histories.sizes_B.tolist() == [one.size for one in merged]
    assert lists(histories.events) == [list(chain(*parts)) for parts in zip(*map(lists, merged), strict=True)]
    assert [ids.tolist() for ids in seen_many(histories)] == [seen_ids(one).tolist() for one in merged]
    assert newest_ms(histories).tolist() == [one.times_ms[-1] if one.size else 0 for one in merged]
    as_of_ms = [AS_OF, 0, 12 * DAY_MS, 60_000, AS_OF][: len(people)]
    many = encode_many(histories, INDEX, np.array(as_of_ms), spec)
    single = [encode_history(one, INDEX, at, spec) for one, at in zip(merged, as_of_ms, strict=True)]
    padded = pad_batch([one.tower for one in single])
    for name in TowerInput._fields:
        ours, theirs = getattr(many.tower, name), getattr(padded, name)
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    accounts = zip(many.used_B, many.unknown_B, many.truncated_B, many.newest_ms_B, strict=True)
    assert list(accounts) == [(one.used, one.unknown, one.truncated, one.newest_ms) for one in single]


def test_people_with_nothing_twice_are_merged_by_packed_keys() -> None:
    # Otherwise the twins above would be the slow way alone.
    one = Pair("ada", made([Row(10, LIKED, 0, 5)]), made([Row(10, RATED, 4, 5), Row(2**44 - 1, LIKED, 0, 1)]))
    assert ascending_of(one) == [10, 10, 2**44 - 1]
    assert ascending_of(one._replace(stored=made([Row(10, RATED, 4, 9)]))) is None
    assert ascending_of(one._replace(stored=made([Row(30, RETRACTED, 0, 9)]))) is None
    assert ascending_of(one._replace(stored=made([Row(2**44, LIKED, 0, 9)]))) is None
    assert ascending_of(one._replace(stored=made([Row(30, LIKED, 0, 2**44)]))) is None
    assert ascending_of(one._replace(stored=made([Row(30, LIKED, 0, -1)]))) is None


def ascending_of(one: Pair) -> list[int] | None:
    both = one.sent.after(one.stored)
    found = _ascending_movies(both, np.zeros(both.size, np.int64))
    return None if found is None else found.tolist()


def test_nobody_is_an_input_of_nobody() -> None:
    histories = merge_many([])
    assert (histories.events.size, seen_many(histories)) == (0, [])
