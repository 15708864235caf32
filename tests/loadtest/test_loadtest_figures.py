"""Tallies, conditions, the search for the highest rate, and what all of it means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from clients.loadtest.conditions import BadCondition, parse_condition, parse_objective
from clients.loadtest.results import Figures, Times, figures, percentile_curve
from clients.loadtest.saturation import Attempt, Saturation, find_max, judge, summed_up
from clients.loadtest.tally import OK, Outcome, Tally, milliseconds, unpack
from clients.loadtest.verdict import Judged, client_limits, conclude
from clients.loadtest.verdict import judge as judge_limits

RNG = np.random.default_rng(5)


def tally_of(*latencies_ms: float, failed: int = 0) -> Tally:
    tally = Tally(finished=len(latencies_ms))
    tally.record([Outcome(OK, ms / 1000, ms / 2000, 0.0001) for ms in latencies_ms])
    tally.record([Outcome("UNAVAILABLE", 0.00001, 0.00001, 0.0001)] * failed)
    return tally


def test_percentiles_are_as_exact_as_three_digits() -> None:
    drawn = RNG.lognormal(2, 1, 20_111)
    tally = tally_of(*drawn)
    for percentile in (50.0, 90.0, 99.0, 99.9):
        exact = np.percentile(drawn, percentile, method="inverted_cdf")
        assert milliseconds(tally.latency, percentile) == pytest.approx(exact, rel=0.002)


def test_tallies_of_processes_add_up_to_the_tally_of_all() -> None:
    drawn = RNG.lognormal(2, 1, 3_000)
    parts = [tally_of(*drawn[place::3], failed=place) for place in range(3)]
    whole = Tally()
    for part in parts:
        whole.add(unpack(part.pack()))
    assert whole.pack() == tally_of(*drawn, failed=3).pack()
    assert (whole.calls, whole.ok, whole.finished) == (3_003, 3_000, 3_000)


def test_a_tally_survives_packing() -> None:
    for tally in (Tally(), tally_of(1, 2, 3, failed=1)):
        assert unpack(tally.pack()).pack() == tally.pack()


def test_failures_do_not_make_a_server_fast() -> None:
    tally = tally_of(10, 10, failed=100)
    assert milliseconds(tally.latency, 50) == pytest.approx(10, rel=0.002)
    assert figures(tally, 1.0).error_share == pytest.approx(100 / 102)
    assert figures(tally, 1.0).errors == {"UNAVAILABLE": 100}


def test_a_curve_ends_where_there_are_no_calls_beyond() -> None:
    curve = percentile_curve(tally_of(*range(1, 101)).latency)
    assert [curve[0][0], curve[-1][0]] == [0.0, 99.0]
    assert [curve[0][1], curve[-1][1]] == pytest.approx([1, 99], rel=0.002)
    assert percentile_curve(Tally().latency) == []


@pytest.mark.parametrize(
    ("text", "value", "true"),
    [
        ("p50<50ms", 20.0, True),
        ("p50>0.01s", 20.0, True),
        ("p99.9 >= 100000us", 40.0, False),
        ("mean<25ms", 25.0, False),
        ("max<=41ms", 40.0, True),
        ("errors>10%", 0.25, True),
        ("errors>30%", 0.25, False),
        ("rate<900/s", 800.0, True),
        ("rate<700", 800.0, False),
        ("degraded>0%", 0.0, False),
    ],
)
def test_conditions_compare(text: str, value: float, true: bool) -> None:
    condition = parse_condition(text)
    found = condition.value(tally_of(20, 20, 20, 20, 20, 30, 20, 30, 40, 30, 20, 30, failed=4), 800.0)
    assert found == pytest.approx(value, rel=0.002)
    assert condition.holds(value) is true


@pytest.mark.parametrize(
    ("text", "value"), [("p50>1ms", 3.0), ("p60>1ms", 3.0), ("p61>1ms", None), ("max>1ms", None), ("mean>1ms", None)]
)
def test_calls_that_ran_out_of_time_took_longer_than_all_others(text: str, value: float | None) -> None:
    tally = tally_of(1, 2, 3)
    tally.codes["DEADLINE_EXCEEDED"] = 2
    # Of five calls the third, at 60 %, is the last that was answered; at 50 % it is the third, too: 2.5, rounded up.
    assert parse_condition(text).value(tally, 1.0) == (None if value is None else pytest.approx(value, rel=0.002))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("p99", "'p99' is no condition: write a metric"),
        ("p100>5ms", "is no condition"),
        ("p99>5", "p99 is compared with a number and its unit, one of us µs ms s"),
        ("p99>5%", "p99 is compared"),
        ("errors>5", "errors is compared with a number and its unit, one of %"),
        ("rate<5ms", "rate is compared"),
        ("latency>5ms", "is no condition"),
        ("p99==5ms", "is no condition"),
    ],
)
def test_bad_conditions_say_how_they_are_written(text: str, told: str) -> None:
    with pytest.raises(BadCondition) as failure:
        parse_condition(text)
    assert told in str(failure.value)


@pytest.mark.parametrize("text", ["errors<1%", "rate<5/s", "p99>50ms"])
def test_an_objective_is_a_time_that_stays_below(text: str) -> None:
    with pytest.raises(BadCondition, match="is no latency objective"):
        parse_objective(text)


def test_without_an_answer_every_limit_on_times_is_passed_over() -> None:
    judged = judge_limits([parse_condition("p99>50ms"), parse_condition("errors>99%")], tally_of(failed=5), 0.0)
    assert judged == [Judged("p99>50ms", "no answer", True), Judged("errors>99%", "100.00%", True)]


def server(capacity: float, *, hiccups: int = 0, limited_from: float = 1e9) -> Callable[[float], Attempt]:
    """Is a server that holds an objective up to its capacity, but for some hiccups."""
    left = [hiccups]

    def attempt(rate: float) -> Attempt:
        held = rate <= capacity and not left[0]
        left[0] = max(0, left[0] - 1)
        return Attempt(rate, rate, 1.0, 0.0, held, "" if held else "p99 was 9 ms", rate >= limited_from)

    return attempt


@pytest.mark.parametrize("capacity", [3, 49, 50, 770, 12_345])
def test_a_search_finds_the_highest_rate_to_its_precision(capacity: float) -> None:
    found = summed_up(parse_objective("p99<5ms"), find_max(server(capacity), 50, 0.05))
    assert found.best is not None
    assert capacity / 1.05 <= found.best <= capacity
    assert found.bounded


def test_a_hiccup_does_not_end_a_search() -> None:
    found = summed_up(parse_objective("p99<5ms"), find_max(server(1_000, hiccups=1), 50, 0.1))
    assert found.best == pytest.approx(1_000, rel=0.1)


def test_a_search_ends_where_the_client_is_the_limit() -> None:
    attempts = find_max(server(1_000, limited_from=500), 50, 0.05)
    found = summed_up(parse_objective("p99<5ms"), attempts)
    # 800 held although the client was full; 1,600 did not, and that says nothing of the server.
    assert (found.best, found.bounded) == (800, False)
    assert attempts[-1].client_limited


def test_a_search_under_an_objective_that_nothing_holds_finds_nothing() -> None:
    attempts = find_max(server(0.5), 50, 0.05)
    assert summed_up(parse_objective("p99<5ms"), attempts).best is None
    assert attempts[-1].wanted >= 1


def test_a_rate_holds_where_time_errors_and_pace_are_kept() -> None:
    objective = parse_objective("p99<50ms")
    assert judge(objective, 10, 10, tally_of(*[5] * 100), []).held
    assert judge(objective, 10, 10, tally_of(60), []).missed == "p99 was 60.03 ms"
    assert judge(objective, 10, 10, tally_of(*[5] * 100, failed=1), []).missed == "0.99% of the calls failed"
    assert judge(objective, 10, 10, tally_of(failed=3), []).missed == "nothing was answered"
    late = tally_of(*[5] * 100)
    late.finished = 90
    assert judge(objective, 10, 10, late, []).missed == "90 of 100 calls were answered in time"


def times(p99: float) -> Times:
    return Times(1, 1, 1, 1, p99, p99, p99)


def made(latency_p99: float = 10, lag_p99: float = 0.1, ok: int = 100) -> Figures:
    known = times(latency_p99) if ok else None
    return Figures(100, ok, {} if ok else {"UNAVAILABLE": 100}, 1 - ok / 100, 0, 0, 50.0, known, known, times(lag_p99))


def test_a_client_is_the_limit_where_its_core_is_full_or_its_calls_go_out_late() -> None:
    assert client_limits("10s@50", 0.5, made()) == []
    assert client_limits("10s@50", 0.97, made()) == ["10s@50: a process of the client took 97% of a core"]
    late = client_limits("10s@50", 0.5, made(latency_p99=10, lag_p99=8))
    assert late == ["10s@50: calls went out 8.0 ms late (p99), and the p99 of the answers is 10.0 ms"]
    # A millisecond is no news, and three of a hundred are none either.
    assert client_limits("10s@50", 0.5, made(latency_p99=1, lag_p99=1)) == []
    assert client_limits("10s@50", 0.5, made(latency_p99=100, lag_p99=3)) == []


@pytest.mark.parametrize(
    ("judged", "limits", "interrupted", "outcome"),
    [
        ([], [], False, "measured"),
        ([Judged("p99>5ms", "1 ms", False)], [], False, "passed"),
        ([Judged("p99>5ms", "9 ms", True)], [], False, "failed"),
        ([Judged("p99>5ms", "9 ms", True)], ["full"], False, "client limited"),
        ([], ["full"], True, "interrupted"),
    ],
)
def test_verdicts(judged: list[Judged], limits: list[str], interrupted: bool, outcome: str) -> None:
    assert conclude(made(), judged, limits, None, interrupted).outcome == outcome


def test_a_verdict_is_a_sentence() -> None:
    kept = conclude(made(), [Judged("p99>50ms", "10 ms", False)], [], None, False).sentence
    assert kept.startswith("Within all limits: 50 calls a second were answered")
    nothing = conclude(made(ok=0), [], [], None, False)
    assert (nothing.outcome, nothing.sentence) == (
        "failed",
        "Failed: no call was answered well (100 × UNAVAILABLE).",
    )
    found = Saturation("p99<50ms", 50, [], 700.0, True)
    assert conclude(made(), [], [], found, False).sentence == "p99<50ms holds up to 700 calls a second."
    unbounded = Saturation("p99<50ms", 50, [], 700.0, False)
    assert "up to at least 700" in conclude(made(), [], ["the core is full"], unbounded, False).sentence
