"""One behaviour suite for the blocking and the asyncio client, over real sockets."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import time
from typing import Any

import grpc
import pytest

from marquee import errors
from marquee.client import (
    AsyncRecommender,
    BundleRole,
    Event,
    EventKind,
    FeatureSource,
    Movie,
    Recommendation,
    Recommender,
    Recorded,
    ShortReason,
    recommender,
)
from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2
from tests.client.fakes import (
    MOVIES,
    SEEN,
    SPACE,
    VECTOR,
    Ask,
    Fake,
    MakeClient,
    Services,
    hanging,
    retriever_on,
    serving,
)

NOON = dt.datetime(2020, 6, 1, 12, tzinfo=dt.UTC)
NOON_MS = 1_591_012_800_000

TOY_STORY = Movie(
    1,
    "Toy Story",
    1995,
    genres=("Animation", "Comedy"),
    language="en",
    release_date=dt.date(1995, 11, 22),
    runtime_minutes=81,
    directors=("John Lasseter",),
    cast=("Tom Hanks", "Tim Allen"),
    external_id="imdb:tt0114709",
    mean_rating=3.92,
    rating_count=215,
)


class TestRecommend:
    async def test_it_composes_encode_and_search(self, client: Ask, services: Services) -> None:
        found = await client("recommend", "42", k=2)
        assert services.fake.names() == ["Encode", "Search"]
        [encode], [search] = services.fake.requests("Encode"), services.fake.requests("Search")
        assert (encode.user_id, encode.space, encode.allow_cold_start, encode.as_of_ms) == ("42", "", True, 0)
        assert (search.vector, search.space, search.k, search.exclude_packed) == (VECTOR, SPACE, 2, SEEN)
        assert list(search.details.paths) == ["*"]
        assert encode.request_id == search.request_id == found.request_id
        assert len(found.request_id) == 32

    async def test_it_answers_in_python_types(self, client: Ask) -> None:
        found = await client("recommend", "42", k=2)
        assert found.items == (
            Recommendation(TOY_STORY, 0.9, 1),
            Recommendation(Movie(2, MOVIES[2].title, 2007), 0.8, 2),
        )
        assert (found.items[1].movie.language, found.items[1].movie.mean_rating) == (None, None)
        assert (found.space, found.bundle_id, found.short_reason) == (SPACE, "c" * 8, ShortReason.UNSPECIFIED)
        assert found.source is FeatureSource.STORE
        assert (found.events_used, found.events_unknown, found.events_truncated) == (3, 2, 1)
        assert found.as_of == dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)
        assert (found.features_age_s, found.degraded) == (0, False)

    async def test_it_says_that_the_store_could_not_be_read(self, client: Ask, services: Services) -> None:
        stale = user_encoder_pb2.FEATURE_SOURCE_STALE
        services.fake.then("Encode", user_encoder_pb2.EncodeResponse(source=stale, features_age_ms=1500, degraded=True))
        found = await client("recommend", "42")
        assert (found.source, found.features_age_s, found.degraded) == (FeatureSource.STALE, 1.5, True)

    async def test_it_sends_events_as_columns(self, client: Ask, services: Services) -> None:
        told = [Event(5, EventKind.RATED, 4.5, NOON), Event(6, EventKind.WATCHED)]
        await client("recommend", events=told, likes=[7], dislikes=[8])
        columns = services.fake.requests("Encode")[0].events
        assert list(columns.movie_ids) == [5, 6, 7, 8]
        assert [EventKind(kind).name for kind in columns.kinds] == ["RATED", "WATCHED", "LIKED", "DISLIKED"]
        assert list(columns.values) == [4.5, 0, 0, 0]
        assert list(columns.times_ms) == [NOON_MS, 0, 0, 0]

    async def test_events_without_a_time_happen_at_as_of(self, client: Ask, services: Services) -> None:
        found = await client("recommend", likes=[7], as_of=NOON)
        [request] = services.fake.requests("Encode")
        assert request.as_of_ms == NOON_MS
        # At 0, "now", it would come after as_of, and the encoder would not read it.
        assert list(request.events.times_ms) == [NOON_MS]
        assert found.as_of == NOON

    async def test_events_without_a_time_happen_now_for_a_future_as_of(self, client: Ask, services: Services) -> None:
        await client("recommend", likes=[7], as_of=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
        assert list(services.fake.requests("Encode")[0].events.times_ms) == [0]

    async def test_filters_are_keyword_arguments(self, client: Ask, services: Services) -> None:
        filters = {
            "genres": ["Comedy"],
            "all_genres": ["Drama", "War"],
            "without_genres": ("Horror",),
            "year_min": 1990,
            "year_max": 1999,
            "languages": ["fr"],
            "only": [1, 2],
            "exclude": [3],
            "people": ["Agnès Varda"],
            "rating_min": 3.5,
            "rating_count_min": 10,
            "rating_count_max": 1000,
        }
        expected = types_pb2.MovieFilter(
            genres_any=["Comedy"],
            genres_all=["Drama", "War"],
            genres_none=["Horror"],
            year_min=1990,
            year_max=1999,
            languages=["fr"],
            include_ids=[1, 2],
            exclude_ids=[3],
            people_any=["Agnès Varda"],
            rating_min=3.5,
            rating_count_min=10,
            rating_count_max=1000,
        )
        await client("recommend", "42", **filters)
        await client("similar", [5], **filters)
        assert services.fake.requests("Search")[0].filter == expected
        assert services.fake.requests("SearchSimilar")[0].filter == expected

    async def test_seen_movies_are_sent_only_to_be_excluded(self, client: Ask, services: Services) -> None:
        await client("recommend", "42", exclude_seen=False, allow_cold_start=False, request_id="mine")
        [encode], [search] = services.fake.requests("Encode"), services.fake.requests("Search")
        assert search.exclude_packed == b""
        assert encode.allow_cold_start is False
        assert encode.request_id == search.request_id == "mine"

    async def test_it_says_why_a_list_is_short(self, client: Ask, services: Services) -> None:
        services.fake.then("Search", retriever_pb2.SearchResponse(short_reason=retriever_pb2.SHORT_REASON_FILTER))
        found = await client("recommend", "42")
        assert (found.items, found.short_reason) == ((), ShortReason.FILTER)

    async def test_a_source_from_a_newer_server_is_unspecified(self, client: Ask, services: Services) -> None:
        services.fake.then("Encode", user_encoder_pb2.EncodeResponse(source=99))  # type: ignore[arg-type]
        assert (await client("recommend", "42")).source is FeatureSource.UNSPECIFIED


class TestSpaceNotLoaded:
    async def test_it_encodes_once_more_in_a_loaded_space(self, client: Ask, services: Services) -> None:
        refusal = errors.SpaceNotLoaded("space is not loaded", metadata={"loaded": "newer,older"})
        services.fake.then("Search", refusal)
        found = await client("recommend", "42")
        assert services.fake.names() == ["Encode", "Search", "Encode", "Search"]
        assert [request.space for request in services.fake.requests("Encode")] == ["", "newer"]
        assert [request.space for request in services.fake.requests("Search")] == [SPACE, "newer"]
        assert {call.request.request_id for call in services.fake.calls} == {found.request_id}
        assert found.space == "newer"

    async def test_it_gives_up_after_the_second_refusal(self, client: Ask, services: Services) -> None:
        refusal = errors.SpaceNotLoaded("space is not loaded", metadata={"loaded": "newer"})
        services.fake.then("Search", refusal, refusal)
        with pytest.raises(errors.SpaceNotLoaded):
            await client("recommend", "42")
        assert services.fake.names() == ["Encode", "Search", "Encode", "Search"]

    async def test_it_gives_up_where_nothing_is_loaded(self, client: Ask, services: Services) -> None:
        services.fake.then("Search", errors.SpaceNotLoaded("nothing is loaded", metadata={"loaded": ""}))
        with pytest.raises(errors.SpaceNotLoaded, match="nothing is loaded"):
            await client("recommend", "42")
        assert services.fake.names() == ["Encode", "Search"]


class TestCatalogue:
    async def test_similar_names_examples_and_counterexamples(self, client: Ask, services: Services) -> None:
        found = await client("similar", [5, 6], unlike=[7], k=1)
        [request] = services.fake.requests("SearchSimilar")
        assert (list(request.movie_ids), list(request.negative_movie_ids), request.k) == ([5, 6], [7], 1)
        assert found.items == (Recommendation(TOY_STORY, 0.9, 1),)
        assert found.request_id == request.request_id

    async def test_search_finds_by_title(self, client: Ask, services: Services) -> None:
        assert await client("search", "toy", limit=3) == (TOY_STORY,)
        [request] = services.fake.requests("SearchMovies")
        assert (request.query, request.page_size) == ("toy", 3)

    async def test_search_reads_as_many_pages_as_it_takes(self, client: Ask, services: Services) -> None:
        page = [MOVIES[1]] * 100
        services.fake.then(
            "SearchMovies",
            catalog_pb2.SearchMoviesResponse(movies=page, next_page_token="2"),
            catalog_pb2.SearchMoviesResponse(movies=page, next_page_token="3"),
        )
        assert len(await client("search", "toy", limit=150)) == 150
        requests = services.fake.requests("SearchMovies")
        assert [(request.page_size, request.page_token) for request in requests] == [(100, ""), (100, "2")]

    async def test_search_for_no_movies_is_refused(self, client: Ask, services: Services) -> None:
        with pytest.raises(errors.InvalidRequest, match="limit is 0"):
            await client("search", "toy", limit=0)
        assert services.fake.calls == []

    async def test_a_movie_is_read_by_either_id(self, client: Ask, services: Services) -> None:
        assert await client("movie", 1) == TOY_STORY
        assert await client("movie", "imdb:tt0114709") == TOY_STORY
        keys = [request.key for request in services.fake.requests("GetMovie")]
        assert keys == [catalog_pb2.MovieKey(movie_id=1), catalog_pb2.MovieKey(external_id="imdb:tt0114709")]

    async def test_a_movie_that_is_not_there_raises(self, client: Ask) -> None:
        with pytest.raises(errors.MovieUnknown, match="no such movie"):
            await client("movie", 99)

    async def test_movies_that_are_not_there_are_none(self, client: Ask) -> None:
        assert await client("movies", [99, 1, 98]) == (None, TOY_STORY, None)

    async def test_more_movies_than_one_call_takes_are_read_in_turns(self, client: Ask, services: Services) -> None:
        found = await client("movies", [99] * 1_000 + [1])
        assert (len(found), found[-1]) == (1_001, TOY_STORY)
        assert [len(request.keys) for request in services.fake.requests("BatchGetMovies")] == [1_000, 1]
        assert await client("movies", []) == ()

    async def test_a_key_that_is_wrong_is_not_a_movie_that_is_missing(self, client: Ask, services: Services) -> None:
        status = errors.to_status(errors.InvalidRequest("movie_id is -1", field="keys[0]"))
        services.fake.then("BatchGetMovies", catalog_pb2.BatchGetMoviesResponse(results=[{"status": status}]))
        with pytest.raises(errors.InvalidRequest, match="movie_id is -1"):
            await client("movies", [-1])


class TestEvents:
    async def test_record_says_what_became_of_each(self, client: Ask, services: Services) -> None:
        bad = errors.to_status(errors.InvalidRequest("value is 9", field="events[1].value"))
        services.fake.then("RecordEvents", live_features_pb2.RecordEventsResponse(statuses=[{}, bad, {}], recorded=2))
        recorded = await client("record", "42", [Event(n, EventKind.RATED, 9) for n in (1, 2, 3)], request_id="led")
        assert recorded.recorded == 2
        [failure] = recorded.failures
        assert (failure.index, type(failure.error), failure.error.field) == (
            1,
            errors.InvalidRequest,
            "events[1].value",
        )
        assert {event.request_id for event in services.fake.requests("RecordEvents")[0].events} == {"led"}

    async def test_record_stamps_events_before_the_first_attempt(self, client: Ask, services: Services) -> None:
        services.fake.then("RecordEvents", errors.StoreUnavailable("busy"))
        before = time.time_ns() // 1_000_000
        await client("record", "42", [Event(1, EventKind.CLICKED), Event(2, EventKind.CLICKED, time=NOON)])
        first, second = services.fake.requests("RecordEvents")
        assert first == second
        assert before <= first.events[0].time_ms <= time.time_ns() // 1_000_000
        assert first.events[1].time_ms == NOON_MS

    async def test_more_events_than_one_call_takes_are_sent_in_turns(self, client: Ask, services: Services) -> None:
        bad = errors.to_status(errors.InvalidRequest("no"))
        whole = live_features_pb2.RecordEventsResponse(statuses=[{}] * 1_000, recorded=1_000)
        services.fake.then("RecordEvents", whole, live_features_pb2.RecordEventsResponse(statuses=[bad]))
        recorded = await client("record", "42", [Event(1, EventKind.LIKED, time=NOON)] * 1_001)
        assert (recorded.recorded, [failure.index for failure in recorded.failures]) == (1_000, [1_000])
        assert await client("record", "42", []) == Recorded(0, ())

    @pytest.mark.parametrize(
        ("method", "stars", "kind"), [("like", (), "LIKED"), ("dislike", (), "DISLIKED"), ("rate", (3.5,), "RATED")]
    )
    async def test_conveniences_record_one_event(
        self, client: Ask, services: Services, method: str, stars: tuple[float, ...], kind: str
    ) -> None:
        await client(method, "42", 5, *stars, time=NOON, request_id="led")
        [event] = services.fake.requests("RecordEvents")[0].events
        assert (event.user_id, event.movie_id, event.time_ms, event.request_id) == ("42", 5, NOON_MS, "led")
        assert EventKind(event.kind).name == kind
        assert event.HasField("value") == (kind == "RATED")
        assert event.value == sum(stars)

    async def test_conveniences_raise_what_record_reports(self, client: Ask, services: Services) -> None:
        bad = errors.to_status(errors.InvalidRequest("value is 9", field="events[0].value"))
        services.fake.then("RecordEvents", live_features_pb2.RecordEventsResponse(statuses=[bad]))
        with pytest.raises(errors.InvalidRequest, match="value is 9"):
            await client("rate", "42", 5, 9)

    async def test_history_reads_all_pages(self, client: Ask, services: Services) -> None:
        columns = types_pb2.EventColumns(movie_ids=[9], kinds=[types_pb2.EVENT_KIND_WATCHED], times_ms=[NOON_MS])
        services.fake.then("GetHistory", live_features_pb2.GetHistoryResponse(events=columns, next_page_token="more"))
        assert await client("history", "42") == (
            Event(9, EventKind.WATCHED, None, NOON),
            Event(1, EventKind.RATED, 4.5, dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)),
            Event(2, EventKind.LIKED, None, dt.datetime(2020, 9, 13, 12, 26, 40, tzinfo=dt.UTC)),
        )
        requests = services.fake.requests("GetHistory")
        assert [(request.user_id, request.page_token) for request in requests] == [("42", ""), ("42", "more")]


async def test_status_reads_both_services(client: Ask) -> None:
    state = await client("status")
    [bundle] = state.encoder.bundles
    assert (bundle.space, bundle.role, bundle.loaded_at.year) == (SPACE, BundleRole.ACTIVE, 2023)
    assert (bundle.metrics[0].name, bundle.metrics[0].low) == ("recall@10", None)
    assert (state.encoder.generation, state.encoder.reload_error) == (4, None)
    assert (state.retriever.bundles, state.retriever.reload_error) == ((), "bundle is cut off")


class TestRefusedHere:
    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ({"user_id": 42}, "user_id is 42, which is no text; give '42'"),
            ({"user_id": "\ud800"}, "surrogates not allowed; change that value"),
            ({"user_id": "42", "k": 2**31}, "out of range"),
            ({"likes": [2**63]}, "out of range"),
            ({"user_id": "42", "genres": "Comedy"}, r"genres is the text 'Comedy'; give a list: \['Comedy'\]"),
            ({"user_id": "42", "as_of": dt.datetime(2020, 1, 1)}, "as_of is 2020-01-01T00:00:00 without a time zone"),
            ({"user_id": "42", "as_of": dt.datetime(1970, 1, 1, tzinfo=dt.UTC)}, "give a moment after 1970"),
        ],
    )
    async def test_what_cannot_be_sent_is_refused_before_any_call(
        self, client: Ask, services: Services, arguments: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(errors.InvalidRequest, match=sentence):
            await client("recommend", **arguments)
        assert services.fake.calls == []

    async def test_an_unknown_filter_is_a_type_error(self, client: Ask) -> None:
        with pytest.raises(TypeError, match="genre"):
            await client("recommend", "42", genre=["Comedy"])

    async def test_a_closed_client_says_so(self, client: Ask) -> None:
        await client("status")
        await client("close")
        await client("close")
        with pytest.raises(RuntimeError, match=r"Recommender is closed; make a new one"):
            await client("status")


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            errors.InvalidRequest("k is 0; ask for 1 to 1,000 movies", field="k"),
            errors.UserUnknown("no events of '42'"),
            errors.MovieUnknown("no movie 99", metadata={"movie_id": "99"}),
            errors.DeadlineExceeded("the store took too long"),
            errors.BundleError("items.faiss is cut off"),
        ],
    )
    async def test_an_error_comes_back_as_it_was_raised(
        self, client: Ask, services: Services, error: errors.MarqueeError
    ) -> None:
        services.fake.then("GetIndex", error)
        with pytest.raises(type(error)) as caught:
            await client("status")
        assert type(caught.value) is type(error)
        assert (caught.value.message, caught.value.field) == (error.message, error.field)
        assert caught.value.metadata == error.metadata
        assert isinstance(caught.value.__cause__, grpc.RpcError)

    async def test_a_status_of_nobodys_is_a_remote_error(self, client: Ask, services: Services) -> None:
        async def abort(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.ABORTED, "somebody else was faster")

        services.fake.then("GetModel", abort)
        with pytest.raises(errors.RemoteError, match="ABORTED: somebody else was faster") as caught:
            await client("status")
        assert caught.value.remote_code is grpc.StatusCode.ABORTED

    async def test_details_that_are_no_status_are_passed_over(self, client: Ask, services: Services) -> None:
        async def garble(request: Any, context: Any) -> None:
            trailers = ((errors.DETAILS_KEY, b"\xff\xff"),)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "k is 0", trailing_metadata=trailers)

        services.fake.then("GetModel", garble)
        with pytest.raises(errors.InvalidRequest, match="k is 0"):
            await client("status")

    async def test_nobody_listening(self, make_client: MakeClient, services: Services, nobody: str) -> None:
        client = make_client(nobody, services.retriever)
        expected = (
            rf"no user_encoder answers at {nobody} \(Connection refused\): is it running\? "
            r"Start it with python -m services\.user_encoder"
        )
        with pytest.raises(errors.Unavailable, match=expected) as caught:
            await client("recommend", "42", fallback=False)
        assert type(caught.value) is errors.Unavailable
        assert isinstance(caught.value.__cause__, grpc.RpcError)
        with pytest.raises(errors.Unavailable, match=rf"no retriever answers at {nobody}"):
            await make_client(services.encoder, nobody)("recommend", "42")

    async def test_swapped_addresses(self, make_client: MakeClient, services: Services) -> None:
        client = make_client(services.retriever, services.encoder)
        with pytest.raises(errors.RemoteError, match=rf"what answers at {services.retriever} is no user_encoder"):
            await client("recommend", "42")

    async def test_closing_ends_calls_in_flight(self, client: Ask, services: Services) -> None:
        hang, started = hanging()
        services.fake.then("Encode", hang)
        asking = asyncio.ensure_future(client("recommend", "42"))
        await started.wait()
        await client("close")
        with pytest.raises(errors.RemoteError, match="CANCELLED: this client was closed while it was used; close it"):
            await asking

    async def test_closing_ends_a_method_between_its_calls(self, client: Ask, services: Services) -> None:
        services.fake.then("GetIndex", errors.Overloaded("too many calls", retry_after_s=1.0))
        await client("encoder_state")
        asking = asyncio.ensure_future(client("retriever_state"))
        async with asyncio.timeout(30):
            while "GetIndex" not in services.fake.names():
                await asyncio.sleep(0.01)
        # What it does meanwhile is wait for the service to want it back.
        await asyncio.sleep(0.3)
        await client("close")
        with pytest.raises(errors.RemoteError, match="this client was closed while it was used; close it"):
            await asking
        assert services.fake.names().count("GetIndex") == 1


class TestRetries:
    async def test_unavailable_is_tried_three_times(self, client: Ask, services: Services) -> None:
        services.fake.then("Encode", errors.Unavailable("starting"), errors.StoreUnavailable("busy"))
        assert len(await client("recommend", "42", k=2)) == 2
        assert services.fake.names() == ["Encode", "Encode", "Encode", "Search"]

    async def test_a_third_failure_is_the_last(self, client: Ask, services: Services) -> None:
        services.fake.then("Encode", *[errors.StoreUnavailable(f"busy {n}") for n in range(3)])
        with pytest.raises(errors.StoreUnavailable, match="busy 2"):
            await client("recommend", "42", fallback=False)
        assert services.fake.names() == ["Encode"] * 3

    async def test_other_errors_are_not_tried_again(self, client: Ask, services: Services) -> None:
        services.fake.then("Encode", errors.InvalidRequest("user_id is too long", field="user_id"))
        with pytest.raises(errors.InvalidRequest):
            await client("recommend", "42")
        assert services.fake.names() == ["Encode"]

    async def test_one_dead_replica_of_two_costs_no_call(
        self, make_client: MakeClient, services: Services, nobody: str
    ) -> None:
        client = make_client(f"ipv4:{nobody},{services.encoder}", services.retriever)
        for _ in range(4):
            await client("recommend", "42")
        assert services.fake.names() == ["Encode", "Search"] * 4

    async def test_connections_are_used_in_turn(self, make_client: MakeClient, services: Services) -> None:
        peers: list[str] = []

        async def note(request: Any, context: Any) -> Any:
            peers.append(context.peer())
            return user_encoder_pb2.GetModelResponse()

        services.fake.then("GetModel", *[note] * 4)
        client = make_client(services.encoder, services.retriever, connections=2)
        for _ in range(4):
            await client("status")
        one, other, *again = peers
        assert one != other
        assert again == [one, other]


class TestDeadline:
    async def test_a_method_has_one_deadline(
        self, client: Ask, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The clock jumps 12 s between the two calls, of a deadline of 20 s.
        clock = itertools.chain([100.0, 100.0], itertools.repeat(112.0))
        monkeypatch.setattr(recommender, "monotonic", lambda: next(clock))
        await client("recommend", "42")
        encode, search = services.fake.calls
        # Without the last third of it there would be no time for a list without the encoder.
        assert 13 < encode.remaining_s <= 14.1
        assert 7 < search.remaining_s <= 8.1

    async def test_no_call_is_made_after_the_deadline(
        self, client: Ask, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = itertools.chain([100.0, 100.0], itertools.repeat(121.0))
        monkeypatch.setattr(recommender, "monotonic", lambda: next(clock))
        with pytest.raises(errors.DeadlineExceeded, match=rf"retriever at {services.retriever} did not answer in time"):
            await client("recommend", "42")
        assert services.fake.names() == ["Encode"]

    async def test_an_answer_that_does_not_come(self, make_client: MakeClient, services: Services) -> None:
        services.fake.then("Encode", hanging()[0])
        client = make_client(services.encoder, services.retriever, deadline_s=0.2)
        with pytest.raises(errors.DeadlineExceeded, match=r"whole request may take 0\.2 s"):
            await client("recommend", "42", fallback=False)

    async def test_without_a_fallback_the_encoder_may_take_all_of_it(self, client: Ask, services: Services) -> None:
        await client("recommend", "42", fallback=False)
        assert 19 < services.fake.calls[0].remaining_s <= 20.1


async def test_a_cancelled_task_is_cancelled(services: Services) -> None:
    hang, started = hanging()
    services.fake.then("Encode", hang)
    async with AsyncRecommender(services.encoder, services.retriever, deadline_s=20) as client:
        asking = asyncio.ensure_future(client.recommend("42"))
        await started.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert len(await client.recommend("42", k=2)) == 2


async def test_context_managers_close(services: Services) -> None:
    async with AsyncRecommender(services.encoder, services.retriever) as asking:
        pass
    with pytest.raises(RuntimeError, match="AsyncRecommender is closed"):
        await asking.status()
    with Recommender(services.encoder, services.retriever) as calling:
        pass
    with pytest.raises(RuntimeError, match="Recommender is closed"):
        calling.status()


async def test_both_clients_answer_and_ask_the_same(make_client: MakeClient, services: Services) -> None:
    """Compares with fixed expectations of the wire, so that the two kinds cannot drift apart together."""
    client = make_client(services.encoder, services.retriever)
    found = await client("recommend", "42", likes=[5], k=1, genres=["Comedy"], as_of=NOON, request_id="same")
    assert str(found) == "  1. Toy Story (1995)  0.900"
    [encode], [search] = services.fake.requests("Encode"), services.fake.requests("Search")
    assert encode == user_encoder_pb2.EncodeRequest(
        user_id="42",
        events=types_pb2.EventColumns(movie_ids=[5], kinds=[types_pb2.EVENT_KIND_LIKED], times_ms=[NOON_MS]),
        as_of_ms=NOON_MS,
        allow_cold_start=True,
        request_id="same",
    )
    assert search == retriever_pb2.SearchRequest(
        vector=VECTOR,
        space=SPACE,
        k=1,
        filter=types_pb2.MovieFilter(genres_any=["Comedy"]),
        exclude_packed=SEEN,
        details={"paths": ["*"]},
        request_id="same",
    )


async def test_only_the_retriever_is_asked_for_titles(make_client: MakeClient, nobody: str) -> None:
    fake = Fake()
    async with serving(lambda server: retriever_on(server, fake)) as retriever:
        assert await make_client(nobody, retriever)("search", "toy") == (TOY_STORY,)
