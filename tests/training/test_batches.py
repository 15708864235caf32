"""Training examples: what a history may hold, and which targets are no negatives."""

import numpy as np
import pytest

from marquee import features
from marquee.features import (
    DISLIKED,
    LIKED,
    NOT_INTERESTED,
    RATED,
    WATCHED,
    Events,
    HistoryIndex,
    encode_history,
    merge,
)
from marquee.movies import MovieRecord
from tests.logs import log_of
from training.batches import EventLog, Positives, delayed, event_log, histories
from training.data import Dataset, LoadReport
from training.split import before, last_queries, splits

SPEC = features.feature_spec(max_history=5, dimension=8, content_buckets=8, max_content_tokens=4)


def random_log(seed: int = 0, people: int = 12, movies: int = 30) -> tuple[Dataset, EventLog]:
    rng = np.random.default_rng(seed)
    columns: list[tuple[np.ndarray, ...]] = []
    movie_ids = np.arange(movies, dtype=np.int64) * 7 + 3
    for person in range(people):
        count = int(rng.integers(2, 15))
        items = rng.choice(movies, count, replace=False)
        times = rng.integers(0, 6, count).astype(np.int64) * 60_000  # many ties
        merged = merge(
            Events(movie_ids[items], np.full(count, RATED), (rng.integers(1, 11, count) / 2).astype(np.float32), times),
            features.NO_EVENTS,
            features.user_hash(str(person)),
        )
        place = np.searchsorted(movie_ids, merged.movie_ids)
        columns.append((np.full(count, person), place, merged.kinds, merged.values, merged.times_ms))
    users, items, kinds, values, times = (np.concatenate(column) for column in zip(*columns, strict=True))
    data = Dataset(
        name="random",
        movies=[MovieRecord(int(movie_id), str(movie_id)) for movie_id in movie_ids],
        movie_ids=movie_ids,
        user_ids=[str(person) for person in range(people)],
        users=users.astype(np.int32),
        items=items.astype(np.int32),
        kinds=kinds,
        values=values,
        times_ms=times,
        report=LoadReport(0, 0, 0, 0, 0, (), movies, 0, 0, 0, 0),
        simulated=True,
        fingerprint="",
    )
    return data, event_log(data, SPEC)


@pytest.mark.parametrize("seed", range(4))
def test_a_history_holds_only_what_sorts_before_the_target_and_never_the_target(seed: int) -> None:
    _, log = random_log(seed)
    ends = np.arange(log.size)
    inputs = histories(log, ends, log.times_ms[ends], SPEC)
    for target, (rows, kinds) in enumerate(zip(inputs.rows, inputs.kinds, strict=True)):
        start = log.starts[log.users[target]]
        before = log.items[start:target][-SPEC.max_history :][::-1]
        assert rows[kinds != 0].tolist() == before.tolist()
        assert log.items[target] not in rows[kinds != 0]


def test_a_target_is_the_first_event_on_its_movie_and_no_dislike() -> None:
    log = log_of((0, 4, WATCHED), (0, 2, RATED), (0, 4, LIKED), (1, 4, LIKED), (1, 3, DISLIKED), (1, 5, NOT_INTERESTED))
    assert log.eligible().tolist() == [0, 1, 3]
    assert log.last_targets().tolist() == [1], "person 1's only target has no history"


def test_what_follows_a_target_is_held_out_with_it() -> None:
    log = log_of((0, 1, RATED), (0, 2, RATED), (0, 3, RATED), (0, 3, LIKED), (0, 4, DISLIKED))
    queries = last_queries(log)
    assert queries.targets.tolist() == [3]
    assert before(queries, SPEC).items.tolist() == [1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_training_and_serving_encode_the_same_events_alike(seed: int) -> None:
    data, log = random_log(seed)
    index = HistoryIndex(data.movie_ids)
    for target in range(log.size):
        start = int(log.starts[log.users[target]])
        raw = Events(
            data.movie_ids[log.items[start:target]],
            log.kinds[start:target].astype(np.int64),
            log.values[start:target],
            log.times_ms[start:target],
        )
        as_of = int(log.times_ms[target]) + 5_000
        served = encode_history(raw, index, as_of, SPEC).tower
        trained = histories(log, np.array([target]), np.array([as_of]), SPEC)
        length = served.rows.shape[1]
        for name in features.TowerInput._fields:
            np.testing.assert_array_equal(getattr(trained, name)[:, :length], getattr(served, name), err_msg=name)
        assert not trained.kinds[:, length:].any()


def test_ages_are_only_ever_moved_later() -> None:
    times = np.full(1000, 1_000_000, np.int64)
    moved = delayed(times, np.random.default_rng(0)) - times
    assert 400 < np.count_nonzero(moved == 0) < 600
    assert moved.min() == 0
    assert moved.max() > 365 * 86_400_000


def test_kinds_are_varied_only_to_what_the_rating_says() -> None:
    _, log = random_log(7, people=60)
    ends = np.arange(log.size)
    plain = histories(log, ends, log.times_ms[ends], SPEC)
    varied = histories(log, ends, log.times_ms[ends], SPEC, rng=np.random.default_rng(0))
    stars = plain.ratings * 2 + 3
    assert (stars[varied.kinds == LIKED] >= 4).all()
    assert (stars[varied.kinds == DISLIKED] <= 2).all()
    assert {RATED, LIKED, DISLIKED, WATCHED} <= set(varied.kinds.ravel().tolist())
    assert ((varied.kinds == 0) == (plain.kinds == 0)).all()


@pytest.mark.parametrize("seed", range(3))
def test_accidental_hits_are_the_same_movie_and_the_persons_other_movies(seed: int) -> None:
    data, log = random_log(seed)
    rng = np.random.default_rng(seed)
    batch = rng.choice(log.size, 20, replace=True)
    users, items = log.users[batch], log.items[batch]
    hits = Positives(log, len(data.movies)).hits(users, items)
    watched = {person: set(log.items[log.users == person].tolist()) for person in set(users.tolist())}
    for i in range(20):
        for j in range(20):
            expected = i != j and (items[i] == items[j] or int(items[j]) in watched[int(users[i])])
            assert hits[i, j] == expected


def test_the_last_split_takes_the_last_two_events_of_each_person() -> None:
    data, log = random_log(5)
    split = splits(data, SPEC, "last")[0]
    for person in range(len(data.user_ids)):
        items = log.items[log.users == person].tolist()
        assert split.test.targets[split.test.users == person].tolist() == items[-1:]
        assert split.train.items[split.train.users == person].tolist() == items[: max(len(items) - 2, 1)]
    seen = split.test.seen(len(data.movies))
    for query in range(split.test.size):
        person = split.test.users[query]
        assert set(np.flatnonzero(seen[query])) == set(log.items[log.users == person].tolist()[:-1])
