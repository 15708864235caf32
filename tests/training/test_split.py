"""The three protocols: who asks, what they know, what is held out, and that nothing leaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from marquee import features
from marquee.errors import ConfigError, DataError
from marquee.features import DISLIKED, LIKED, RATED, HistoryIndex, encode_history, tie_hash, user_hash
from marquee.movies import MovieRecord
from tests.logs import log_of
from training.baselines.interactions import history
from training.batches import EventLog
from training.data import Dataset, LoadReport
from training.split import Queries, Split, last_queries, splits

SPEC = features.feature_spec(max_history=200, dimension=8, content_buckets=8, max_content_tokens=4)
MOVIES, PEOPLE = 40, 23


def dataset(rows: Sequence[tuple[int, int, int, float, int]], people: int, movies: int = MOVIES) -> Dataset:
    rows = sorted(rows, key=lambda row: (row[0], row[4]))
    users, items, kinds, values, times = (np.array(column) for column in zip(*rows, strict=True))
    return Dataset(
        name="made up",
        movies=[MovieRecord(10 + n, str(n)) for n in range(movies)],
        movie_ids=np.arange(10, 10 + movies, dtype=np.int64),
        user_ids=[f"p{person}" for person in range(people)],
        users=users.astype(np.int32),
        items=items.astype(np.int32),
        kinds=kinds.astype(np.int64),
        values=values.astype(np.float32),
        times_ms=times.astype(np.int64),
        report=LoadReport(0, 0, 0, 0, 0, (), movies, 0, 0, 0, 0),
        simulated=True,
        fingerprint="",
    )


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Holds 23 people with 1 to 20 movies each, person 3 with a single one."""
    rng = np.random.default_rng(0)
    rows = []
    for person in range(PEOPLE):
        count = 1 if person == 3 else int(rng.integers(2, 21))
        for item in rng.choice(MOVIES, count, replace=False):
            rows.append((person, int(item), RATED, int(rng.integers(1, 11)) / 2, int(rng.integers(0, 1_000_000))))
    return dataset(rows, PEOPLE)


def movies_of(log: EventLog, person: int) -> set[int]:
    return set(log.items[log.users == person].tolist())


def targets_of(queries: Queries, query: int) -> set[int]:
    return set(queries.targets[queries.offsets[query] : queries.offsets[query + 1]].tolist())


def test_everybody_with_two_movies_is_tested_once_by_users(data: Dataset) -> None:
    folds = splits(data, SPEC, "users")
    assert [fold.fold for fold in folds] == [0, 1, 2, 3, 4]
    tested = np.concatenate([fold.test.users for fold in folds])
    assert sorted(tested.tolist()) == [person for person in range(PEOPLE) if person != 3]
    assert sum(fold.skipped for fold in folds) == 1, "person 3 has one movie"


def test_a_held_out_person_is_nowhere_in_training_and_is_split_four_to_one(data: Dataset) -> None:
    for fold in splits(data, SPEC, "users"):
        for queries, log in ((fold.test, fold.fit), (fold.validation, fold.train)):
            assert not set(queries.users.tolist()) & set(log.users.tolist())
        for query, person in enumerate(fold.test.users.tolist()):
            all_of, known, asked = (
                set(data.items[data.users == person].tolist()),
                movies_of(fold.test.log, person),
                targets_of(fold.test, query),
            )
            assert known | asked == all_of
            assert not known & asked
            assert len(asked) == max(1, round(0.2 * len(all_of)))
            assert fold.test.as_of_ms[query] == data.times_ms.max(), "as of the end of the data"


def test_validation_people_are_a_tenth_of_the_others_and_are_fitted_later() -> None:
    rows = [(person, item, RATED, 4.0, item) for person in range(100) for item in range(5)]
    for fold in splits(dataset(rows, 100), SPEC, "users"):
        assert (fold.test.size, fold.validation.size) == (20, 8)
        assert set(fold.fit.users) - set(fold.train.users) == set(fold.validation.users)


def test_what_is_held_out_does_not_change_with_other_people(data: Dataset) -> None:
    keep = data.users >= 10
    fewer = dataset(
        [
            (int(u), *row)
            for u, *row in zip(data.users, data.items, data.kinds, data.values, data.times_ms, strict=True)
            if u >= 10
        ],
        PEOPLE,
    )
    assert keep.sum() == len(fewer.items)

    def asked(of: Dataset) -> dict[int, set[int]]:
        tests = [fold.test for fold in splits(of, SPEC, "users")]
        return {int(t.users[q]): targets_of(t, q) for t in tests for q in range(t.size)}

    whole = asked(data)
    assert asked(fewer) == {person: targets for person, targets in whole.items() if person >= 10}


