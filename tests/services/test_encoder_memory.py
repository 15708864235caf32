"""What the encoder remembers of people for when the store fails, and the breaker that spares a failing store."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee.features import LIKED, NO_EVENTS, RATED, RETRACTED, Events, current
from services.common.breaker import Breaker
from services.user_encoder.last_known import LastKnown
from services.user_encoder.stores.base import UserWrite, add
from tests.encoder_rigs import Row, events

KILOBYTE = 1000


def digest(user_id: str) -> bytes:
    return b"digest of " + user_id.encode()


def memory(*, max_bytes: int = 1000 * KILOBYTE, max_age_s: float = 60.0) -> LastKnown:
    return LastKnown(digest, max_bytes=max_bytes, max_age_s=max_age_s, longest_read_s=5.0)


def likes(*movies: int) -> Events:
    return events(*(Row(movie, LIKED, 0, 100 + movie) for movie in movies))


def recalled(known: LastKnown, user_id: str, now: float) -> list[int] | None:
    found = known.get(user_id, now)
    return found and current(found[0]).movie_ids.tolist()


def test_what_was_read_is_recalled_with_its_time() -> None:
    known = memory()
    known.put("ada", likes(1, 4), 10.0)
    known.put("bob", likes(7), 11.0)
    known.put("ada", likes(1, 4, 10), 12.0)
    history, read_at = known.get("ada", 20.0) or pytest.fail("nothing is known of ada")
    assert (history.movie_ids.tolist(), read_at) == ([1, 4, 10], 12.0)
    assert recalled(known, "bob", 20.0) == [7]
    assert known.get("eve", 20.0) is None


def test_what_is_too_old_is_not_recalled() -> None:
    known = memory(max_age_s=60.0)
    known.put("ada", likes(1), 10.0)
    assert recalled(known, "ada", 70.0) == [1]
    assert known.get("ada", 70.1) is None


def test_who_was_read_longest_ago_is_forgotten_first() -> None:
    # An event takes 28 bytes, a person 1,700 more, so three of these people fit and four do not.
    known = memory(max_bytes=14 * KILOBYTE)
    long = likes(*range(100))
    for at, user_id in enumerate(["ada", "bob", "cy", "ada", "dan"]):
        known.put(user_id, long, float(at))
    assert [user_id for user_id in ("ada", "bob", "cy", "dan") if known.get(user_id, 5.0)] == ["ada", "cy", "dan"]


def test_histories_that_grow_push_others_out() -> None:
    known = memory(max_bytes=14 * KILOBYTE)
    known.put("ada", likes(1), 1.0)
    known.put("bob", likes(1), 2.0)
    known.put("bob", likes(*range(400)), 3.0)
    assert known.get("ada", 4.0) is None
    known.record(UserWrite("bob", likes(*range(400, 800))), 5.0)
    assert known.get("bob", 6.0) is None, "who alone is too large is not remembered"
    known.put("cy", likes(1), 7.0)
    assert recalled(known, "cy", 8.0) == [1], "what was forgotten takes no room"


def test_people_who_are_too_old_make_room() -> None:
    known = memory(max_age_s=60.0)
    known.put("ada", likes(1), 10.0)
    known.put("bob", likes(1), 71.0)
    assert known.get("ada", 12.0) is None


def test_a_memory_of_no_size_remembers_nobody() -> None:
    known = memory(max_bytes=0)
    known.put("ada", likes(1), 10.0)
    assert known.get("ada", 10.0) is None


def test_who_has_no_events_any_more_is_forgotten() -> None:
    known = memory()
    known.put("ada", likes(1), 10.0)
    known.put("ada", NO_EVENTS, 11.0)
    known.put("bob", NO_EVENTS, 11.0)
    assert known.get("ada", 12.0) is None
    assert known.get("bob", 12.0) is None


@pytest.mark.parametrize("writes", [1, 7, 8, 20])
def test_what_was_recorded_since_is_recalled(writes: int) -> None:
    known = memory()
    known.put("ada", likes(1, 4), 10.0)
    for number in range(writes):
        known.record(UserWrite("ada", likes(10 + number)), 11.0 + number)
    known.record(UserWrite("ada", events(Row(4, RETRACTED, 0, 500), Row(1, RATED, 2.0, 600))), 40.0)
    history, read_at = known.get("ada", 50.0) or pytest.fail("nothing is known of ada")
    assert sorted(current(history).movie_ids.tolist()) == sorted([1, 1, *range(10, 10 + writes)])
    assert read_at == 10.0


def test_recording_does_not_make_a_person_known() -> None:
    known = memory()
    known.record(UserWrite("ada", likes(1)), 10.0)
    assert known.get("ada", 11.0) is None


def test_a_read_that_began_before_the_newest_event_does_not_hide_it() -> None:
    known = memory()
    known.put("ada", likes(1), 10.0)
    known.record(UserWrite("ada", likes(4)), 12.0)
    known.put("ada", likes(1), 11.0)
    assert recalled(known, "ada", 13.0) == [1, 4]
    known.put("ada", likes(1, 4, 7), 12.5)
    assert recalled(known, "ada", 13.0) == [1, 4, 7]


def test_a_deleted_person_is_forgotten_whoever_tells() -> None:
    known = memory()
    for user_id in ("ada", "bob", "cy"):
        known.put(user_id, likes(1), 10.0)
    known.forget_person("ada", 11.0)
    known.forget(digest("bob"), 11.0)
    known.forget(digest("somebody who was never read"), 11.0)
    assert [recalled(known, user_id, 12.0) for user_id in ("ada", "bob", "cy")] == [None, None, [1]]
    known.forget(None, 13.0)
    assert known.get("cy", 14.0) is None
    known.put("cy", likes(4), 15.0)
    assert recalled(known, "cy", 16.0) == [4]


def test_a_read_that_began_before_a_deletion_is_not_remembered() -> None:
    known = memory()
    known.forget_person("ada", 11.0)
    known.put("ada", likes(1), 10.0)
    assert known.get("ada", 12.0) is None
    known.forget(digest("bob"), 13.0)
    known.put("bob", likes(1), 12.5)
    assert known.get("bob", 14.0) is None
    known.put("bob", likes(4), 14.0)
    assert recalled(known, "bob", 15.0) == [4]


class Plain:
    """Remembers everybody for ever, and merges at once: what `LastKnown` must recall where nothing is too much."""

    def __init__(self) -> None:
        self.people: dict[str, Events] = {}
        self.changed: dict[str, float] = {}
        self.forgot_at = -1.0

    def put(self, user_id: str, history: Events, began: float) -> None:
        if began > max(self.forgot_at, self.changed.get(user_id, -1.0)):
            self.people[user_id] = history

    def record(self, write: UserWrite, now: float) -> None:
        self.changed[write.user_id] = now
        if write.user_id in self.people:
            self.people[write.user_id] = add(self.people[write.user_id], write)

    def forget(self, user_id: str | None, now: float) -> None:
        self.forgot_at = now
        self.people = {} if user_id is None else {name: one for name, one in self.people.items() if name != user_id}


movie_ids = st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True)
people = st.sampled_from(["ada", "bob"])
# What is done, with whom, which movies, and how long ago a read began.
Step = tuple[str, str | None, list[int], int]
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("put"), people, movie_ids, st.integers(0, 3)),
    st.tuples(st.just("record"), people, movie_ids, st.just(0)),
    st.tuples(st.just("forget"), st.one_of(people, st.none()), st.just([]), st.just(0)),
    st.tuples(st.just("recall"), people, st.just([]), st.just(0)),
)


@settings(deadline=None)
@given(st.lists(steps, max_size=25))
def test_it_recalls_what_a_plain_memory_does(taken: list[Step]) -> None:
    known, plain = memory(), Plain()
    last: list[Step] = [("recall", "ada", [], 0), ("recall", "bob", [], 0)]
    for now, (what, user_id, movies, late) in enumerate(taken + last, 10):
        if what == "forget":
            known.forget(None if user_id is None else digest(user_id), float(now))
            plain.forget(user_id, float(now))
        elif user_id is None or what == "recall":
            history = plain.people.get(user_id or "")
            assert recalled(known, user_id or "", float(now)) == (history and history.movie_ids.tolist())
        elif what == "record":
            known.record(UserWrite(user_id, likes(*movies)), float(now))
            plain.record(UserWrite(user_id, likes(*movies)), float(now))
        else:
            known.put(user_id, likes(*movies), now - late - 0.5)
            plain.put(user_id, likes(*movies), now - late - 0.5)


def test_the_breaker_opens_after_five_failures_in_a_row_and_tells_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    breaker = Breaker("the feature store", "people are encoded without it")
    for number in range(4):
        breaker.failed("it is down", float(number))
    breaker.succeeded()
    for number in range(4):
        breaker.failed("it is down", float(number))
    assert breaker.lets_through(10.0)
    assert not breaker.reachable
    assert caplog.messages == []
    for _ in range(3):
        breaker.failed("it is down", 10.0)
    assert not breaker.lets_through(10.4)
    (message,) = caplog.messages
    assert message.startswith("it is down; 5 reads in a row have failed")


def test_one_read_is_let_through_now_and_then_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    breaker = Breaker("the feature store", "people are encoded without it")
    for _ in range(5):
        breaker.failed("it is down", 10.0)
    assert [breaker.lets_through(now) for now in (10.4, 10.5, 10.5, 10.9, 11.0, 11.1)] == [
        *(False, True, False),
        *(False, True, False),
    ]
    breaker.failed("it is still down", 11.2)
    assert not breaker.lets_through(11.3)
    breaker.succeeded()
    assert [breaker.lets_through(11.4), breaker.lets_through(11.4)] == [True, True]
    assert (breaker.reachable, breaker.last_error) == (True, "it is still down")
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
