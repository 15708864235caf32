"""Which calls are refused here: the rule of the book, by arithmetic."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from marquee.client.throttling import Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def throttle(clock: Clock, draw: float) -> Throttle:
    return Throttle(clock, lambda: draw)


def send(one: Throttle, accepted: int, refused: int) -> None:
    for outcome in [True] * accepted + [False] * refused:
        one.note(outcome)


def test_nothing_is_refused_here_while_half_is_accepted() -> None:
    one = throttle(Clock(), 0.0)
    send(one, accepted=10, refused=10)
    assert one.admits()


def test_the_probability_is_that_of_the_book() -> None:
    # 30 requests, 10 accepted: (30 - 2 x 10) / (30 + 1) = 0.3226.
    for draw, admitted in ((0.322, False), (0.323, True)):
        one = throttle(Clock(), draw)
        send(one, accepted=10, refused=20)
        assert one.admits() is admitted


def test_what_is_refused_here_counts_as_a_request() -> None:
    one = throttle(Clock(), 0.33)
    send(one, accepted=10, refused=21)
    # 11 / 32 = 0.344, then 12 / 33 = 0.364.
    assert not one.admits()
    assert one._requests == 32


def test_what_is_older_than_the_window_is_forgotten() -> None:
    clock = Clock()
    one = throttle(clock, 0.0)
    send(one, accepted=0, refused=100)
    clock.now += 4.0
    assert not one.admits()
    clock.now += 1.0
    assert not one.admits(), "the one of a second ago was refused here"
    clock.now += 5.0
    assert one.admits()


def test_a_call_is_made_again_only_while_hardly_anything_is_refused() -> None:
    one = throttle(Clock(), 0.0)
    send(one, accepted=0, refused=1)
    assert one.admits_another()
    send(one, accepted=0, refused=1)
    assert not one.admits_another()
    send(one, accepted=10, refused=0)
    assert one.admits_another()


def test_threads_share_one() -> None:
    clock = Clock()
    one = throttle(clock, 1.0)

    def work(_: int) -> None:
        for _ in range(500):
            one.admits()
            one.note(accepted=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert (one._requests, one._accepts) == (2_000, 2_000)
    clock.now += 10.0
    one.note(accepted=True)
    assert (one._requests, one._accepts, len(one._slots)) == (1, 1, 1)
