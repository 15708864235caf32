"""The methods beyond recommend: lists with options, batches, explanations, counts, and what is taken back."""

from __future__ import annotations

import datetime as dt
import struct

import pytest

from marquee import errors
from marquee.client import (
    BatchResult,
    Contribution,
    Event,
    EventKind,
    ExplainedMovie,
    Facet,
    FeatureSource,
    Forgotten,
    Movie,
    Person,
    Quality,
    SearchDebug,
)
from marquee.v1 import catalog_pb2, retriever_pb2, types_pb2, user_encoder_pb2
from tests.client.fakes import MOVIES, SEEN, SPACE, VECTOR, Ask, Services

NOON = dt.datetime(2020, 6, 1, 12, tzinfo=dt.UTC)
NOON_MS = 1_591_012_800_000


class TestListOptions:
    async def test_they_are_keyword_arguments(self, client: Ask, services: Services) -> None:
        options = {
            "min_score": -0.5,
            "quality": Quality.FAST,
            "diversity": 0.25,
            "max_per_genre": 3,
            "max_per_director": 1,
            "vectors": True,
            "debug": True,
        }
        expected = retriever_pb2.SearchOptions(
            min_score=-0.5,
            quality=retriever_pb2.QUALITY_FAST,
            diversity=0.25,
            max_per_genre=3,
            max_per_director=1,
            vectors=True,
            debug=True,
        )
        await client("recommend", "42", genres=["Comedy"], **options)
        await client("similar", [5], genres=["Comedy"], **options)
        for request in (services.fake.requests("Search")[0], services.fake.requests("SearchSimilar")[0]):
            assert request.options == expected
            assert request.filter == types_pb2.MovieFilter(genres_any=["Comedy"])

    async def test_none_are_sent_where_none_are_given(self, client: Ask, services: Services) -> None:
        await client("recommend", "42")
        assert not services.fake.requests("Search")[0].HasField("options")

    async def test_a_least_score_of_zero_is_sent(self, client: Ask, services: Services) -> None:
        await client("recommend", "42", min_score=0.0)
        assert services.fake.requests("Search")[0].options.HasField("min_score")

    async def test_vectors_and_debug_come_where_they_are_asked_for(self, client: Ask) -> None:
        found = await client("recommend", "42", k=2, vectors=True, debug=True)
        assert [item.vector for item in found] == [struct.unpack("<2f", VECTOR)] * 2
        assert found.debug == SearchDebug(3, 2, "exact", 0, 7, 0)
        assert found.movie_ids == (1, 2)
        plain = await client("recommend", "42", k=2)
        assert ([item.vector for item in plain], plain.debug) == ([None, None], None)


