"""Per-query records: figures by hand, slices, merges over folds, seeds and systems, and pairs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee import features
from marquee.errors import ConfigError
from marquee.features import RATED
from marquee.movies import MovieRecord
from tests.logs import log_of
from training.data import Dataset, LoadReport
from training.evaluate import Lists, per_query
from training.records import PerQuery, Run, Series, figures, merge, paired, read_records, write_records
from training.split import Split, before, last_queries

SPEC = features.feature_spec(max_history=20, dimension=8, content_buckets=8, max_content_tokens=4)
MOVIES = 20
YEARS = {5: 1994, 6: 1999, 7: None}


def three_people(genres: tuple[str, ...] = ("Drama",)) -> tuple[Dataset, Split]:
    """Asks three people who know the movies 0, 1, 2 for 5, 6, 7; targets have 5, 1 and 4 stars after a first 3."""
    log = log_of(*((user, item, RATED) for user in range(3) for item in (user, user + 5)))
    log = log._replace(values=np.array([3, 5, 3, 1, 3, 4], np.float32))
    movies = [MovieRecord(n + 1, str(n), YEARS.get(n, 2000), genres) for n in range(MOVIES)]
    data = Dataset(
        name="three",
        movies=movies,
        movie_ids=np.arange(1, MOVIES + 1, dtype=np.int64),
        user_ids=["a", "b", "c"],
        users=log.users.astype(np.int32),
        items=log.items.astype(np.int32),
        kinds=log.kinds.astype(np.uint8),
        values=log.values,
        times_ms=log.times_ms,
        report=LoadReport(0, 0, 0, 0, 0, (), MOVIES, 0, 0, 0, 0),
        simulated=True,
        fingerprint="",
    )
    test = last_queries(log)
    fit = before(test, SPEC)
    return data, Split("last", 0, fit, fit, last_queries(fit), test)


def the_lists(system: str = "x") -> Lists:
    items = np.full((3, 100), -1)
    items[0, :3] = [9, 5, 1]  # found at place 2
    items[1, :3] = [9, 1, 2]  # not found
    items[2, 11] = 7  # found at place 12
    return Lists(system, items)


@pytest.fixture(scope="module")
def record() -> PerQuery:
    return per_query(*three_people(), [the_lists()])


def found(record: PerQuery) -> dict[tuple[str, str], Any]:
    return {(one.targets, one.name): (one.value, one.n) for one in figures(record)}


def test_figures_by_hand(record: PerQuery) -> None:
    values = found(record)
    assert values["all", "recall@10"] == (pytest.approx(1 / 3), 3)
    assert values["all", "recall@50"] == (pytest.approx(2 / 3), 3)
    assert values["all", "ndcg@10"] == (pytest.approx(1 / math.log2(3) / 3), 3)
    assert values["all", "mrr@20"] == (pytest.approx((1 / 2 + 1 / 12) / 3), 3)
    assert values["liked", "recall@10"] == (pytest.approx(1 / 2), 2), "person 1 did not like their target"
    assert values["all", "coverage@10"] == (pytest.approx(len({9, 5, 1, 2}) / MOVIES), 3)
    assert values["all", "distinct_lists@10"] == (1.0, 3)
    assert values["all", "intra_list_diversity@10"] == (0.0, 2), "all of one genre; the third list has no pair"


def test_what_is_shown_is_compared_with_what_the_person_had_watched(record: PerQuery) -> None:
    values = found(record)
    # Movies 0, 1, 2 have a person each of three, the rest nobody, which counts as one person for novelty.
    assert values["all", "novelty@10"] == (pytest.approx(math.log2(3)), 2)
    # log2(1 + 1) = 1 for each history; [9, 5, 1] has (0 + 0 + 1) / 3, [9, 1, 2] has 2 / 3.
    assert values["all", "popularity_bias@10"] == (pytest.approx((1 / 3 - 1 + 2 / 3 - 1) / 2), 2)


def test_slices_are_of_the_targets_in_them(record: PerQuery) -> None:
    values = found(record)
    assert values["all", "recall@10|decade=1990"] == (pytest.approx(1 / 2), 2)
    assert values["all", "recall@10|decade=unknown"] == (0.0, 1)
    assert values["liked", "recall@10|decade=1990"] == (1.0, 1)
    assert values["all", "recall@10|history=001-010"] == (pytest.approx(1 / 3), 3)
    assert values["all", "recall@10|cold=yes"] == (pytest.approx(1 / 3), 3), "nobody watched 5, 6, 7 before"
    assert ("all", "recall@10|cold=no") not in values


def test_popularity_slices_are_tenths_of_all_events() -> None:
    data, split = three_people()
    # Movie 5 has 5 of 10 events, movie 6 has 3, movie 7 has 2: they begin at 0, 5 and 8 tenths.
    rows = [(0, 5, RATED)] * 5 + [(0, 6, RATED)] * 3 + [(0, 7, RATED)] * 2
    values = found(per_query(data, split._replace(fit=log_of(*rows)), [the_lists()]))
    assert values["all", "recall@10|popularity=01"] == (1.0, 1)
    assert values["all", "recall@10|popularity=06"] == (0.0, 1)
    assert values["all", "recall@10|popularity=09"] == (0.0, 1)


def test_diversity_is_left_out_where_nothing_has_a_genre() -> None:
    values = found(per_query(*three_people(genres=()), [the_lists()]))
    assert ("all", "intra_list_diversity@10") not in values
    assert ("all", "novelty@10") in values


def test_many_targets_are_measured_against_their_query() -> None:
    data, split = three_people()
    test = split.test._replace(
        targets=np.array([5, 9, 6, 7, 8]), offsets=np.array([0, 2, 3, 5]), liked_T=np.array([1, 0, 0, 0, 1], bool)
    )
    values = found(per_query(data, split._replace(protocol="users", test=test), [the_lists()]))
    assert values["all", "recall@10"] == (pytest.approx((2 / 2 + 0 + 0) / 3), 3)
    assert values["all", "recall@20"] == (pytest.approx((2 / 2 + 0 + 1 / 2) / 3), 3)
    assert values["liked", "recall@10"] == (pytest.approx((1 + 0) / 2), 2)
    assert values["all", "recall@20|decade=1990"] == (pytest.approx((1 + 0) / 2), 2)


def test_intervals_hold_the_value_and_are_over_queries(record: PerQuery) -> None:
    for one in figures(record):
        if one.name == "coverage@10":
            assert not one.HasField("low"), "no mean over queries"
        else:
            assert one.low <= one.value + 1e-6
            assert one.value <= one.high + 1e-6
    recall = next(one for one in figures(record) if (one.targets, one.name) == ("all", "recall@10"))
    assert (recall.low, recall.high) == (0.0, 1.0), "of three people anything may be drawn"


def made_up(queries: list[int], values: dict[tuple[str, int], list[float]], protocol: str = "users") -> PerQuery:
    series = {
        Series(system, seed, "all", "recall@20"): np.array(one, np.float32) for (system, seed), one in values.items()
    }
    tops = {Run(*key): np.full((len(queries), 10), key[1]) for key in values}
    return PerQuery(protocol, MOVIES, np.array(queries, np.uint64), series, tops)


def test_folds_are_joined_query_by_query_in_order() -> None:
    joined = merge([made_up([9, 4], {("ease", 0): [0.1, 0.2]}), made_up([7, 1], {("ease", 0): [0.3, 0.4]})])
    assert joined.queries.tolist() == [9, 4, 7, 1]
    assert joined.mean("ease", "recall@20").tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_seeds_are_averaged_for_each_query_before_queries_are_drawn() -> None:
    seeds = [made_up([9, 4], {("model", seed): [0.0, seed / 2]}) for seed in range(3)]
    joined = merge([*seeds, made_up([4, 9], {("ease", 0): [0.25, 0.0]})])
    assert joined.mean("model", "recall@20").tolist() == [0.0, 0.5]
    assert paired(joined, "model", "ease", "recall@20") == (0.125, 0.0, 0.25, 2)
    assert [one.value for one in figures(joined)][2:] == pytest.approx([0.25, 0.125])
    assert joined.of_seed(2).mean("model", "recall@20").tolist() == [0.0, 1.0]


def test_coverage_is_the_mean_over_seeds() -> None:
    joined = merge([made_up([9, 4], {("model", seed): [0.0, 0.0]}) for seed in range(2)])
    shown = next(one for one in figures(joined) if one.name == "coverage@10")
    assert shown.value == 1 / MOVIES, "each seed shows one movie"


def test_queries_that_one_system_did_not_answer_are_not_compared() -> None:
    joined = merge([made_up([1, 2, 3], {("model", 0): [0.5, 0.5, 0.5]}), made_up([2, 3], {("ease", 0): [0.25, 0.5]})])
    assert paired(joined, "model", "ease", "recall@20")[::3] == (0.125, 2)
    assert {one.system: one.n for one in figures(joined) if one.name == "recall@20"} == {"model": 3, "ease": 2}


def test_protocols_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match="not of one protocol"):
        merge([made_up([1], {}), made_up([1], {}, protocol="last")])


def test_what_was_not_measured_is_named(record: PerQuery) -> None:
    with pytest.raises(ConfigError, match=r"recall@7 of 'x' for 'all' targets was not measured"):
        paired(record, "x", "x", "recall@7")


def test_records_come_back_from_a_file_as_they_were(record: PerQuery, tmp_path: Path) -> None:
    write_records(tmp_path / "record.npz", record)
    again = read_records(tmp_path / "record.npz")
    assert (again.protocol, again.movies) == (record.protocol, record.movies)
    np.testing.assert_array_equal(again.queries, record.queries)
    assert list(again.values) == list(record.values)
    assert list(again.tops) == list(record.tops)
    for series, values in record.values.items():
        np.testing.assert_array_equal(again.values[series], values)
    for run, items in record.tops.items():
        np.testing.assert_array_equal(again.tops[run], items)
    assert [one.SerializeToString() for one in figures(again)] == [one.SerializeToString() for one in figures(record)]


def test_nobody_asked_makes_no_figures() -> None:
    data, split = three_people()
    nobody = split._replace(test=split.test.part(slice(0, 0)))
    assert figures(per_query(data, nobody, [Lists("x", np.zeros((0, 100), np.int64))])) == []
