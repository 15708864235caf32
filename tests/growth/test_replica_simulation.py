"""The simulation of replicas is held to queueing theory, to cases done by hand, and to the services' own limiter."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.replicas import Outcome, Seconds, Setup, arrivals, simulate
from marquee.errors import ConfigError, Overloaded
from services.common.limiter import INTERACTIVE, Lane

CALLS = 80_000
ONE = Setup(replicas=1, waiting=CALLS)


def run(arrive_s: Sequence[float], serve_s: Sequence[float], setup: Setup, seed: int = 0) -> Outcome:
    return simulate(np.array(arrive_s), np.array(serve_s), setup, np.random.default_rng(seed))


def random_run(load: float, setup: Setup, *, exactly: bool = False) -> Outcome:
    """Serves calls of a second on average: exponential, or exactly so long."""
    rng = np.random.default_rng(1)
    arrive_s = arrivals(load, CALLS / load, rng)
    serve_s = np.ones(CALLS) if exactly else rng.exponential(1.0, CALLS)
    return simulate(arrive_s, serve_s, setup, rng)


def test_turns_are_taken() -> None:
    # Calls 0 and 2 meet at one replica, 1 and 3 at the other.
    outcome = run([0.0, 0.1, 0.2, 0.3], [1.0, 2.0, 1.0, 2.0], Setup(replicas=2))
    assert outcome.seconds == pytest.approx([1.0, 1.8, 2.0, 3.8])


def test_clients_take_turns_each_alone() -> None:
    # Of 100 clients with a call each, every one begins where it likes.
    outcome = run([0.0] * 100, [1.0] * 100, Setup(replicas=2, running=50, waiting=0, clients=100))
    assert 50 < outcome.refused + 50 <= 100


def test_who_finds_the_queue_full_is_refused() -> None:
    outcome = run([0.0, 0.1, 0.2, 1.1], [1.0] * 4, Setup(replicas=1, waiting=1))
    assert outcome.seconds == pytest.approx([1.0, 1.9, 1.9])
    assert (outcome.refused, outcome.late, outcome.calls) == (1, 0, 4)


def test_places_are_taken_in_the_order_of_arrival() -> None:
    outcome = run([0.0, 0.1, 0.2, 0.3], [1.0, 3.0, 1.0, 1.0], Setup(replicas=1, running=2))
    assert outcome.seconds == pytest.approx([1.0, 1.8, 2.7, 3.0])


def test_who_waits_too_long_is_late_though_its_call_began() -> None:
    # The first is late at 1.0; the second begins then and is late at 1.5; the third takes half of its second to wait.
    outcome = run([0.0, 0.5, 1.0], [9.0, 0.75, 0.25], Setup(replicas=1, waiting=2, deadline_s=1.0))
    assert outcome.late == 2
    assert outcome.seconds == pytest.approx([0.75])


def test_a_call_that_takes_too_long_gives_its_place_back_at_its_deadline() -> None:
    outcome = run([0.0, 0.5], [9.0, 0.25], Setup(replicas=1, deadline_s=1.0))
    assert outcome.late == 1
    assert outcome.seconds == pytest.approx([0.75])


def test_nobody_answered_has_no_percentile() -> None:
    assert math.isnan(run([], [], ONE).percentile_s(99))


@pytest.mark.parametrize(
    "setup", [Setup(0), Setup(1, 0), Setup(1, waiting=-1), Setup(1, clients=0), Setup(1, deadline_s=0)]
)
def test_what_cannot_serve_is_refused(setup: Setup) -> None:
    with pytest.raises(ConfigError, match="name at least one replica"):
        run([0.0], [1.0], setup)


def test_the_same_seed_gives_the_same_run() -> None:
    setup = Setup(replicas=3, clients=4)
    assert np.array_equal(random_run(2.5, setup).seconds, random_run(2.5, setup).seconds)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.85])
def test_m_m_1(load: float) -> None:
    outcome = random_run(load, ONE)
    # Sojourn times are exponential, of mean 1 / (μ - λ), with μ = 1.
    assert outcome.seconds.mean() == pytest.approx(1 / (1 - load), rel=0.05)
    assert outcome.percentile_s(50) == pytest.approx(math.log(2) / (1 - load), rel=0.06)
    assert outcome.percentile_s(99) == pytest.approx(math.log(100) / (1 - load), rel=0.1)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.85])
def test_m_d_1(load: float) -> None:
    outcome = random_run(load, ONE, exactly=True)
    # Pollaczek and Khinchine: a mean wait of ρ / (2 (1 - ρ)).
    assert outcome.seconds.mean() == pytest.approx(1 + load / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize("load", [0.8, 1.5])
def test_m_m_1_k_refuses_as_many(load: float) -> None:
    outcome = random_run(load, Setup(replicas=1, waiting=4))
    places = 5
    refused = (1 - load) * load**places / (1 - load ** (places + 1))
    assert outcome.refused / CALLS == pytest.approx(refused, rel=0.05)


def test_erlang_b() -> None:
    outcome = random_run(4.0, Setup(replicas=1, running=5, waiting=0))
    terms = [4.0**places / math.factorial(places) for places in range(6)]
    assert outcome.refused / CALLS == pytest.approx(terms[-1] / sum(terms), rel=0.05)


def test_round_robin_of_two_is_e2_m_1() -> None:
    """Of one client's calls each of two replicas gets every other one: gaps between them are Erlang of two stages.

    G/M/1: a sojourn of 1 / (μ (1 - σ)) on average, σ being the root below 1 of σ = A*(μ (1 - σ)).
    """
    rate = 1.6
    outcome = random_run(rate, Setup(replicas=2, waiting=CALLS))
    sigma = 0.5
    for _ in range(200):
        sigma = (rate / (rate + 1 - sigma)) ** 2
    assert outcome.seconds.mean() == pytest.approx(1 / (1 - sigma), rel=0.05)
    # Less than by drawing a replica: turns are even.
    assert outcome.seconds.mean() < 0.8 / (1 - rate / 2)


class _Skipping(selectors.DefaultSelector):
    """Lets no time pass but on the clock of `now`."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class _Skipped(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