class TestBatch:
    async def test_everybody_gets_a_list_in_their_order(self, client: Ask, services: Services) -> None:
        people = ["a", Person("b", (Event(5, EventKind.LIKED),)), "c"]
        results = await client("batch", people, k=2, genres=["Comedy"], as_of=NOON, diversity=0.5)
        assert [one.person for one in results] == [Person("a"), people[1], Person("c")]
        [encode], [search] = services.fake.requests("BatchEncode"), services.fake.requests("BatchSearch")
        assert [item.user_id for item in encode.items] == ["a", "b", "c"]
        assert (encode.as_of_ms, encode.allow_cold_start) == (NOON_MS, True)
        assert list(encode.items[1].events.times_ms) == [NOON_MS]
        assert {(query.vector, query.k, query.exclude_packed) for query in search.queries} == {(VECTOR, 2, SEEN)}
        assert search.queries[0].filter == types_pb2.MovieFilter(genres_any=["Comedy"])
        assert search.queries[0].options.diversity == 0.5
        assert encode.request_id == search.request_id
        found = results[0].recommendations
        assert [(item.rank, item.movie.title, item.score) for item in found] == [
            (1, "Toy Story", 0.9),
            (2, MOVIES[2].title, 0.8),
        ]
        assert (found.source, found.events_used, found.as_of) == (FeatureSource.STORE, 3, NOON)
        assert (found.space, found.bundle_id, found.request_id) == (SPACE, "c" * 8, encode.request_id)

    async def test_details_are_asked_for_once_or_not_at_all(self, client: Ask, services: Services) -> None:
        await client("batch", ["a", "b"], k=2)
        [request] = services.fake.requests("BatchGetMovies")
        assert [key.movie_id for key in request.keys] == [1, 2]
        [bare] = await client("batch", ["a"], k=1, details=False)
        assert bare.recommendations.items[0].movie == Movie(1, "")
        assert len(services.fake.requests("BatchGetMovies")) == 1

    async def test_an_error_is_one_persons(self, client: Ask, services: Services) -> None:
        unknown = errors.to_status(errors.UserUnknown("no events of 'b'"))
        results = [{"seen": SEEN}, {"status": unknown}, {"seen": SEEN}]
        answer = user_encoder_pb2.BatchEncodeResponse(vectors=VECTOR * 3, results=results, space=SPACE)
        services.fake.then("BatchEncode", answer)
        one, other, third, fourth = await client("batch", ["a", "b", 7, "c"], k=1)
        assert [len(result.recommendations) for result in (one, fourth)] == [1, 1]
        assert (type(other.error), other.recommendations) == (errors.UserUnknown, None)
        assert isinstance(third.error, errors.InvalidRequest)
        assert "give '7'" in third.error.message
        assert len(services.fake.requests("BatchSearch")[0].queries) == 2

    async def test_an_error_of_a_search_is_one_persons(self, client: Ask, services: Services) -> None:
        bad = errors.to_status(errors.InvalidRequest("too many exclusions"))
        answer = retriever_pb2.BatchSearchResponse(results=[{"status": bad}, {"movie_ids": [1], "scores": [0.5]}])
        services.fake.then("BatchSearch", answer)
        one, other = await client("batch", ["a", "b"], k=1)
        assert isinstance(one.error, errors.InvalidRequest)
        assert other.recommendations.movie_ids == (1,)

    async def test_many_are_asked_in_chunks(self, client: Ask, services: Services) -> None:
        results = await client("batch", (str(number) for number in range(600)), k=1)
        assert [one.person.user_id for one in results] == [str(number) for number in range(600)]
        assert [len(request.items) for request in services.fake.requests("BatchEncode")] == [256, 256, 88]
        assert [len(request.queries) for request in services.fake.requests("BatchSearch")] == [256, 256, 88]
        assert len({request.request_id for request in services.fake.requests("BatchEncode")}) == 1

    async def test_no_message_grows_out_of_bounds(self, client: Ask, services: Services) -> None:
        # 30 people who have each seen 100,000 movies: 24 MB in one message, of 16 MiB.
        seen = bytes(800_000)
        answer = user_encoder_pb2.BatchEncodeResponse(vectors=VECTOR * 30, results=[{"seen": seen}] * 30, space=SPACE)
        services.fake.then("BatchEncode", answer)
        results = await client("batch", [str(number) for number in range(30)], k=1)
        assert all(one.recommendations for one in results)
        assert [len(request.queries) for request in services.fake.requests("BatchSearch")] == [20, 10]

    async def test_it_encodes_once_more_in_a_loaded_space(self, client: Ask, services: Services) -> None:
        refusal = errors.SpaceNotLoaded("space is not loaded", metadata={"loaded": "newer,older"})
        services.fake.then("BatchSearch", refusal)
        results = await client("batch", ["a"], k=1)
        assert [request.space for request in services.fake.requests("BatchEncode")] == ["", "newer"]
        assert [request.space for request in services.fake.requests("BatchSearch")] == [SPACE, "newer"]
        assert results[0].recommendations.space == "newer"

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (errors.DeadlineExceeded("too slow"), errors.DeadlineExceeded),
            (errors.MarqueeError("internal error 1"), errors.RemoteError),
        ],
    )
    async def test_a_chunk_without_an_answer_costs_only_its_people(
        self, client: Ask, services: Services, answer: errors.MarqueeError, error: type[errors.MarqueeError]
    ) -> None:
        services.fake.then("BatchEncode", answer)
        results = await client("batch", [str(number) for number in range(257)], k=1)
        assert {type(one.error) for one in results[:256]} == {error}
        assert results[256].recommendations is not None

    async def test_what_is_wrong_with_all_is_raised(self, client: Ask, services: Services) -> None:
        services.fake.then("BatchEncode", errors.InvalidRequest("as_of_ms is too late", field="as_of_ms"))
        with pytest.raises(errors.InvalidRequest, match="as_of_ms is too late"):
            await client("batch", ["a"])
        with pytest.raises(errors.InvalidRequest, match=r"users is the text 'ada'; give a list: \['ada'\]"):
            await client("batch", "ada")

    async def test_nobody_is_no_call(self, client: Ask, services: Services) -> None:
        assert await client("batch", []) == ()
        assert [type(one) for one in await client("batch", [7])] == [BatchResult]
        assert services.fake.calls == []


