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
from training.batches import (
    EventLog,
    Mask,
    Positives,
    delayed,
    event_log,
    hide,
    histories,
    later,
    newest_first,
    window_bounds,
    windows,
)
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
    assert np.median(moved[moved > 0]) > 120_000, "the least is a minute"


def test_long_after_is_a_day_to_ten_years() -> None:
    moved = later(np.zeros(1000, np.int64), np.random.default_rng(0))
    assert 86_400_000 <= moved.min() < 10 * 86_400_000
    assert 3 * 365 * 86_400_000 < moved.max() <= 3.2e11


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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length", [1, 3, 5, 50])
def test_each_event_but_a_persons_first_is_a_target_once_an_epoch(seed: int, length: int) -> None:
    log = random_log(seed)[1]
    starts, ends = window_bounds(log, length, np.random.default_rng(seed))
    targets = np.concatenate([np.arange(start + 1, end) for start, end in zip(starts, ends, strict=True)])
    assert sorted(targets.tolist()) == sorted(set(range(log.size)) - set(log.starts[:-1].tolist()))
    assert (log.users[starts] == log.users[ends - 1]).all()
    assert (ends - starts - 1).max() == min(length, np.diff(log.starts).max() - 1)


def test_another_epoch_cuts_elsewhere() -> None:
    log, rng = random_log()[1], np.random.default_rng(0)
    assert len({tuple(window_bounds(log, 3, rng)[0].tolist()) for _ in range(3)}) == 3


def test_who_has_one_event_or_none_has_no_stretch() -> None:
    log = log_of((0, 1, RATED), (2, 3, RATED), (2, 4, RATED))
    starts, ends = window_bounds(log, 5, np.random.default_rng(0))
    assert (starts.tolist(), ends.tolist()) == ([1], [3])


@pytest.mark.parametrize("seed", range(4))
def test_a_target_in_a_stretch_is_the_event_right_after_its_inputs(seed: int) -> None:
    log, rng = random_log(seed)[1], np.random.default_rng(seed)
    eligible_E = rng.random(log.size) < 0.7
    starts, ends = window_bounds(log, 4, rng)
    stretches = windows(log, eligible_E, starts, ends, SPEC, rng)
    rows_WL, kinds_WL = stretches.inputs.rows, stretches.inputs.kinds
    for w, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        count = end - 1 - start
        order = np.arange(end - 2, start - 1, -1)
        assert stretches.users[w] == log.users[start]
        assert rows_WL[w, :count].tolist() == log.items[order].tolist()
        assert stretches.targets[w, :count].tolist() == log.items[order + 1].tolist()
        assert stretches.asked[w].tolist() == eligible_E[order + 1].tolist() + [False] * (4 - count)
        assert (kinds_WL[w] != 0).tolist() == [place < count for place in range(4)]
        for place in range(count):
            assert log.items[order[place] + 1] not in rows_WL[w, place:count], "it would find itself"


@pytest.mark.parametrize("seed", range(4))
def test_ages_in_a_stretch_count_to_the_target_or_later(seed: int) -> None:
    log, rng = spread_over_years(random_log(seed)[1]), np.random.default_rng(seed)
    starts, ends = window_bounds(log, 4, rng)
    stretches = windows(log, np.ones(log.size, bool), starts, ends, SPEC, rng)
    at_WL, real_WL = newest_first(starts, ends - 1)
    least_WL = features.age_buckets(log.times_ms[at_WL], log.times_ms[at_WL + 1], SPEC)
    assert (stretches.inputs.ages >= least_WL)[real_WL].all()
    assert (stretches.inputs.ages == least_WL)[real_WL].mean() > 0.5


def spread_over_years(log: EventLog) -> EventLog:
    """Makes 90 days of a minute."""
    return log._replace(times_ms=log.times_ms * (90 * 24 * 60)).only(np.ones(log.size, bool), LONG)


LONG = features.feature_spec(max_history=20, dimension=8, content_buckets=8, max_content_tokens=4)


def kept(log: EventLog, left_BN: Mask, users: np.ndarray) -> EventLog:
    """Selects the events of people whose movies are marked as left."""
    keep = np.zeros(log.size, bool)
    for row, user in enumerate(users):
        of = slice(log.starts[user], log.starts[user + 1])
        keep[of] = left_BN[row, log.items[of]]
    return log.only(keep, LONG)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_hidden_and_what_is_left_are_all_eligible_movies_and_share_none(seed: int) -> None:
    data, log = random_log(seed)
    eligible_E = np.random.default_rng(seed).random(log.size) < 0.7
    users = np.array([3, 0, 7, 8])
    part = hide(log, eligible_E, users, len(data.movies), LONG, np.random.default_rng(seed))
    assert not (part.left_BN & part.hidden_BN).any()
    assert part.hidden_BN.any()
    for row, user in enumerate(users):
        of = slice(log.starts[user], log.starts[user + 1])
        everything, eligible = set(log.items[of].tolist()), set(log.items[of][eligible_E[of]].tolist())
        left, hidden = set(np.flatnonzero(part.left_BN[row])), set(np.flatnonzero(part.hidden_BN[row]))
        assert hidden <= eligible <= left | hidden <= everything
        assert set(part.inputs.rows[row][part.inputs.kinds[row] != 0]) == left


def test_a_movie_that_is_left_in_another_event_is_not_asked_for() -> None:
    log = log_of(*((0, item, RATED) for item in range(8)), *((0, item, LIKED) for item in range(8)))
    both = hide(log, np.ones(16, bool), np.array([0]), 8, LONG, np.random.default_rng(1))
    assert (both.left_BN | both.hidden_BN).all()
    assert not (both.left_BN & both.hidden_BN).any()
    assert set(both.inputs.rows[0].tolist()) == set(np.flatnonzero(both.left_BN[0]))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_is_read_as_if_nothing_had_been_hidden_long_after(seed: int) -> None:
    data, log = random_log(seed)
    log, users = spread_over_years(log), np.array([5, 1, 10, 11])
    part = hide(log, np.ones(log.size, bool), users, len(data.movies), LONG, np.random.default_rng(seed))
    rest = kept(log, part.left_BN, users)
    last_ms = log.times_ms[log.starts[users + 1] - 1]
    plain = histories(rest, rest.starts[users + 1], last_ms + 86_400_000, LONG, users=users)
    real_BL = plain.kinds != 0
    for name in ("rows", "gaps"):
        np.testing.assert_array_equal(getattr(part.inputs, name), getattr(plain, name), err_msg=name)
    assert (part.inputs.ages >= plain.ages)[real_BL].all(), "at least a day after the person's last event"
    assert not part.inputs.kinds[~real_BL].any()


@pytest.mark.parametrize("seed", range(3))
def test_accidental_hits_are_all_movies_of_the_person(seed: int) -> None:
    data, log = random_log(seed)
    rng = np.random.default_rng(seed)
    batch = rng.choice(log.size, 20, replace=True)
    users = log.users[batch]
    items = np.concatenate([log.items[batch], rng.integers(0, len(data.movies), 15)])
    hits = Positives(log, len(data.movies)).hits(users, items)
    assert hits.shape == (20, 35)
    watched = {person: set(log.items[log.users == person].tolist()) for person in set(users.tolist())}
    for i in range(20):
        for j in range(35):
            assert hits[i, j] == (int(items[j]) in watched[int(users[i])])
    assert hits.diagonal().all(), "a target is its own person's movie"


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
