"""Whatever callers send, on a real socket: one bad field is refused with its path, and nothing is an internal error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marquee.errors import InvalidRequest, MarqueeError, SpaceNotLoaded, UserUnknown, from_status
from marquee.features import KINDS, LIKED, RATED
from marquee.v1 import live_features_pb2, types_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, encoder, refused
from tests.rigs import error_of, publish

FUTURE_MS = 4_000_000_000_000
INT64, INT32 = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)
LATER_MS = st.integers(FUTURE_MS, 2**63 - 1)

# One server a test, for all of its examples.
on_the_wire = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("any")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture
async def rig(registry: Path, tmp_path: Path) -> AsyncIterator[EncoderRig]:
    async with encoder(registry, tmp_path / "features.sqlite") as running:
        yield running


class Sent(NamedTuple):
    """Is a person as a request has them, and the field that is wrong."""

    user_id: str
    events: types_pb2.EventColumns
    field: str


def columns_of(movies: list[int], kinds: list[int], values: list[float], times_ms: list[int]) -> types_pb2.EventColumns:
    # Kinds by number, because a caller of another version may send one that has no name here.
    named: list[Any] = kinds
    return types_pb2.EventColumns(movie_ids=movies, kinds=named, values=values, times_ms=times_ms)


@st.composite
def bad_ids(draw: st.DrawFn) -> str:
    """Draws ids with a control character in them, and ids of more than 256 bytes."""
    text = draw(st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=20))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        return text[:at] + draw(st.sampled_from("\0\t\n\r\x1b\x7f\x80\x9f")) + text[at:]
    return draw(st.sampled_from(["a", "é", "日", "🎬"])) * draw(st.integers(257, 400))


NO_RATING = st.one_of(st.floats(width=32, max_value=0.25), st.floats(width=32, min_value=5.25), st.just(float("nan")))
NO_VALUE = st.one_of(st.floats(width=32).filter(bool))
NO_KIND = st.one_of(st.integers(-(2**31), 0), st.integers(KINDS, 2**31 - 1))
NO_TIME = st.one_of(st.integers(-(2**63), -1), LATER_MS)


@st.composite
def one_bad_field(draw: st.DrawFn) -> Sent:
    """Draws a person with good events, and spoils one thing."""
    count = draw(st.integers(1, 8))
    at = draw(st.integers(0, count - 1))
    movies = draw(st.lists(st.integers(1, 2**63 - 1), min_size=count, max_size=count))
    kinds: list[int] = draw(st.lists(st.sampled_from([RATED, LIKED]), min_size=count, max_size=count))
    values = [4.5 if kind == RATED else 0.0 for kind in kinds]
    times = draw(st.lists(st.integers(0, 1_700_000_000_000), min_size=count, max_size=count))
    user_id = draw(st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=20))
    spoiled = draw(st.sampled_from(["user", "movie", "kind", "value", "time", "kinds", "values", "times"]))
    if spoiled == "user":
        return Sent(draw(bad_ids()), columns_of(movies, kinds, values, times), "user_id")
    field = {"movie": "movie_ids", "kind": "kinds", "value": "values", "time": "times_ms", "times": "times_ms"}
    path = f"events.{field.get(spoiled, spoiled)}"
    if spoiled in ("kinds", "values", "times"):
        columns: dict[str, list[Any]] = {"kinds": kinds, "values": values, "times": times}
        column = columns[spoiled]
        column.extend(column[:1] * draw(st.integers(1, 3)))
        return Sent(user_id, columns_of(movies, kinds, values, times), path)
    if spoiled == "movie":
        movies[at] = draw(st.integers(-(2**63), 0))
    elif spoiled == "kind":
        kinds[at] = draw(NO_KIND)
    elif spoiled == "value":
        values[at] = draw(NO_RATING if kinds[at] == RATED else NO_VALUE)
    else:
        times[at] = draw(NO_TIME)
    return Sent(user_id, columns_of(movies, kinds, values, times), f"{path}[{at}]")


def told(error: MarqueeError) -> str:
    assert isinstance(error, InvalidRequest), error
    assert error.message.startswith(error.field)
    return error.field


@given(one_bad_field())
@on_the_wire
async def test_encode_and_explain_name_the_one_bad_field(rig: EncoderRig, sent: Sent) -> None:
    encode = user_encoder_pb2.EncodeRequest(user_id=sent.user_id, events=sent.events, allow_cold_start=True)
    explain = user_encoder_pb2.ExplainRequest(user_id=sent.user_id, events=sent.events, movie_ids=[1])
    assert told(await refused(rig.users.Encode(encode))) == sent.field
    assert told(await refused(rig.users.Explain(explain))) == sent.field


@given(st.lists(st.one_of(one_bad_field(), st.none()), min_size=1, max_size=6))
@on_the_wire
async def test_a_batch_names_the_bad_field_of_each_item(rig: EncoderRig, people: list[Sent | None]) -> None:
    request = user_encoder_pb2.BatchEncodeRequest(allow_cold_start=True)
    for sent in people:
        request.items.add(**({"user_id": sent.user_id, "events": sent.events} if sent else {"user_id": "ada"}))
    results = (await rig.users.BatchEncode(request)).results
    for number, (sent, result) in enumerate(zip(people, results, strict=True)):
        expected = f"items[{number}].{sent.field}" if sent else ""
        assert (told(from_status(result.status)) if result.HasField("status") else "") == expected


@st.composite
def bad_events(draw: st.DrawFn) -> tuple[live_features_pb2.Event, str]:
    """Draws an event with one field that is wrong."""
    rated = draw(st.booleans())
    event = live_features_pb2.Event(user_id="ada", movie_id=1, kind=RATED if rated else LIKED)
    if rated:
        event.value = 3.5
    field = draw(st.sampled_from(["user_id", "movie_id", "kind", "value", "time_ms", "request_id"]))
    if field == "value":
        event.value = draw(NO_RATING if rated else st.floats(width=32))
    else:
        bad: dict[str, st.SearchStrategy[Any]] = {
            "user_id": st.one_of(bad_ids(), st.just("")),
            "movie_id": st.integers(-(2**63), 0),
            "kind": NO_KIND,
            "time_ms": NO_TIME,
            "request_id": st.integers(129, 200).map("a".__mul__),
        }
        setattr(event, field, draw(bad[field]))
    return event, field


@given(st.lists(st.one_of(bad_events(), st.none()), min_size=1, max_size=8))
@on_the_wire
async def test_recording_names_the_bad_field_of_each_event(
    rig: EncoderRig, events: list[tuple[live_features_pb2.Event, str] | None]
) -> None:
    good = live_features_pb2.Event(user_id="bob", movie_id=1, kind=LIKED)
    answer = await rig.features.RecordEvents(
        live_features_pb2.RecordEventsRequest(events=[one[0] if one else good for one in events])
    )
    fields = [f"events[{number}].{one[1]}" if one else "" for number, one in enumerate(events)]
    assert [told(from_status(status)) if status.code else "" for status in answer.statuses] == fields
    assert answer.recorded == events.count(None)


BAD_PAGE = st.one_of(st.integers(-(2**31), -1), st.integers(1001, 2**31 - 1))
# Of letters that no token is made of, too.
BAD_TOKEN = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=60)


@given(bad_ids(), BAD_PAGE, BAD_TOKEN, st.integers(-(2**63), -1))
@on_the_wire
async def test_reading_deleting_and_exporting_name_the_bad_field(
    rig: EncoderRig, user_id: str, page_size: int, token: str, since_ms: int
) -> None:
    features = rig.features
    await features.RecordEvents(
        live_features_pb2.RecordEventsRequest(events=[live_features_pb2.Event(user_id="ada", movie_id=1, kind=LIKED)])
    )
    history, delete = live_features_pb2.GetHistoryRequest, live_features_pb2.DeleteUserRequest
    export = live_features_pb2.ExportEventsRequest
    calls: list[tuple[str, Awaitable[Any]]] = [
        ("user_id", features.GetHistory(history(user_id=user_id))),
        ("user_id", features.DeleteUser(delete(user_id=user_id))),
        ("user_id", features.DeleteUser(delete())),
        ("page_size", features.GetHistory(history(user_id="ada", page_size=page_size))),
        ("page_token", features.GetHistory(history(user_id="ada", page_token=token))),
        ("page_size", features.ExportEvents(export(page_size=page_size))),
        ("page_token", features.ExportEvents(export(page_token=token))),
        ("since_ms", features.ExportEvents(export(since_ms=since_ms))),
    ]
    assert [told(await refused(call)) for _, call in calls] == [field for field, _ in calls]


@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=70))
@on_the_wire
async def test_any_other_space_is_refused_with_those_that_are_loaded(rig: EncoderRig, space: str) -> None:
    for call in (
        rig.users.Encode(user_encoder_pb2.EncodeRequest(space=space, allow_cold_start=True)),
        rig.users.BatchEncode(user_encoder_pb2.BatchEncodeRequest(space=space, items=[{}])),
        rig.users.Explain(user_encoder_pb2.ExplainRequest(space=space, movie_ids=[1])),
    ):
        error = await refused(call)
        assert isinstance(error, SpaceNotLoaded)
        assert rig.spaces.get("").bundle.space in error.message


ANY_COLUMNS = st.builds(
    columns_of,
    st.lists(INT64, max_size=4),
    st.lists(st.one_of(st.integers(0, KINDS), INT32), max_size=4),
    st.lists(st.floats(width=32), max_size=4),
    st.lists(st.one_of(st.integers(0, 1_700_000_000_000), INT64), max_size=4),
)


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=300), ANY_COLUMNS, INT64, st.lists(INT64), INT32)
@on_the_wire
async def test_nothing_is_an_internal_error(
    rig: EncoderRig, user_id: str, events: types_pb2.EventColumns, as_of_ms: int, movies: list[int], most: int
) -> None:
    known: dict[str, Any] = {"user_id": user_id, "events": events, "as_of_ms": as_of_ms}
    for call in (
        rig.users.Encode(user_encoder_pb2.EncodeRequest(**known)),
        rig.users.Explain(user_encoder_pb2.ExplainRequest(**known, movie_ids=movies, max_events=most)),
    ):
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        if isinstance(outcome, grpc.aio.AioRpcError):
            assert isinstance(error_of(outcome), (InvalidRequest, UserUnknown)), outcome
        else:
            assert isinstance(outcome, (user_encoder_pb2.EncodeResponse, user_encoder_pb2.ExplainResponse))


async def test_a_hundred_thousand_events_are_refused_and_none_are_a_stranger(rig: EncoderRig) -> None:
    many = columns_of([1] * 100_000, [LIKED] * 100_000, [], [])
    encode, explain = user_encoder_pb2.EncodeRequest, user_encoder_pb2.ExplainRequest
    for call in (rig.users.Encode(encode(events=many)), rig.users.Explain(explain(events=many, movie_ids=[1]))):
        assert told(await refused(call)) == "events.movie_ids"
    for call in (rig.users.Encode(encode()), rig.users.Explain(explain(movie_ids=[1]))):
        assert isinstance(await refused(call), UserUnknown)
    item = user_encoder_pb2.BatchEncodeItem(events=many)
    batch = await rig.users.BatchEncode(user_encoder_pb2.BatchEncodeRequest(items=[item]))
    assert told(from_status(batch.results[0].status)) == "items[0].events.movie_ids"
