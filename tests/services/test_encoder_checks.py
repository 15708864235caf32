"""What many people send is read together as it is read one by one: the same events, and the same errors."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marquee.errors import InvalidRequest
from marquee.features import KINDS, LIKED, RATED, Events
from marquee.v1 import types_pb2
from services.user_encoder.checks import Sent, read_events, read_many
from services.user_encoder.packed import integers, pack

NOW_MS = 1_800_000_000_000
NAN = float("nan")

# Mostly good, so that good and bad people stand side by side.
MOVIES = st.sampled_from([1, 2, 3, 2**63 - 1] * 4 + [0, -1])
KIND: st.SearchStrategy[types_pb2.EventKind] = st.sampled_from([RATED, LIKED] * 8 + [0, -1, KINDS])
VALUES = {RATED: st.sampled_from([0.5, 3.3, 5.0] * 4 + [0.0, 5.5, NAN])}
OTHER = st.sampled_from([0.0] * 12 + [1.0, NAN])
TIMES = st.sampled_from([0, 1, NOW_MS, NOW_MS + 299_000] * 4 + [-1, NOW_MS + 301_000])


@st.composite
def columns(draw: st.DrawFn) -> types_pb2.EventColumns:
    kinds: list[types_pb2.EventKind] = draw(st.lists(KIND, max_size=5))
    counts = st.sampled_from([len(kinds)] * 12 + [0, len(kinds) + 1])
    movies = draw(st.lists(MOVIES, min_size=(n := draw(counts)), max_size=n))
    values = [draw(VALUES.get(kind, OTHER)) for kind in kinds] if draw(st.booleans()) else []
    times = draw(st.lists(TIMES, min_size=(n := draw(st.sampled_from([0, len(kinds)]))), max_size=n))
    return types_pb2.EventColumns(movie_ids=movies, kinds=kinds, values=values, times_ms=times)


def alone(one: Sent) -> Events | InvalidRequest:
    try:
        return read_events(*one)
    except InvalidRequest as error:
        return error


def told(of: Events | InvalidRequest) -> object:
    if isinstance(of, InvalidRequest):
        return of.field, of.message
    return [(column.dtype, column.tolist()) for column in of]


@given(st.lists(columns(), max_size=6))
def test_many_are_read_as_one_by_one(messages: list[types_pb2.EventColumns]) -> None:
    many = [Sent(message, NOW_MS + at, f"items[{at}].events") for at, message in enumerate(messages)]
    assert [told(one) for one in read_many(many)] == [told(alone(one)) for one in many]


@given(st.lists(st.one_of(st.integers(0, 300), st.integers(-(2**63), 2**63 - 1))), st.integers(0, 200))
def test_columns_are_taken_apart_as_the_bindings_read_them(numbers: list[int], more: int) -> None:
    message = types_pb2.EventColumns(
        movie_ids=numbers, kinds=[LIKED] * more, values=[0.5] * more, times_ms=numbers[::-1] * 3
    )
    packed = pack(message)
    assert packed is not None
    assert integers(packed.movie_ids).tolist() == numbers
    assert integers(packed.kinds).tolist() == [LIKED] * more
    assert np.frombuffer(packed.values, "<f4").tolist() == [0.5] * more
    assert integers(packed.times_ms).tolist() == numbers[::-1] * 3


def test_fields_of_a_later_version_are_left_alone() -> None:
    known = types_pb2.EventColumns(movie_ids=[1, 300], kinds=[LIKED] * 2)
    # Field 15, five bytes.
    message = types_pb2.EventColumns.FromString(known.SerializeToString() + b"\x7a\x05later")
    assert pack(message) is None
    told_alone, told_plain = (read_many([Sent(each, NOW_MS, "events")])[0] for each in (message, known))
    assert told(told_alone) == told(told_plain)


def test_a_history_that_is_too_long_is_told() -> None:
    long = types_pb2.EventColumns(movie_ids=[1] * 10_001, kinds=[LIKED] * 10_001)
    good = types_pb2.EventColumns(movie_ids=[1], kinds=[LIKED])
    error, events = read_many([Sent(long, NOW_MS, "events"), Sent(good, NOW_MS, "events")])
    assert isinstance(error, InvalidRequest)
    assert isinstance(events, Events)
    assert (error.field, events.movie_ids.tolist()) == ("events.movie_ids", [1])
