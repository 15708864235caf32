"""Every case of merging is a table row here, and a slow twin in plain Python checks what no table thought of."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import BundleError
from marquee.features import (
    AGE_EDGES_S,
    CLICKED,
    GAP_EDGES_S,
    LIKED,
    NO_EVENTS,
    NOT_INTERESTED,
    RATED,
    RETRACTED,
    WATCHED,
    Events,
    HistoryIndex,
    TowerInput,
    age_buckets,
    check_spec,
    current,
    encode_history,
    encode_without_each,
    feature_spec,
    gap_buckets,
    merge,
    pad_batch,
    rating_signal,
    seen_ids,
    tie_hash,
    union,
    union_newer,
    user_hash,
)

SPEC = feature_spec(max_history=3, dimension=4, content_buckets=8, max_content_tokens=4)
USER = user_hash("ada")
DAY_MS = 86_400_000


class Row(NamedTuple):
    movie: int
    kind: int
    value: float
    time: int


def events(*rows: Row) -> Events:
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return Events(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.int64),
        np.array(columns[2], np.float32),
        np.array(columns[3], np.int64),
    )


def rows_of(of: Events) -> list[Row]:
    return [Row(*row) for row in zip(*(column.tolist() for column in of), strict=True)]


def rated(movie: int, stars: float, time: int) -> Row:
    return Row(movie, RATED, stars, time)


def liked(movie: int, time: int) -> Row:
    return Row(movie, LIKED, 0.0, time)


def retracted(movie: int, time: int) -> Row:
    return Row(movie, RETRACTED, 0.0, time)


MERGES = {
    "nothing and nothing": ([], [], []),
    "only stored": ([rated(1, 4, 10)], [], [rated(1, 4, 10)]),
    "only sent": ([], [rated(1, 4, 10)], [rated(1, 4, 10)]),
    "oldest first, whatever the order of arrival": (
        [liked(3, 30)],
        [liked(2, 20), liked(1, 10)],
        [liked(1, 10), liked(2, 20), liked(3, 30)],
    ),
    "the later rating of a movie wins": ([rated(1, 4, 10)], [rated(1, 2, 20)], [rated(1, 2, 20)]),
    "the later wins where it is the stored one": ([rated(1, 4, 20)], [rated(1, 2, 10)], [rated(1, 4, 20)]),
    "at equal time the request wins": ([rated(1, 4, 10)], [rated(1, 2, 10)], [rated(1, 2, 10)]),
    "at equal time inside a request the last wins": ([], [rated(1, 4, 10), rated(1, 2, 10)], [rated(1, 2, 10)]),
    "another kind of the same movie stays": ([rated(1, 4, 10)], [liked(1, 20)], [rated(1, 4, 10), liked(1, 20)]),
    "kinds of one movie at one time are in order": ([liked(1, 10)], [rated(1, 4, 10)], [rated(1, 4, 10), liked(1, 10)]),
    "a retraction drops itself and what is before it": ([rated(1, 4, 10), liked(1, 11)], [retracted(1, 20)], []),
    "a retraction drops what is of its own time": ([rated(1, 4, 20)], [retracted(1, 20)], []),
    "a retraction leaves what is after it": ([rated(1, 4, 21)], [retracted(1, 20)], [rated(1, 4, 21)]),
    "a retraction leaves other movies": ([rated(2, 4, 10)], [retracted(1, 20)], [rated(2, 4, 10)]),
    "an earlier retraction after a later one changes nothing": (
        [retracted(1, 20)],
        [retracted(1, 5), liked(1, 15)],
        [],
    ),
    "a late older event stays retracted": ([retracted(1, 20)], [rated(1, 4, 10)], []),
}


@pytest.mark.parametrize(("stored", "sent", "expected"), MERGES.values(), ids=MERGES)
def test_merge(stored: list[Row], sent: list[Row], expected: list[Row]) -> None:
    assert rows_of(merge(events(*stored), events(*sent), USER)) == expected


def test_union_keeps_the_retraction_and_drops_what_it_covers() -> None:
    united = union(events(rated(1, 4, 10), liked(2, 15)), events(retracted(1, 20)), USER)
    assert rows_of(united) == [liked(2, 15), retracted(1, 20)]
    assert rows_of(current(united)) == [liked(2, 15)]


def test_equal_times_are_ordered_by_a_hash_of_user_and_movie() -> None:
    together = events(*(liked(movie, 10) for movie in range(1, 9)))
    ada, bob = (merge(together, NO_EVENTS, user_hash(name)).movie_ids.tolist() for name in ("ada", "bob"))
    assert sorted(ada) == sorted(bob) == list(range(1, 9))
    assert ada != bob
    assert list(range(1, 9)) not in (ada, bob), "the order of ids would leak which movie comes last"


def test_seen_is_every_movie_once_ascending() -> None:
    merged = merge(events(liked(9, 1), rated(2, 3, 2)), events(liked(2, 3), rated(5, 1, 0)), USER)
    assert seen_ids(merged).tolist() == [2, 5, 9]
    assert seen_ids(NO_EVENTS).tolist() == []


# Few movies, kinds and times, so that every tie and every retraction comes up.
ROW = st.builds(
    Row,
    movie=st.integers(1, 4),
    kind=st.sampled_from([RATED, LIKED, CLICKED, RETRACTED]),
    value=st.sampled_from([0.5, 3.0, 5.0]),
    time=st.integers(0, 5),
)
ROWS = st.lists(ROW, max_size=12)


def slow_merge(rows: list[Row], user: int) -> list[Row]:
    latest: dict[tuple[int, int], Row] = {}
    for row in rows:
        known = latest.get((row.movie, row.kind))
        if known is None or row.time >= known.time:
            latest[row.movie, row.kind] = row
    taken_back = {movie: row.time for (movie, kind), row in latest.items() if kind == RETRACTED}
    holds = [row for row in latest.values() if row.time > taken_back.get(row.movie, -1)]

    def place(row: Row) -> tuple[int, int, int]:
        return row.time, int(tie_hash(user, np.array([row.movie], np.int64))[0]), row.kind

    return sorted(holds, key=place)


@given(ROWS, ROWS)
def test_merge_equals_its_slow_twin(stored: list[Row], sent: list[Row]) -> None:
    assert rows_of(merge(events(*stored), events(*sent), USER)) == slow_merge(stored + sent, USER)


@given(ROWS, ROWS, ROWS)
def test_a_store_that_keeps_unions_loses_nothing(first: list[Row], second: list[Row], sent: list[Row]) -> None:
    kept = union(union(NO_EVENTS, events(*first), USER), events(*second), USER)
    assert rows_of(merge(kept, events(*sent), USER)) == slow_merge(first + second + sent, USER)


@given(ROWS, ROWS)
def test_writing_again_changes_nothing(stored: list[Row], sent: list[Row]) -> None:
    # Inside one write the last of equal keys wins, so only what has won is surely the same when it comes again.
    once = union(events(*stored), events(*sent), USER)
    assert rows_of(union(once, once, USER)) == rows_of(once)
    assert rows_of(union(once, events(*sent), USER)) == rows_of(once)


@given(ROWS, ROWS)
def test_current_of_a_union_is_the_merge(stored: list[Row], sent: list[Row]) -> None:
    united = union(events(*stored), events(*sent), USER)
    assert rows_of(current(united)) == rows_of(merge(events(*stored), events(*sent), USER))


@given(ROWS, ROWS)
def test_newer_events_are_united_as_any_are(first: list[Row], second: list[Row]) -> None:
    history = union(NO_EVENTS, events(*first), USER)
    newer = events(*(row._replace(time=row.time + 6) for row in second))
    assert rows_of(union_newer(history, newer, USER)) == rows_of(union(history, newer, USER))


INDEX = HistoryIndex(np.array([30, 10, 20, 40], np.int64))


def test_index_finds_rows_of_unsorted_ids_and_misses_the_rest() -> None:
    assert INDEX.rows(np.array([10, 20, 30, 40, 5, 25, 99], np.int64)).tolist() == [1, 2, 0, 3, -1, -1, -1]
    assert INDEX.rows(np.zeros(0, np.int64)).tolist() == []


def test_index_of_an_empty_table_knows_nothing() -> None:
    assert HistoryIndex(np.zeros(0, np.int64)).rows(np.array([1, 2], np.int64)).tolist() == [-1, -1]


@given(st.lists(st.integers(1, 40), max_size=12), st.lists(st.sampled_from([*range(45), 2**62]), max_size=12))
def test_a_table_of_ids_finds_what_a_search_finds(ids: list[int], asked: list[int]) -> None:
    # With an id too large for a table, everything is searched for.
    indices = (HistoryIndex(np.array(ids, np.int64)), HistoryIndex(np.array([*ids, 2**60], np.int64)))
    by_table, by_search = (index.rows(np.array(asked, np.int64)) for index in indices)
    assert by_table.dtype == by_search.dtype
    assert by_table.tolist() == by_search.tolist() == [ids.index(one) if one in ids else -1 for one in asked]


def test_history_runs_newest_first_with_ages_from_as_of_and_gaps_between() -> None:
    history = events(rated(10, 5, 0), Row(20, WATCHED, 0, 30_000), rated(30, 1, DAY_MS))
    encoded = encode_history(history, INDEX, 2 * DAY_MS, SPEC)
    assert (encoded.used, encoded.unknown, encoded.truncated, encoded.newest_ms) == (3, 0, 0, DAY_MS)
    tower = encoded.tower
    assert tower.rows.tolist() == [[0, 2, 1]]
    assert tower.kinds.tolist() == [[RATED, WATCHED, RATED]]
    # (stars - 3) / 2: one star, the 3.5 that watching stands for, five stars.
    assert tower.ratings.tolist() == [[-1.0, 0.25, 1.0]]
    # One day is bucket 5 (edge 86,400 s), almost two and two days the next.
    assert tower.ages.tolist() == [[5, 6, 6]]
    # A day less 30 s, 30 s, and the first event.
    assert tower.gaps.tolist() == [[6, 3, len(GAP_EDGES_S) + 2]]


def test_only_the_newest_are_read_and_the_rest_is_counted() -> None:
    history = events(*(rated(movie, 4, time) for time, movie in enumerate([10, 77, 20, 30, 40])))
    encoded = encode_history(history, INDEX, 10, SPEC)
    assert encoded.tower.rows.tolist() == [[3, 0, 2]]
    assert (encoded.used, encoded.unknown, encoded.truncated, encoded.newest_ms) == (3, 1, 1, 4)
    # The oldest that is read is not the first event: its gap is the one to the event that was cut off.
    assert encoded.tower.gaps[0, 2] != len(GAP_EDGES_S) + 2


def test_events_after_as_of_are_not_read() -> None:
    encoded = encode_history(events(rated(10, 4, 5), rated(20, 4, 6)), INDEX, 5, SPEC)
    assert (encoded.used, encoded.newest_ms) == (1, 5)


def test_no_event_is_an_input_of_length_0() -> None:
    encoded = encode_history(events(rated(99, 4, 5)), INDEX, 9, SPEC)
    assert [column.shape for column in encoded.tower] == [(1, 0)] * 5
    assert (encoded.used, encoded.unknown, encoded.newest_ms) == (0, 1, 0)


# Movies 5 and 6 are unknown, histories are longer and shorter than what is read, and some events are after `as_of`.
HISTORY = st.lists(
    st.builds(
        Row,
        movie=st.sampled_from([10, 20, 30, 40, 5, 6]),
        kind=st.sampled_from([RATED, LIKED, CLICKED]),
        value=st.sampled_from([0.5, 3.0, 5.0]),
        time=st.sampled_from([0, 5_000, 60_000, DAY_MS, 9 * DAY_MS, 400 * DAY_MS]),
    ),
    max_size=10,
)


@given(HISTORY, st.integers(1, 4), st.integers(1, 5))
def test_without_each_is_the_encoding_of_the_history_without_it(rows: list[Row], longest: int, most: int) -> None:
    spec = feature_spec(max_history=longest, dimension=4, content_buckets=8, max_content_tokens=4)
    merged, as_of_ms = merge(events(*rows), NO_EVENTS, USER), 10 * DAY_MS
    without = encode_without_each(merged, INDEX, as_of_ms, spec, most)
    read = encode_history(merged, INDEX, as_of_ms, spec)
    assert without.events.size == len(without.tower.rows) == min(most, read.used)
    for number, out in enumerate(rows_of(without.events)):
        rest = events(*(row for row in rows_of(merged) if row != out))
        expected = encode_history(rest, INDEX, as_of_ms, spec).tower
        assert [column[number].tolist() for column in without.tower] == [column[0].tolist() for column in expected]
    assert without.events.kinds.tolist() == read.tower.kinds[0, : without.events.size].tolist()


AGES = [
    (0, 1),
    (60, 1),
    (61, 2),
    (600, 2),
    (3_600, 3),
    (86_400, 5),
    (86_401, 6),
    (730 * 86_400, len(AGE_EDGES_S)),
    (731 * 86_400, len(AGE_EDGES_S) + 1),
    (50 * 365 * 86_400, len(AGE_EDGES_S) + 1),
]


@pytest.mark.parametrize(("age_s", "bucket"), AGES)
def test_an_age_on_an_edge_is_in_the_edges_bucket(age_s: int, bucket: int) -> None:
    as_of_ms = 100 * 365 * DAY_MS
    assert age_buckets(np.array([as_of_ms - age_s * 1000]), as_of_ms, SPEC).tolist() == [bucket]


def test_gaps_are_between_neighbours_and_a_first_event_has_a_bucket_of_its_own() -> None:
    times_ms = np.array([500, 500, 10_500, 10_501, 10_501 + 366 * DAY_MS, 7], np.int64)
    first = np.array([True, False, False, False, False, True])
    none = len(GAP_EDGES_S) + 2
    assert gap_buckets(times_ms, first, SPEC).tolist() == [none, 1, 2, 2, len(GAP_EDGES_S) + 1, none]


def test_rating_signal_is_the_stars_or_what_the_kind_stands_for() -> None:
    kinds = np.array([RATED, RATED, LIKED, NOT_INTERESTED, CLICKED], np.int64)
    values = np.array([0.5, 5, 0, 0, 0], np.float32)
    assert rating_signal(kinds, values).tolist() == [-1.25, 1.0, 0.75, -1.0, 0.0]


def test_batches_are_padded_on_the_right_with_kind_0() -> None:
    histories = [events(), events(rated(10, 5, 1)), events(rated(20, 4, 1), rated(30, 1, 2))]
    encoded = [encode_history(history, INDEX, 3, SPEC).tower for history in histories]
    batch = pad_batch(encoded)
    assert batch.kinds.tolist() == [[0, 0], [RATED, 0], [RATED, RATED]]
    assert batch.ratings.tolist() == [[0, 0], [1, 0], [-1, 0.5]]
    assert batch.ratings.dtype == np.float32
    for row, one in enumerate(encoded):
        length = one.rows.shape[1]
        for name in TowerInput._fields:
            padded, column = getattr(batch, name), getattr(one, name)
            assert padded[row, :length].tolist() == column[0].tolist()
            assert not padded[row, length:].any()


def test_a_batch_of_empty_histories_has_length_0() -> None:
    empty = encode_history(NO_EVENTS, INDEX, 0, SPEC).tower
    assert isinstance(empty, TowerInput)
    assert pad_batch([empty, empty]).rows.shape == (2, 0)


# Fixed for good: another value would reorder every history with equal times, in every store and every bundle.
# Each is what `printf ada | b2sum -l 64` prints, its bytes read from the last.
USER_HASHES = {
    "": 0xB4B2797457A0A6E4,
    "1": 0x7637BA9F0342FCF6,
    "ada": 0x2705162143DAB015,
    "日本": 0x3A9B54E1CF3533E8,
}


@pytest.mark.parametrize(("user_id", "expected"), USER_HASHES.items())
def test_user_hash_is_fixed(user_id: str, expected: int) -> None:
    assert user_hash(user_id) == expected


def test_tie_hash_is_fixed() -> None:
    ties = tie_hash(0x2705162143DAB015, np.array([1, 2, 2**63 - 1], np.int64))
    assert ties.tolist() == [0xE189AA4F4C75C5E0, 0xCBDD479A7ED99C5E, 0x0E3ED080051F8F21]


def test_a_spec_of_another_version_is_refused_by_number() -> None:
    check_spec(SPEC)
    with pytest.raises(BundleError, match="version 9 is not implemented here"):
        check_spec(bundle_pb2.FeatureSpec(version=9))
