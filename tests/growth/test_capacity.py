"""The capacity that is reckoned is the one of the formulas in docs/capacity.md, done by hand here."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import capacity
from benchmarks.capacity import NONE, Demand, Plan, main, plan
from benchmarks.curves import Curve
from benchmarks.growth_figures import FIGURES, Cost, Figures, figures_of, read_figures
from marquee.errors import ConfigError
from tests.rigs import ROOT

EVEN = [1.0] * 101
MEASURED = Figures(
    encode={
        "pooled": Cost(Curve([10, 110], [0.001, 0.002]), Curve([10, 110], [0.0015, 0.003])),
        "sequence": Cost(Curve([10, 110], [0.004, 0.005]), Curve([10, 110], [0.004, 0.005])),
    },
    encode_shape={"pooled": EVEN, "sequence": EVEN},
    encoder_gb={"pooled": 0.1, "sequence": 0.2},
    record=Cost(Curve([10, 110], [0.0004, 0.0006]), Curve([10, 110], [0.0005, 0.0007])),
    search=Cost(Curve([1_000, 101_000], [0.0005, 0.0015]), Curve([1_000, 101_000], [0.001, 0.002])),
    search_shape=EVEN,
    lists=Cost(Curve([10, 100], [0.001, 0.0019]), Curve([10, 100], [0.002, 0.0029])),
    list_length=10,
    retriever_gb=Curve([1_000, 1_001_000], [0.1, 1.1]),
    index_gb=Curve([1_000, 1_001_000], [0.0, 0.2]),
    person_bytes=Curve([10, 1_010], [1_000, 22_000]),
    most_people=1_000_000,
    redis_read_s=Curve([10, 110], [0.000005, 0.000015]),
    redis_write_s=Curve([10, 110], [0.00001, 0.00003]),
    row_bytes=264,
    quiet=True,
)
ASKED = Demand(1_000_000, 1_000, 1_000, events_per_user=60, records_per_list=2, utilisation=0.5)
FLAGS = ["--users", "1e6", "--movies", "10_000", "--rps", "500"]


@pytest.fixture(autouse=True)
def _few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "_CALLS", 500)


def reckoned(**changes: Any) -> Plan:
    return plan(dataclasses.replace(ASKED, **changes), MEASURED)


def test_encoders_encode_and_record() -> None:
    encoder = reckoned().encoder
    # A call of 60 events: 1.5 ms. 1,000 of those and 2,000 records of 0.5 ms: 2.5 cores, half busy 5, and a spare.
    assert encoder.pods == 6
    # One at a time a call takes 2.25 ms, and a record 0.6.
    assert encoder.call_ms == pytest.approx(2.25)
    assert encoder.busy == pytest.approx((2.25 + 1.2) / 6)
    assert encoder.gb_each == pytest.approx(0.1 + 3 * 1_000 * 264 / 1e9)


def test_retrievers_search_and_write_lists() -> None:
    retriever = reckoned(movies=51_000, list_length=55).retriever
    # 1.0 ms by movies, and of a list 0.00145 - 0.001 s more: 1.45 cores, half busy 2.9.
    assert retriever.pods == 3 + 1
    # One at a time 1.5 ms by movies, and 0.45 more.
    assert retriever.call_ms == pytest.approx(1.95)
    assert retriever.busy == pytest.approx(1.95 / 4)
    assert retriever.gb_each == pytest.approx(0.1 + 3 * 0.05)


def test_redis_holds_people_twice_and_is_not_filled() -> None:
    # 1,000 + 50 × 21 bytes a person.
    redis = reckoned().redis
    assert (redis.nodes, redis.cores) == (2, 2)
    assert redis.gb_each == pytest.approx(2.05 / 0.7)
    # 20.5 GB fill a node of 32 GB to 70 % once, 205 GB ten times.
    assert reckoned(users=10_000_000).redis.nodes == 2
    assert reckoned(users=100_000_000).redis.nodes == 2 * math.ceil(205 / (0.7 * 32))


def test_redis_has_as_many_nodes_as_reads_and_writes_keep_busy() -> None:
    # A list is a read of 10 µs and two writes of 20: 5 cores, half busy.
    assert reckoned(rps=100_000).redis.nodes == 2 * 10
    assert reckoned(rps=100_000, records_per_list=0).redis.nodes == 2 * 2


def test_recording_costs_more_for_longer_histories() -> None:
    short, long = (reckoned(rps=99_990, events_per_user=events, records_per_list=20) for events in (10, 110))
    # 9 and 14 ms of the encoder, 0.205 and 0.615 of Redis, half busy.
    assert (short.encoder.pods, long.encoder.pods) == (1_800 + 1, 2_800 + 1)
    assert (short.redis.nodes, long.redis.nodes) == (2 * 41, 2 * 123)


def test_milvus_searches_what_no_retriever_holds() -> None:
    # Three bundles of 10 million: 0.1 + 3 × 9.999 GB.
    assert reckoned(movies=10_000_000, pod_gb=30.2).milvus is NONE
    searched = reckoned(movies=10_000_000, pod_gb=30.0)
    assert (searched.milvus.nodes, searched.milvus.cores) == (2, 8)
    assert searched.milvus.gb_each == pytest.approx(3 * 10_000_000 * 264 / 1e9 / 0.7)
    assert searched.retriever.gb_each == pytest.approx(0.1 + 3 * 9.999 - 3 * 0.2 * 9.999)
    assert any("Milvus's speed was never measured" in note for note in searched.notes)


def test_cost_is_cores_and_memory_at_their_prices() -> None:
    found = reckoned()
    assert found.cores == 6 + 2 + 2
    assert found.gb == pytest.approx(6 * 0.100792 + 2 * 0.1 + 2 * 2.05 / 0.7)
    assert found.per_hour == pytest.approx(10 * 0.03 + found.gb * 0.004)
    # On average half of 1,000 lists a second.
    assert found.per_million == pytest.approx(found.per_hour / 1.8)


def test_prices_count_once() -> None:
    free = reckoned(core_hour=0, gb_hour=0)
    assert (free.per_hour, free.per_million) == (0, 0)
    assert reckoned(core_hour=1, gb_hour=0).per_hour == 10


def test_a_quiet_pod_answers_in_the_time_of_a_call() -> None:
    found = reckoned(rps=0.001, utilisation=0.9)
    assert found.encoder.p50_ms == pytest.approx(found.encoder.call_ms)
    assert found.encoder.p99_ms == pytest.approx(found.encoder.call_ms)


def test_calls_wait_as_long_as_they_take_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "_CALLS", 5_000)
    # Gathered, calls fill 3.6 of 5 cores, and 5.4 where they are not.
    full = reckoned(records_per_list=0, rps=2_400, utilisation=0.8, spare=0)
    assert full.encoder.busy == pytest.approx(2_400 * 0.00225 / 5)
    assert full.encoder.p50_ms > 10 * full.encoder.call_ms
    assert any("user_encoder: calls one at a time would fill 108% of a pod" in note for note in full.notes)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("users", [1, 1_000, 10**6, 10**8]),
        ("movies", [1, 1_000, 99_999, 10**6]),
        ("rps", [0.1, 10, 1_000, 50_000]),
        ("events_per_user", [0, 10, 300, 10_000]),
        ("list_length", [1, 10, 100, 1_000]),
        ("records_per_list", [0, 0.5, 3, 20]),
        ("spare", [0, 1, 5]),
        ("bundles", [1, 2, 4]),
        ("copies", [1, 2, 3]),
        ("core_hour", [0, 0.01, 1]),
        ("gb_hour", [0, 0.01, 1]),
    ],
)
def test_asking_more_costs_no_less(field: str, values: list[float]) -> None:
    plans = [reckoned(**{field: value}) for value in values]
    for figure in ("per_hour", "cores", "gb"):
        found = [getattr(each, figure) for each in plans]
        assert found == sorted(found), figure
    assert plans[0].per_hour < plans[-1].per_hour


@pytest.mark.parametrize(("field", "values"), [("utilisation", [0.2, 0.5, 0.9]), ("node_gb", [4, 16, 64])])
def test_filling_more_needs_no_more(field: str, values: list[float]) -> None:
    cores = [reckoned(users=10**8, **{field: value}).cores for value in values]
    assert cores == sorted(cores, reverse=True)
    assert cores[0] > cores[-1]


def test_the_average_changes_what_a_list_costs_and_nothing_else() -> None:
    half, whole = reckoned(mean_load=0.5), reckoned(mean_load=1)
    assert half.per_hour == whole.per_hour
    assert half.per_million == pytest.approx(2 * whole.per_million)


def test_what_was_not_measured_is_said() -> None:
    assert reckoned().notes == []
    demand = dataclasses.replace(ASKED, movies=200_000, list_length=500, users=10**7, events_per_user=5_000)
    notes = plan(demand, MEASURED._replace(quiet=False)).notes
    for told in ("--movies 200,000", "--list-length 500", "--users 10,000,000", "--events-per-user 5,000", "not quiet"):
        assert any(told in note for note in notes), told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"users": -1}, "--users is -1; name a whole number of at least 1"),
        ({"users": 0}, "--users is 0; name a whole number of at least 1"),
        ({"movies": 2.5}, "--movies is 2.5; name a whole number"),
        ({"rps": 0}, "--rps is 0; name a number of at least 0.001"),
        ({"rps": math.nan}, "--rps is nan; name a number"),
        ({"rps": math.inf}, "--rps is inf; name a number"),
        ({"users": math.nan}, "--users is nan; name a whole number"),
        ({"events_per_user": -3}, "--events-per-user is -3; name a number of at least 0"),
        ({"utilisation": 1}, "--utilisation is 1; a queue before a full core has no end"),
        ({"mean_load": 1.5}, "--mean-load is 1.5; the average is not above the busiest time"),
        ({"spare": -1}, "--spare is -1"),
        ({"node_gb": 0}, "--node-gb is 0; name a number above 0"),
        ({"core_hour": -0.1}, "--core-hour is -0.1; name a number of at least 0"),
        ({"tower": "tall"}, "--tower is 'tall'; name pooled or sequence"),
    ],
)
def test_bad_input_is_told_with_its_cure(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        dataclasses.replace(ASKED, **changes)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"--users is 0.*--rps is -1.*--tower"):
        Demand(0, 10, -1, tower="")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--users", "0"], "capacity: --users is 0"),
        (["--rps", "nan"], "capacity: --rps is nan"),
        (["--movies", "1e999"], "capacity: --movies is inf"),
        (["--figures", "nowhere.json"], "`make bench-growth` writes it"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FLAGS, *arguments]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([*FLAGS, "--rps", "many"], "'many' is no number; write it as"),
        ([*FLAGS, "--colour", "blue"], "unrecognized arguments: --colour blue"),
        ([*FLAGS, "--user", "5"], "unrecognized arguments: --user 5"),
        (FLAGS[2:], "the following arguments are required: --users"),
    ],
)
def test_the_command_knows_its_flags(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_figures_that_lack_something_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.json"
    cut.write_text('{"load": 0.1, "histories": {}}')
    assert main([*FLAGS, "--figures", str(cut)]) == 2
    assert "has not all figures (KeyError: 'movies'); run the whole of" in capsys.readouterr().err
    cut.write_text("{")
    assert main([*FLAGS, "--figures", str(cut)]) == 2
    assert str(cut) in capsys.readouterr().err


def test_figures_are_read_as_measured() -> None:
    rows: list[dict[str, Any]] = [
        {"movies": 1_000, "events": 10, "k": 10, "calls_per_s": 2_000, "alone_ms": [0.5] * 101, "cpu_ms": 1.0},
        {
            "movies": 2_000,
            "events": 20,
            "k": 20,
            "calls_per_s": 500,
            "alone_ms": [1.0] * 50 + [2.0] * 51,
            "cpu_ms": 3.0,
        },
    ]
    stored = [row | {"redis_s": 0.00002 * at} for at, row in enumerate(rows, 1)]
    movies = [row | {"resident_bytes": 10**8 * at, "bytes": 10**6 * at} for at, row in enumerate(rows, 1)]
    found = figures_of(
        {
            "load": 0.1,
            "movies": {"rows": movies, "lists": rows, "k": 10, "dimension": 64},
            "histories": {
                "towers": {"pooled": {"rows": stored, "resident_bytes": 2 * 10**8}},
                "recorded": stored,
            },
            "users": {
                "redis": [{"people": 1_000}, {"people": 10_000, "extrapolated": True}],
                "redis_by_events": [{"events": 10, "bytes": 400}, {"events": 20, "bytes": 600}],
            },
        }
    )
    assert found.encode["pooled"].at(15) == pytest.approx(((1 / 2_000 + 1 / 500) / 2, 0.002))
    assert found.search.at(2_000) == found.lists.at(20) == found.record.at(20) == (1 / 500, 0.003)
    assert found.redis_read_s.at(20) == found.redis_write_s.at(20) == 0.00004
    assert found.encode_shape["pooled"][0] == pytest.approx(101 / 152)
    assert found.retriever_gb.at(2_000) == 0.2
    assert found.index_gb.at(1_000) == 0.001
    assert found.person_bytes.at(30) == 800
    assert (found.most_people, found.row_bytes, found.quiet) == (1_000, 264, True)


def test_the_committed_figures_are_enough_for_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_figures(FIGURES).encode.keys() == {"pooled", "sequence"}
    assert main([*FLAGS, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["demand"]["users"] == 1_000_000
    assert told["plan"]["per_million"] > 0
    assert main(FLAGS) == 0
    table = capsys.readouterr().out
    for name in ("user_encoder", "retriever", "Redis", "Milvus", "a million lists of 10"):
        assert name in table


def test_the_page_names_every_flag_with_its_default() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    for each in dataclasses.fields(Demand):
        row = rf"\| `--{each.name.replace('_', '-')}` \| "
        default = "" if each.default is dataclasses.MISSING else rf"{re.escape(format(each.default))} \|"
        assert re.search(row + default, page), each.name
