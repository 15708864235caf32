"""The load of the peers' benchmark counts right answers, and nothing else, on either wire."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest

from benchmarks.peers.load import IN_FLIGHT, Asking, Load
from benchmarks.peers.serving import ask_once
from benchmarks.peers.wires import LoadFailed
from tests.peers.rigs import VECTORS, Answer, Answering, over_grpc, over_http, right

Serve = Callable[[Answering], AbstractContextManager[Asking]]
either_wire = pytest.mark.parametrize("serve", [over_grpc, over_http])
_RATE, _SECONDS = 200.0, 0.2
_CALLS = int(_RATE * _SECONDS)


def _slightly_off(number: int) -> Answer:
    return Answer(VECTORS[number] + np.float32(2e-5))


def _close(number: int) -> Answer:
    return Answer(VECTORS[number] + np.float32(5e-6))


def _of_somebody_else(number: int) -> Answer:
    return Answer(VECTORS[(number + 1) % len(VECTORS)])


def _longer(number: int) -> Answer:
    return Answer(np.append(VECTORS[number], np.float32(0)))


def _no_number(number: int) -> Answer:
    return Answer(VECTORS[number] * np.float32(np.nan))


def _second_fails(number: int) -> Answer:
    return Answer(VECTORS[number], fails=number == 1)


@either_wire
@pytest.mark.parametrize("answering", [right, _close])
def test_right_answers_are_counted(serve: Serve, answering: Answering) -> None:
    with serve(answering) as asking, Load(asking) as load:
        figures = load.flood(0.2)
    assert figures.failed == {}
    assert figures.ms.size >= IN_FLIGHT
    assert figures.rate == pytest.approx(figures.ms.size / figures.seconds)
    assert (figures.ms > 0).all()
    assert figures.client_cpu > 0


@either_wire
@pytest.mark.parametrize("answering", [_slightly_off, _of_somebody_else, _longer, _no_number])
def test_a_wrong_vector_is_a_failure(serve: Serve, answering: Answering) -> None:
    with serve(answering) as asking, Load(asking) as load:
        figures = load.pace(_RATE, _SECONDS)
    assert figures.ms.size == 0
    assert figures.failed == {"wrong vector": _CALLS}


@pytest.mark.parametrize(("serve", "status"), [(over_grpc, "status 14"), (over_http, "status 503")])
def test_a_status_that_is_not_ok_is_a_failure_though_the_body_is_right(serve: Serve, status: str) -> None:
    with serve(_second_fails) as asking, Load(asking) as load:
        figures = load.pace(_RATE, _SECONDS)
    assert figures.failed == {status: len(range(1, _CALLS, len(VECTORS)))}
    assert figures.ms.size + sum(figures.failed.values()) == _CALLS


@either_wire
def test_latency_counts_from_when_a_call_was_due(serve: Serve) -> None:
    come = itertools.count(1)
    everybody = threading.Event()

    def answer_when_all_have_come(number: int) -> Answer:
        if next(come) >= IN_FLIGHT:
            everybody.set()
        assert everybody.wait(20)
        return right(number)

    with serve(answer_when_all_have_come) as asking, Load(asking) as load:
        figures = load.pace(_RATE, _SECONDS)
    assert figures.ms.size == _CALLS
    # The first waits for the last of those that can be in flight, and those after it for the first.
    assert figures.ms.max() >= 1000 * (IN_FLIGHT - 1) / _RATE


@either_wire
def test_a_server_that_goes_away_is_told_of(serve: Serve) -> None:
    with pytest.raises((LoadFailed, OSError)), Load(_stopped(serve)) as load:
        load.flood(0.2)


def _stopped(serve: Serve) -> Asking:
    with serve(right) as asking:
        return asking


@either_wire
def test_one_call_says_what_was_wrong(serve: Serve) -> None:
    with serve(right) as asking:
        assert ask_once(asking) == "OK"
    with serve(_of_somebody_else) as asking:
        assert ask_once(asking) == "wrong vector"
    with serve(lambda number: Answer(VECTORS[number], fails=True)) as asking:
        assert ask_once(asking) in {"status 14", "status 503"}