def test_a_movie_is_held_out_with_all_its_events_and_never_as_a_dislike() -> None:
    rows = [(person, item, LIKED, 0.0, item) for person in range(10) for item in range(10)]
    rows += [(person, item, RATED, 5.0, 50 + item) for person in range(10) for item in range(10)]
    rows = [row if row[0] or row[2] == RATED else (0, row[1], DISLIKED, 0.0, row[4]) for row in rows]
    folds = splits(dataset(rows, 10), SPEC, "users")
    tested = np.concatenate([fold.test.users for fold in folds])
    assert sorted(tested.tolist()) == list(range(1, 10)), "all that person 0 could be asked for starts with a dislike"
    for fold in folds:
        for query, person in enumerate(fold.test.users.tolist()):
            assert len(targets_of(fold.test, query)) == 2
            assert not targets_of(fold.test, query) & movies_of(fold.test.log, person)


def test_time_asks_people_with_a_past_for_what_is_new_after_the_cut() -> None:
    # 20 events at times 0 to 19: the last tenth starts at 18, validation's at 16 (the last tenth of 18 events).
    rows = [(time % 3, time, RATED, 4.0, time) for time in range(16)]
    rows += [(0, 16, RATED, 4.0, 16), (1, 17, RATED, 4.0, 17), (3, 18, RATED, 4.0, 18), (2, 19, RATED, 4.0, 19)]
    (split,) = splits(dataset(rows, 4), SPEC, "time")
    assert split.test.users.tolist() == [2], "person 3 has no past"
    assert split.test.targets.tolist() == [19]
    assert split.test.as_of_ms.tolist() == [18]
    assert split.skipped == 1
    assert sorted(split.fit.times_ms.tolist()) == list(range(18))
    assert split.validation.users.tolist() == [0, 1]
    assert split.validation.targets.tolist() == [16, 17]
    assert sorted(split.train.times_ms.tolist()) == list(range(16))


def test_a_movie_seen_before_the_cut_is_no_target_after_it() -> None:
    rows = [(0, item, RATED, 4.0, item) for item in range(18)]
    rows += [(0, 2, LIKED, 0.0, 18), (0, 30, RATED, 4.0, 19)]
    (split,) = splits(dataset(rows, 1), SPEC, "time")
    assert split.test.targets.tolist() == [30]


def test_events_at_one_moment_cannot_be_cut_in_time() -> None:
    rows = [(person, item, RATED, 4.0, 7) for person in range(5) for item in range(5)]
    with pytest.raises(DataError, match="no cut in time"):
        splits(dataset(rows, 5), SPEC, "time")


def test_five_folds_need_five_people() -> None:
    with pytest.raises(DataError, match="too few for 5 folds"):
        splits(dataset([(0, 1, RATED, 4.0, 1), (0, 2, RATED, 4.0, 2)], 1), SPEC, "users")


def test_an_unknown_protocol_is_named(data: Dataset) -> None:
    with pytest.raises(ConfigError, match="protocol is 'first'"):
        splits(data, SPEC, "first")


def the_tests(data: Dataset) -> list[Queries]:
    return [split.test for protocol in ("last", "users", "time") for split in splits(data, SPEC, protocol)]


def test_no_target_stands_in_its_own_history_in_any_protocol(data: Dataset) -> None:
    for queries in the_tests(data):
        seen_QN = queries.seen(MOVIES)
        assert not seen_QN[np.repeat(np.arange(queries.size), queries.counts), queries.targets].any()
        assert (seen_QN.sum(axis=1) > 0).all()
        assert (queries.counts > 0).all()


def test_towers_and_the_engine_read_the_same_history_in_any_protocol(data: Dataset) -> None:
    index = HistoryIndex(data.movie_ids)
    for queries in the_tests(data):
        inputs = queries.tower_input(SPEC)
        for query in range(queries.size):
            raw = queries.events(query, data.movie_ids)
            served = encode_history(raw, index, int(queries.as_of_ms[query]), SPEC).tower
            length = served.rows.shape[1]
            for name in features.TowerInput._fields:
                np.testing.assert_array_equal(getattr(inputs, name)[query, :length], getattr(served, name)[0])
            assert not inputs.kinds[query, length:].any()