class TestExplain:
    async def test_what_speaks_for_a_movie_comes_first(self, client: Ask, services: Services) -> None:
        told = await client("explain", "42", [3, 99], likes=[5], max_events=7, request_id="mine")
        [request] = services.fake.requests("Explain")
        assert (request.user_id, list(request.movie_ids), request.max_events) == ("42", [3, 99], 7)
        assert list(request.events.movie_ids) == [5]
        liked = Event(1, EventKind.LIKED, None, dt.datetime(1970, 1, 1, 0, 0, 2, tzinfo=dt.UTC))
        rated = Event(2, EventKind.RATED, 4.5, dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC))
        assert told.movies == (ExplainedMovie(3, 0.5, (Contribution(rated, 0.25), Contribution(liked, -0.125))),)
        assert list(told) == list(told.movies)
        assert (told.unknown, told.request_id, told.events_used) == ((99,), "mine", 2)

    async def test_no_events_explain_nothing(self, client: Ask, services: Services) -> None:
        scores = struct.pack("<2f", 0.5, 0.25)
        services.fake.then("Explain", user_encoder_pb2.ExplainResponse(movie_ids=[1, 2], scores=scores))
        told = await client("explain", "42", [1, 2])
        assert told.movies == (ExplainedMovie(1, 0.5, ()), ExplainedMovie(2, 0.25, ()))


class TestCounts:
    async def test_top_takes_filters(self, client: Ask, services: Services) -> None:
        assert [movie.title for movie in await client("top", k=2, year_min=1990)] == ["Amélie", "Toy Story"]
        [request] = services.fake.requests("TopMovies")
        assert (request.k, request.filter) == (2, types_pb2.MovieFilter(year_min=1990))

    async def test_genres_and_facets(self, client: Ask, services: Services) -> None:
        assert await client("genres") == (Facet("Comedy", 2),)
        counted = await client("facets", languages=["fr"])
        assert (counted.movies, counted.decades) == (3, (Facet("2000", 2), Facet("1990", 1)))
        assert services.fake.requests("GetFacets")[0].filter == types_pb2.MovieFilter(languages=["fr"])


class TestTakenBack:
    async def test_retract_records_a_retraction(self, client: Ask, services: Services) -> None:
        await client("retract", "42", 5, time=NOON)
        [event] = services.fake.requests("RecordEvents")[0].events
        assert (event.movie_id, event.kind, event.time_ms) == (5, types_pb2.EVENT_KIND_RETRACTED, NOON_MS)

    async def test_forget_says_until_when(self, client: Ask, services: Services) -> None:
        told = await client("forget", "42")
        assert told == Forgotten(dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC), True)
        assert services.fake.requests("DeleteUser")[0].user_id == "42"


async def test_a_state_has_the_store(client: Ask) -> None:
    state = await client("encoder_state")
    assert (state.store.kind, state.store.reachable, state.store.last_error) == ("sqlite", True, None)
    assert (state.store.stale_answers, state.generation) == (2, 4)
    assert (await client("retriever_state")).reload_error == "bundle is cut off"


class TestPages:
    async def test_search_without_a_limit_reads_all(self, client: Ask, services: Services) -> None:
        page = [MOVIES[1]] * 100
        services.fake.then(
            "SearchMovies",
            catalog_pb2.SearchMoviesResponse(movies=page, next_page_token="2"),
            catalog_pb2.SearchMoviesResponse(movies=page[:7]),
        )
        assert len(await client("search", "toy", limit=None)) == 107

    @pytest.mark.parametrize("method", ["recommend", "history"])
    @pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
    async def test_a_deadline_that_is_none_is_refused(self, client: Ask, method: str, seconds: float) -> None:
        with pytest.raises(errors.InvalidRequest, match="deadline_s is") as caught:
            await client(method, "42", deadline_s=seconds)
        assert caught.value.field == "deadline_s"

    @pytest.mark.parametrize(
        ("method", "arguments", "rpc"),
        [
            ("recommend", ("42",), "Encode"),
            ("batch", (["42"],), "BatchEncode"),
            ("explain", ("42", [1]), "Explain"),
            ("history", ("42",), "GetHistory"),
            ("search", ("toy",), "SearchMovies"),
            ("similar", ([1],), "SearchSimilar"),
            ("movie", (1,), "GetMovie"),
            ("movies", ([1],), "BatchGetMovies"),
            ("top", (), "TopMovies"),
            ("genres", (), "ListGenres"),
            ("facets", (), "GetFacets"),
            ("record", ("42", [Event(1, EventKind.LIKED)]), "RecordEvents"),
            ("like", ("42", 1), "RecordEvents"),
            ("dislike", ("42", 1), "RecordEvents"),
            ("rate", ("42", 1, 3.5), "RecordEvents"),
            ("retract", ("42", 1), "RecordEvents"),
            ("forget", ("42",), "DeleteUser"),
            ("status", (), "GetModel"),
            ("encoder_state", (), "GetModel"),
            ("retriever_state", (), "GetIndex"),
        ],
    )
    async def test_every_method_has_a_deadline_of_its_own(
        self, client: Ask, services: Services, method: str, arguments: tuple[object, ...], rpc: str
    ) -> None:
        await client(method, *arguments, deadline_s=77.0)
        [call, *_] = [one for one in services.fake.calls if one.rpc == rpc]
        # Where there is a fallback, the encoder gets seven tenths of it.
        assert 50 < call.remaining_s <= 77.1