async def _in_lane(arrive_s: Seconds, serve_s: Seconds, setup: Setup) -> Outcome:
    """Does what `limiter.Limiter` does around a call."""
    lane, clock = Lane(INTERACTIVE, setup.running, setup.waiting), asyncio.get_running_loop().time
    seconds: list[float] = []
    ended = {"refused": 0, "late": 0}

    async def call(arrives: float, takes: float) -> None:
        await asyncio.sleep(arrives - clock())
        try:
            async with asyncio.timeout_at(arrives + setup.deadline_s):
                if not lane.enter():
                    await lane.wait()
                try:
                    await asyncio.sleep(takes)
                finally:
                    lane.leave()
        except Overloaded:
            ended["refused"] += 1
        except TimeoutError:
            ended["late"] += 1
        else:
            seconds.append(clock() - arrives)

    await asyncio.gather(*map(call, arrive_s.tolist(), serve_s.tolist()))
    return Outcome(np.array(seconds), **ended)


@pytest.mark.parametrize("load", [0.7, 1.0, 1.6])
def test_a_replica_is_the_services_own_lane(load: float) -> None:
    setup = Setup(replicas=1, running=3, waiting=5, deadline_s=2.5)
    rng = np.random.default_rng(2)
    arrive_s = arrivals(load * setup.running, 700, rng)
    serve_s = rng.exponential(1.0, len(arrive_s))
    with asyncio.Runner(loop_factory=_Skipped) as runner:
        real = runner.run(_in_lane(arrive_s, serve_s, setup))
    simulated = simulate(arrive_s, serve_s, setup, rng)
    assert (simulated.refused, simulated.late) == (real.refused, real.late)
    assert min(simulated.refused, simulated.late) > 0
    assert simulated.seconds == pytest.approx(real.seconds, abs=1e-6)
