"""RecordEvents and GetHistory over a real socket and a real store."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from marquee.errors import InvalidRequest, StoreUnavailable, UserUnknown
from marquee.features import CLICKED, LIKED, RATED, RETRACTED, WATCHED
from marquee.v1 import live_features_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, encoder, recording, refused, rows_of
from tests.rigs import publish


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture
async def rig(registry: Path, tmp_path: Path) -> AsyncIterator[EncoderRig]:
    async with encoder(registry, tmp_path / "features.sqlite") as running:
        yield running


def liked(movie: int, time_ms: int) -> Row:
    return Row(movie, LIKED, 0, time_ms)


async def history(
    rig: EncoderRig, user_id: str, page_size: int = 0, token: str = ""
) -> live_features_pb2.GetHistoryResponse:
    return await rig.features.GetHistory(
        live_features_pb2.GetHistoryRequest(user_id=user_id, page_size=page_size, page_token=token)
    )


async def test_what_was_recorded_is_read_newest_first(rig: EncoderRig) -> None:
    rows = [liked(4, 100), Row(1, RATED, 4.5, 300), Row(7, WATCHED, 0, 200)]
    recorded = await rig.features.RecordEvents(recording("ada", *rows))
    assert [status.code for status in recorded.statuses] == [0, 0, 0]
    assert recorded.recorded == 3
    answer = await history(rig, "ada")
    assert rows_of(answer.events) == [rows[1], rows[2], rows[0]]
    assert (answer.total, answer.next_page_token) == (3, "")
    assert len(answer.request_id) == len(recorded.request_id) == 32


async def test_the_next_encode_sees_it(rig: EncoderRig) -> None:
    for number in range(1, 21):
        await rig.features.RecordEvents(recording("ada", liked(1 + 3 * number, number)))
        answer = await rig.users.Encode(user_encoder_pb2.EncodeRequest(user_id="ada"))
        assert answer.events_used == number


async def test_time_0_is_now(rig: EncoderRig) -> None:
    before = time.time_ns() // 1_000_000
    await rig.features.RecordEvents(recording("ada", liked(1, 0)))
    (row,) = rows_of((await history(rig, "ada")).events)
    assert before <= row.time <= time.time_ns() // 1_000_000


async def test_recording_again_changes_nothing(rig: EncoderRig) -> None:
    request = recording("ada", liked(1, 10), Row(1, RATED, 4, 10))
    first, second = await rig.features.RecordEvents(request), await rig.features.RecordEvents(request)
    assert first.recorded == second.recorded == 2
    assert (await history(rig, "ada")).total == 2


async def test_what_was_replaced_or_retracted_is_not_shown(rig: EncoderRig) -> None:
    await rig.features.RecordEvents(recording("ada", Row(1, RATED, 4, 10), liked(4, 10), liked(7, 10)))
    await rig.features.RecordEvents(recording("ada", Row(1, RATED, 2, 20), Row(4, RETRACTED, 0, 20)))
    answer = await history(rig, "ada")
    assert rows_of(answer.events) == [Row(1, RATED, 2, 20), liked(7, 10)]
    assert answer.total == 2


async def test_events_of_several_people_go_to_each(rig: EncoderRig) -> None:
    request = recording("ada", liked(1, 10), liked(4, 10))
    request.events.extend(recording("bob", liked(7, 10)).events)
    request.events.extend(recording("ada", liked(10, 10)).events)
    assert (await rig.features.RecordEvents(request)).recorded == 4
    assert ((await history(rig, "ada")).total, (await history(rig, "bob")).total) == (3, 1)


async def test_the_request_that_led_to_an_event_is_kept(rig: EncoderRig, tmp_path: Path) -> None:
    request = recording("ada", liked(1, 10), liked(4, 10))
    request.events[0].request_id = "an-answer"
    request.request_id = "this-call"
    assert (await rig.features.RecordEvents(request)).request_id == "this-call"
    with closing(sqlite3.connect(tmp_path / "features.sqlite")) as sql:
        ((kept,),) = sql.execute("SELECT request_ids FROM requests").fetchall()
    assert f'[[10,1,{LIKED},"an-answer"]]'.encode() in kept


async def test_a_store_that_cannot_write_records_nothing(rig: EncoderRig, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "features.sqlite", isolation_level=None)) as sql:
        sql.execute("BEGIN IMMEDIATE")
        error = await refused(rig.features.RecordEvents(recording("ada", liked(1, 10))))
        sql.execute("ROLLBACK")
    assert isinstance(error, StoreUnavailable)
    assert "nothing was recorded" in error.message
    assert (await rig.store.read("ada")).size == 0
    assert (await rig.features.RecordEvents(recording("ada", liked(1, 10)))).recorded == 1


async def test_calls_at_once_lose_nothing(rig: EncoderRig) -> None:
    calls = [rig.features.RecordEvents(recording("ada", liked(movie, movie))) for movie in range(1, 201)]
    answers = await asyncio.gather(*calls)
    assert sum(answer.recorded for answer in answers) == 200
    assert (await history(rig, "ada")).total == 200


async def test_who_is_unknown_has_no_history(rig: EncoderRig) -> None:
    assert isinstance(await refused(history(rig, "nobody")), UserUnknown)
    await rig.features.RecordEvents(recording("ada", liked(1, 10), Row(1, RETRACTED, 0, 10)))
    assert isinstance(await refused(history(rig, "ada")), UserUnknown)


# Ties in time, and one movie with several kinds at one time.
PAGED = [liked(movie, 100 + movie // 4) for movie in range(1, 30)] + [Row(5, CLICKED, 0, 101), Row(5, WATCHED, 0, 101)]


async def pages(rig: EncoderRig, page_size: int) -> list[list[Row]]:
    found, token = [], ""
    while True:
        answer = await history(rig, "ada", page_size, token)
        found.append(rows_of(answer.events))
        assert answer.total == len(PAGED)
        token = answer.next_page_token
        if not token:
            return found


@pytest.mark.parametrize("page_size", [1, 2, 7, 30, 31, 32])
async def test_pages_are_the_history_cut_up(rig: EncoderRig, page_size: int) -> None:
    await rig.features.RecordEvents(recording("ada", *PAGED))
    whole = rows_of((await history(rig, "ada", 1000)).events)
    found = await pages(rig, page_size)
    assert [len(page) for page in found[:-1]] == [page_size] * (len(found) - 1)
    assert [row for page in found for row in page] == whole
    assert sorted(whole) == sorted(PAGED)
    assert [row.time for row in whole] == sorted((row.time for row in PAGED), reverse=True)


async def test_a_page_has_100_events_unless_asked_otherwise(rig: EncoderRig) -> None:
    await rig.features.RecordEvents(recording("ada", *(liked(movie, movie) for movie in range(1, 151))))
    answer = await history(rig, "ada")
    assert (len(answer.events.movie_ids), answer.total) == (100, 150)


async def test_events_that_are_added_move_no_page(rig: EncoderRig) -> None:
    await rig.features.RecordEvents(recording("ada", *(liked(movie, 10 * movie) for movie in range(1, 7))))
    first = await history(rig, "ada", 3)
    assert [row.movie for row in rows_of(first.events)] == [6, 5, 4]
    # Two newer ones, the last of the page again and later, and an older one.
    added = [liked(20, 100), liked(21, 110), liked(4, 120), liked(22, 15)]
    await rig.features.RecordEvents(recording("ada", *added))
    second = await history(rig, "ada", 3, first.next_page_token)
    assert [row.movie for row in rows_of(second.events)] == [3, 2, 22]
    third = await history(rig, "ada", 3, second.next_page_token)
    assert [row.movie for row in rows_of(third.events)] == [1]
    assert third.next_page_token == ""


async def test_a_token_is_good_for_its_person_only(rig: EncoderRig) -> None:
    for name in ("ada", "bob"):
        await rig.features.RecordEvents(recording(name, liked(1, 10), liked(4, 20)))
    token = (await history(rig, "ada", 1)).next_page_token
    assert (await history(rig, "ada", 1, token)).next_page_token == ""
    error = await refused(history(rig, "bob", 1, token))
    assert isinstance(error, InvalidRequest)
    assert error.field == "page_token"


async def test_the_page_after_everything_is_empty(rig: EncoderRig) -> None:
    await rig.features.RecordEvents(recording("ada", liked(1, 10), liked(4, 20)))
    token = (await history(rig, "ada", 1)).next_page_token
    await rig.features.RecordEvents(recording("ada", Row(1, RETRACTED, 0, 15)))
    answer = await history(rig, "ada", 1, token)
    assert (rows_of(answer.events), answer.next_page_token, answer.total) == ([], "", 1)
