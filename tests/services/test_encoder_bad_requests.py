"""Every bad input is refused on the wire with the path of its field and a sentence that says what to send."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from marquee.errors import InvalidRequest, from_status
from marquee.features import KINDS, LIKED, RATED, RETRACTED, WATCHED
from marquee.v1 import live_features_pb2, types_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, encoder, refused
from tests.rigs import publish

FUTURE_MS = 4_000_000_000_000
NAN = float("nan")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture
async def rig(registry: Path, tmp_path: Path) -> AsyncIterator[EncoderRig]:
    async with encoder(registry, tmp_path / "features.sqlite") as running:
        yield running


class Bad(NamedTuple):
    """Is a bad person, the field that is wrong and a part of what is said about it."""

    user_id: str
    events: types_pb2.EventColumns
    field: str
    says: str


def kinds(*numbers: int) -> list[types_pb2.EventKind]:
    # Built by number, because a caller of another version may send one that has no name here.
    return list(numbers)  # type: ignore[arg-type]


def of(
    movie_ids: list[int],
    kind_numbers: list[int],
    values: list[float] | None = None,
    times_ms: list[int] | None = None,
) -> types_pb2.EventColumns:
    return types_pb2.EventColumns(
        movie_ids=movie_ids, kinds=kinds(*kind_numbers), values=values or [], times_ms=times_ms or []
    )


PEOPLE = {
    "id with a line feed": Bad("a\nb", of([], []), "user_id", "has a control character"),
    "id with NUL": Bad("a\0", of([], []), "user_id", "has a control character"),
    "id with a C1 control": Bad("a\u0085", of([], []), "user_id", "has a control character"),
    "id of 257 bytes": Bad("a" * 257, of([], []), "user_id", "is longer than 256 bytes"),
    "id of 129 characters and 258 bytes": Bad("é" * 129, of([], []), "user_id", "is longer than 256 bytes"),
    "movie 0": Bad("ada", of([1, 0], [LIKED, LIKED]), "events.movie_ids[1]", "is 0; movie ids are positive"),
    "negative movie": Bad("ada", of([-5], [LIKED]), "events.movie_ids[0]", "is -5; movie ids are positive"),
    "unspecified kind": Bad("ada", of([1, 4], [LIKED, 0]), "events.kinds[1]", "EVENT_KIND_UNSPECIFIED is not a kind"),
    "kind of the future": Bad("ada", of([1], [KINDS]), "events.kinds[0]", "this server knows the kinds 1 to 8"),
    "negative kind": Bad("ada", of([1], [-1]), "events.kinds[0]", "is -1"),
    "too few kinds": Bad("ada", of([1, 4, 7], [LIKED, LIKED]), "events.kinds", "has 2 entries, events.movie_ids 3"),
    "no kinds": Bad("ada", of([1], []), "events.kinds", "has 0 entries, events.movie_ids 1"),
    "kinds without movies": Bad("ada", of([], [LIKED]), "events.kinds", "has 1 entries, events.movie_ids 0"),
    "too many values": Bad("ada", of([1], [RATED], [1, 2]), "events.values", "has 2 entries, events.movie_ids 1"),
    "too few times": Bad(
        "ada", of([1, 4], [LIKED] * 2, None, [5]), "events.times_ms", "has 1 entries, events.movie_ids 2"
    ),
    "times without movies": Bad("ada", of([], [], None, [5]), "events.times_ms", "has 1 entries, events.movie_ids 0"),
    "rating without values": Bad("ada", of([1, 4], [LIKED, RATED]), "events.values", "events.kinds[1] is RATED"),
    "rating of 0": Bad("ada", of([1], [RATED], [0]), "events.values[0]", "is 0; a rating is 0.5 to 5 stars"),
    "rating of 5.5": Bad(
        "ada", of([1, 4, 7, 10], [RATED] * 4, [1, 2, 3, 5.5]), "events.values[3]", "is 5.5; a rating is 0.5 to 5 stars"
    ),
    "rating of NaN": Bad("ada", of([1], [RATED], [NAN]), "events.values[0]", "is nan; a rating is"),
    "value for LIKED": Bad(
        "ada", of([1, 4], [RATED, LIKED], [4, 4]), "events.values[1]", "only RATED has a value, LIKED has 0"
    ),
    "NaN for WATCHED": Bad("ada", of([1], [WATCHED], [NAN]), "events.values[0]", "WATCHED has 0"),
    "negative time": Bad("ada", of([1], [LIKED], None, [-1]), "events.times_ms[0]", "is -1; send UTC milliseconds"),
    "time in microseconds": Bad(
        "ada", of([1], [LIKED], None, [FUTURE_MS]), "events.times_ms[0]", "more than 5 minutes ahead"
    ),
    "10,001 events": Bad(
        "ada", of([1] * 10_001, [LIKED] * 10_001), "events.movie_ids", "has 10001 entries; send the newest 10000"
    ),
}


@pytest.mark.parametrize("bad", PEOPLE.values(), ids=PEOPLE)
async def test_encode_refuses(rig: EncoderRig, bad: Bad) -> None:
    request = user_encoder_pb2.EncodeRequest(user_id=bad.user_id, events=bad.events, allow_cold_start=True)
    error = await refused(rig.users.Encode(request))
    assert isinstance(error, InvalidRequest)
    assert (error.field, bad.says in error.message) == (bad.field, True), error.message
    assert error.message.startswith(bad.field)


async def test_a_batch_refuses_each_bad_person_and_nobody_else(rig: EncoderRig) -> None:
    request = user_encoder_pb2.BatchEncodeRequest(allow_cold_start=True)
    for bad in PEOPLE.values():
        request.items.add(user_id=bad.user_id, events=bad.events)
        request.items.add(events=of([1], [LIKED]))
    answer = await rig.users.BatchEncode(request)
    errors = [from_status(result.status) for result in answer.results[::2]]
    fields = [f"items[{2 * number}].{bad.field}" for number, bad in enumerate(PEOPLE.values())]
    assert [error.field for error in errors] == fields
    for error, bad in zip(errors, PEOPLE.values(), strict=True):
        assert bad.says.replace("events.", error.field.partition("events.")[0] + "events.") in error.message
    assert all(not result.HasField("status") and result.events_used == 1 for result in answer.results[1::2])


@pytest.mark.parametrize(
    ("field", "fields"), [("as_of_ms", {"as_of_ms": -1}), ("request_id", {"request_id": "é" * 65})]
)
async def test_encode_and_its_batch_refuse_the_whole_call(
    rig: EncoderRig, field: str, fields: dict[str, int | str]
) -> None:
    one = user_encoder_pb2.EncodeRequest(allow_cold_start=True, **fields)  # type: ignore[arg-type]
    many = user_encoder_pb2.BatchEncodeRequest(
        allow_cold_start=True,
        items=[user_encoder_pb2.BatchEncodeItem()],
        **fields,  # type: ignore[arg-type]
    )
    for call in (rig.users.Encode(one), rig.users.BatchEncode(many)):
        error = await refused(call)
        assert isinstance(error, InvalidRequest)
        assert error.field == field


@pytest.mark.parametrize("count", [0, 1025])
async def test_a_batch_has_1_to_1024_people(rig: EncoderRig, count: int) -> None:
    request = user_encoder_pb2.BatchEncodeRequest(
        items=[user_encoder_pb2.BatchEncodeItem()] * count, allow_cold_start=True
    )
    error = await refused(rig.users.BatchEncode(request))
    assert isinstance(error, InvalidRequest)
    assert (error.field, error.message) == ("items", f"items has {count} entries; send 1 to 1,024")


def event(**fields: object) -> live_features_pb2.Event:
    known: dict[str, object] = {"user_id": "ada", "movie_id": 1, "kind": LIKED}
    return live_features_pb2.Event(**(known | fields))  # type: ignore[arg-type]


EVENTS = {
    "no user": (event(user_id=""), "user_id", "is empty; name the person"),
    "id with a tab": (event(user_id="a\tb"), "user_id", "has a control character"),
    "id of 257 bytes": (event(user_id="a" * 257), "user_id", "is longer than 256 bytes"),
    "no movie": (event(movie_id=0), "movie_id", "is 0; movie ids are positive"),
    "negative movie": (event(movie_id=-1), "movie_id", "is -1; movie ids are positive"),
    "no kind": (event(kind=0), "kind", "EVENT_KIND_UNSPECIFIED is not a kind"),
    "kind of the future": (event(kind=KINDS), "kind", "this server knows the kinds 1 to 8"),
    "rating without value": (event(kind=RATED), "value", "is not set; a RATED event has its rating"),
    "rating of 0": (event(kind=RATED, value=0), "value", "is 0; a rating is 0.5 to 5 stars"),
    "rating of 6": (event(kind=RATED, value=6), "value", "is 6; a rating is 0.5 to 5 stars"),
    "rating of NaN": (event(kind=RATED, value=NAN), "value", "is nan; a rating is"),
    "value for LIKED": (event(value=4), "value", "is set; only RATED has a value, LIKED has none"),
    "value 0 for RETRACTED": (event(kind=RETRACTED, value=0), "value", "is set; only RATED has a value"),
    "negative time": (event(time_ms=-1), "time_ms", "is -1; send UTC milliseconds"),
    "time in the future": (event(time_ms=FUTURE_MS), "time_ms", "more than 5 minutes ahead of the server's clock"),
    "request id of 129 bytes": (event(request_id="a" * 129), "request_id", "is longer than 128 bytes"),
}


async def test_recording_refuses_each_bad_event_and_stores_the_others(rig: EncoderRig) -> None:
    request = live_features_pb2.RecordEventsRequest()
    for number, (bad, _, _) in enumerate(EVENTS.values()):
        request.events.extend([bad, event(user_id="good", movie_id=1 + number)])
    answer = await rig.features.RecordEvents(request)
    assert [status.code for status in answer.statuses[1::2]] == [0] * len(EVENTS)
    assert answer.recorded == len(EVENTS)
    for number, (status, (_, field, says)) in enumerate(zip(answer.statuses[::2], EVENTS.values(), strict=True)):
        error = from_status(status)
        assert isinstance(error, InvalidRequest)
        assert error.field == f"events[{2 * number}].{field}"
        assert says in error.message
    history = await rig.features.GetHistory(live_features_pb2.GetHistoryRequest(user_id="good"))
    assert history.total == len(EVENTS)
    assert (await rig.store.read("ada")).size == 0


async def test_a_call_of_bad_events_only_is_answered(rig: EncoderRig) -> None:
    answer = await rig.features.RecordEvents(live_features_pb2.RecordEventsRequest(events=[event(movie_id=0)]))
    assert (answer.recorded, answer.statuses[0].code) == (0, 3)


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_recording_has_1_to_1000_events(rig: EncoderRig, count: int) -> None:
    error = await refused(rig.features.RecordEvents(live_features_pb2.RecordEventsRequest(events=[event()] * count)))
    assert isinstance(error, InvalidRequest)
    assert (error.field, error.message) == ("events", f"events has {count} entries; send 1 to 1,000")


async def test_the_clocks_may_differ_by_five_minutes(rig: EncoderRig) -> None:
    now_ms = time.time_ns() // 1_000_000
    answer = await rig.features.RecordEvents(
        live_features_pb2.RecordEventsRequest(
            events=[event(time_ms=now_ms + 299_000), event(time_ms=now_ms + 400_000), event(time_ms=1)]
        )
    )
    assert [status.code for status in answer.statuses] == [0, 3, 0]


HISTORIES = {
    "no user": (live_features_pb2.GetHistoryRequest(), "user_id", "is empty; name the person"),
    "id with a control": (live_features_pb2.GetHistoryRequest(user_id="\x7f"), "user_id", "has a control character"),
    "negative page": (
        live_features_pb2.GetHistoryRequest(user_id="ada", page_size=-1),
        "page_size",
        "is -1; send 1 to 1,000, or 0 for 100",
    ),
    "large page": (live_features_pb2.GetHistoryRequest(user_id="ada", page_size=1001), "page_size", "is 1001"),
    "token of nobody": (
        live_features_pb2.GetHistoryRequest(user_id="ada", page_token="abc"),
        "page_token",
        "send next_page_token unchanged",
    ),
    "token of other letters": (
        live_features_pb2.GetHistoryRequest(user_id="ada", page_token="日本"),
        "page_token",
        "send next_page_token unchanged",
    ),
    "token of the right length": (
        live_features_pb2.GetHistoryRequest(user_id="ada", page_token="A" * 36),
        "page_token",
        "send next_page_token unchanged",
    ),
    "request id of 129 bytes": (
        live_features_pb2.GetHistoryRequest(user_id="ada", request_id="a" * 129),
        "request_id",
        "at most 128",
    ),
}


@pytest.mark.parametrize(("request_", "field", "says"), HISTORIES.values(), ids=HISTORIES)
async def test_get_history_refuses(
    rig: EncoderRig, request_: live_features_pb2.GetHistoryRequest, field: str, says: str
) -> None:
    await rig.features.RecordEvents(live_features_pb2.RecordEventsRequest(events=[event()]))
    error = await refused(rig.features.GetHistory(request_))
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert says in error.message