def test_baselines_read_the_same_history_in_any_protocol(data: Dataset) -> None:
    for queries in the_tests(data):
        weights_QN = history(queries, MOVIES, half_life=3.0).toarray()
        np.testing.assert_array_equal(weights_QN > 0, queries.seen(MOVIES))
        for query in range(queries.size):
            items = data.movie_ids.searchsorted(queries.events(query, data.movie_ids).movie_ids)
            assert weights_QN[query, items[::-1]].tolist() == pytest.approx([2 ** (-r / 3) for r in range(len(items))])


def test_a_part_asks_what_the_whole_asks(data: Dataset) -> None:
    whole = splits(data, SPEC, "users")[0].test
    parts = [whole.part(slice(start, start + 2)) for start in range(0, whole.size, 2)]
    assert np.concatenate([part.targets for part in parts]).tolist() == whole.targets.tolist()
    assert np.concatenate([part.liked_T for part in parts]).tolist() == whole.liked_T.tolist()
    assert [part.offsets[0] for part in parts] == [0] * len(parts)
    hashes = [part.hashes(data.user_ids, data.movie_ids) for part in parts]
    assert np.concatenate(hashes).tolist() == whole.hashes(data.user_ids, data.movie_ids).tolist()


def test_a_sample_is_some_of_the_queries_and_always_the_same(data: Dataset) -> None:
    whole = splits(data, SPEC, "last")[0].test
    some = whole.sample(7)
    assert some.size == 7
    assert some.users.tolist() == whole.sample(7).users.tolist()
    asked = dict(zip(whole.users.tolist(), whole.targets.tolist(), strict=True))
    assert [asked[user] for user in some.users.tolist()] == some.targets.tolist()
    assert whole.sample(1000) is whole


def three_queries() -> Queries:
    log = log_of(*((user, item, RATED) for user in range(3) for item in (user, user + 5)))
    return last_queries(log._replace(values=np.array([3, 5, 3, 1, 3, 3], np.float32)))


def test_liked_is_four_stars_or_the_mean_of_the_history() -> None:
    queries = three_queries()
    assert queries.liked_T.tolist() == [True, False, True]
    liked = queries.only_liked()
    assert liked.users.tolist() == [0, 2]
    assert liked.targets.tolist() == [5, 7]
    assert liked.offsets.tolist() == [0, 1, 2]


def test_only_the_liked_of_many_targets_are_asked_for() -> None:
    queries = three_queries()._replace(
        targets=np.array([1, 2, 3, 4, 6]), offsets=np.array([0, 2, 3, 5]), liked_T=np.array([1, 0, 0, 1, 1], bool)
    )
    liked = queries.only_liked()
    assert (liked.users.tolist(), liked.targets.tolist(), liked.offsets.tolist()) == ([0, 2], [1, 4, 6], [0, 1, 3])
    assert queries.kept(queries.liked_T).tolist() == [1, 0, 2]


def test_hits_are_targets_of_the_same_query() -> None:
    queries = three_queries()._replace(targets=np.array([1, 2, 3, 9]), offsets=np.array([0, 2, 3, 4]))
    hits_QK = queries.hits(np.array([[2, 3, 1], [2, 3, -1], [9, -1, -1]]))
    assert hits_QK.tolist() == [[True, False, True], [False, True, False], [True, False, False]]


def test_a_query_is_named_by_person_and_targets() -> None:
    queries = three_queries()._replace(targets=np.array([1, 2, 3, 9]), offsets=np.array([0, 2, 3, 4]))
    ids = np.arange(100, 110)
    hashes = queries.hashes(["a", "b", "c"], ids)
    first = [tie_hash(user_hash("a"), np.array([movie]))[0] for movie in (101, 102)]
    assert hashes[0] == first[0] ^ first[1]
    assert hashes[1] == tie_hash(user_hash("b"), np.array([103]))[0]


def test_queries_of_nobody_are_empty(data: Dataset) -> None:
    nobody: Split = splits(data, SPEC, "last")[0]
    none = nobody.test.part(slice(0, 0))
    assert none.size == none.only_liked().size == len(none.hashes(data.user_ids, data.movie_ids)) == 0
    assert none.seen(MOVIES).shape == (0, MOVIES)
    assert none.hits(np.zeros((0, 3), np.int64)).shape == (0, 3)
