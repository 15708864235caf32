"""Who is asked for, what is sent, and which answers are good."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from clients.loadtest.calls import BadAnswer, Expected, check_found, check_recorded, read_encoded
from clients.loadtest.people import Popular, from_folder, from_ids, made_up
from clients.loadtest.scenarios import (
    MIX,
    BadScenario,
    draw,
    encode_requests,
    parse_scenario,
    record_requests,
    search_request,
    search_rest,
)
from marquee.errors import DataError
from marquee.v1 import live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2
from tests.loadtest.rig import DIMENSION, SPACE, VECTOR

POPULAR = [Popular(number, 1_000 if number == 7 else 1) for number in range(1, 51)]
EXPECTED = Expected(DIMENSION, 3, details=True)
NOW_MS = 1_800_000_000_000


def write_ratings(folder: Path, text: str, name: str = "ratings.csv") -> Path:
    (folder / name).write_text(text)
    return folder


def test_people_are_those_of_the_data(tmp_path: Path) -> None:
    rows = "userId,movieId,rating,timestamp\n1,10,4.0,5\n2,20,0.5,6\n2,30,5,7\n"
    people = from_folder(write_ratings(tmp_path, rows), seed=0)
    assert sorted(people.users) == ["1", "2"]
    assert {(one.user, one.movie_id, one.stars) for one in people.ratings} == {
        ("1", 10, 4.0),
        ("2", 20, 0.5),
        ("2", 30, 5.0),
    }
    assert people.source == f"2 people of {tmp_path}"


def test_the_older_format_is_read_too(tmp_path: Path) -> None:
    people = from_folder(write_ratings(tmp_path, "1::10::4::5\n3::20::3::6\n", "ratings.dat"), seed=0)
    assert sorted(people.users) == ["1", "3"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("userId,movieId,rating\n", "has no ratings"),
        ("userId,movieId,rating\n1,ten,4\n", "'1,ten,4' is no rating"),
        ("userId,movieId,rating\n1,10\n", "cannot be read"),
        ("user,movie,stars\n1,10,4\n", "its rows have userId, movieId and rating"),
        ("\udcff", "cannot be read"),
    ],
)
def test_data_that_cannot_be_read_are_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "ratings.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as failure:
        from_folder(tmp_path, seed=0)
    assert told in failure.value.message


def test_a_folder_without_ratings_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name a folder in MovieLens format with --data"):
        from_folder(tmp_path / "nowhere", seed=0)


def test_ids_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("ada\n\n  grace \n", "utf-8")
    people = from_ids(tmp_path / "ids", POPULAR, seed=0)
    assert sorted(people.users) == ["ada", "grace"]
    assert {one.user for one in people.ratings} == {"ada", "grace"}
    (tmp_path / "ids").write_text("\n")
    for missing in ("ids", "nowhere"):
        with pytest.raises(DataError, match="one user id a line"):
            from_ids(tmp_path / missing, POPULAR, seed=0)


def test_people_are_made_up_by_popularity() -> None:
    people = made_up(POPULAR, seed=0)
    assert len(people.histories) == 1_000
    lengths = sorted(map(len, people.histories))
    assert 60 < lengths[500] < 80
    assert (lengths[0], lengths[-1]) >= (1, 300)
    seen = [one.movie_id for history in people.histories for one in history]
    # Movie 7 has 1,001 of 1,099 weights.
    assert seen.count(7) / len(seen) == pytest.approx(1_001 / 1_099, abs=0.01)
    assert made_up(POPULAR, seed=0) == people


def test_people_are_sent_by_id_or_by_their_events(tmp_path: Path) -> None:
    rows = "userId,movieId,rating\n1,10,4.0\n"
    by_id = encode_requests(from_folder(write_ratings(tmp_path, rows), 0), NOW_MS)
    message = user_encoder_pb2.EncodeRequest.FromString(by_id[0])
    assert (message.user_id, message.allow_cold_start, len(message.events.movie_ids)) == ("1", True, 0)
    people = made_up(POPULAR, seed=0)
    sent = user_encoder_pb2.EncodeRequest.FromString(encode_requests(people, NOW_MS)[0])
    assert list(sent.events.movie_ids) == [one.movie_id for one in people.histories[0]]
    assert max(sent.events.times_ms) < NOW_MS
    assert sent.user_id == ""


def test_a_search_is_joined_from_what_an_encode_said_and_what_all_share() -> None:
    encoded = user_encoder_pb2.EncodeResponse(vector=VECTOR, space=SPACE, seen=b"12345678")
    sent = retriever_pb2.SearchRequest.FromString(search_request(encoded, search_rest(20, details=True)))
    assert (sent.vector, sent.space, sent.exclude_packed, sent.k) == (VECTOR, SPACE, b"12345678", 20)
    assert list(sent.details.paths) == ["*"]
    assert not retriever_pb2.SearchRequest.FromString(search_rest(20, details=False)).details.paths


def test_what_is_recorded_is_nobodys(tmp_path: Path) -> None:
    people = from_folder(write_ratings(tmp_path, "userId,movieId,rating\n1,10,4.5\n"), 0)
    (event,) = live_features_pb2.RecordEventsRequest.FromString(record_requests(people)[0]).events
    assert (event.user_id, event.movie_id, event.value, event.time_ms) == ("loadtest-1", 10, 4.5, 0)


def test_scenarios_are_drawn_by_their_weights() -> None:
    assert parse_scenario("search") == {"search": 1.0}
    assert parse_scenario("mix") == MIX
    weights = parse_scenario("recommend=3,record=1,encode=0")
    assert weights == {"recommend": 3.0, "record": 1.0}
    drawn = list(islice(draw(weights, random.Random(0)), 4_000))
    assert drawn.count("recommend") / 4_000 == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("text", ["", "buy", "recommend=", "recommend=1,recommend=2", "encode=-1", "encode=1;search=1"])
def test_bad_scenarios_say_how_they_are_written(text: str) -> None:
    with pytest.raises(BadScenario, match="is no scenario: give encode, search, recommend, record or mix"):
        parse_scenario(text)
    with pytest.raises(BadScenario, match="weighs nothing"):
        parse_scenario("encode=0")


@pytest.mark.parametrize(
    ("vector", "space", "told"),
    [
        (VECTOR[:-4], SPACE, "has 12 bytes, not 16"),
        (b"", SPACE, "has 0 bytes"),
        (bytes(16), SPACE, "squared length is 0, not 1"),
        (np.full(4, np.nan, "<f4").tobytes(), SPACE, "squared length is nan"),
        (VECTOR, "", "without its space"),
    ],
)
def test_a_vector_must_have_its_length_its_norm_and_its_space(vector: bytes, space: str, told: str) -> None:
    answer = user_encoder_pb2.EncodeResponse(vector=vector, space=space).SerializeToString()
    with pytest.raises(BadAnswer, match=told):
        read_encoded(answer, EXPECTED)


def found(count: int, **fields: object) -> bytes:
    movies = [types_pb2.Movie(movie_id=1)] * count
    whole = {"movie_ids": [1] * count, "scores": [0.5] * count, "movies": movies} | fields
    return retriever_pb2.SearchResponse(**whole).SerializeToString()  # type: ignore[arg-type]


def test_a_list_must_have_k_movies_or_a_reason() -> None:
    check_found(found(3), EXPECTED)
    check_found(found(2, short_reason=retriever_pb2.SHORT_REASON_FILTER), EXPECTED)
    with pytest.raises(BadAnswer, match="2 movies came for k = 3, without a reason"):
        check_found(found(2), EXPECTED)
    with pytest.raises(BadAnswer, match="4 movies came for k = 3"):
        check_found(found(4, short_reason=retriever_pb2.SHORT_REASON_FILTER), EXPECTED)
    with pytest.raises(BadAnswer, match="3 movies came with 2 scores and 3 details"):
        check_found(found(3, scores=[0.5, 0.4]), EXPECTED)
    with pytest.raises(BadAnswer, match="with 3 scores and 0 details"):
        check_found(found(3, movies=[]), EXPECTED)


def test_an_event_must_have_been_stored() -> None:
    check_recorded(live_features_pb2.RecordEventsResponse(recorded=1).SerializeToString())
    answer = live_features_pb2.RecordEventsResponse()
    answer.statuses.add(code=14, message="the store is away")
    with pytest.raises(BadAnswer, match="an event was not stored: UNAVAILABLE: the store is away"):
        check_recorded(answer.SerializeToString())
