"""What the clients do where services are away, overloaded, failing, or not what they were taken for."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from marquee import errors
from marquee.client import FeatureSource, ShortReason
from marquee.v1 import catalog_pb2, types_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.client.fakes import (
    Act,
    Ask,
    Fake,
    MakeClient,
    Services,
    encoder_on,
    hanging,
    retriever_on,
    serving,
)
from tests.rigs import publish, retriever


class TestDegraded:
    async def test_without_the_encoder_the_most_watched_are_shown(
        self, make_client: MakeClient, services: Services, nobody: str
    ) -> None:
        client = make_client(nobody, services.retriever)
        found = await client("recommend", "42", likes=[7, 5], dislikes=[5], k=2, genres=["Comedy"], request_id="mine")
        assert [(item.rank, item.movie.title, item.score) for item in found] == [
            (1, "Amélie", None),
            (2, "Toy Story", None),
        ]
        assert (found.degraded, found.source) == (True, FeatureSource.TOP_MOVIES)
        assert f"no user_encoder answers at {nobody}" in str(found.away)
        assert (found.space, found.bundle_id, found.request_id, found.events_used) == ("", "c" * 8, "mine", 0)
        assert str(found) == "  1. Amélie (2001)\n  2. Toy Story (1995)"
        [request] = services.fake.requests("TopMovies")
        assert (request.k, request.filter) == (2, types_pb2.MovieFilter(genres_any=["Comedy"]))
        assert request.exclude_packed == (5).to_bytes(8, "little") + (7).to_bytes(8, "little")

    async def test_an_overloaded_encoder_is_away_as_well(self, client: Ask, services: Services) -> None:
        services.fake.then("Encode", errors.Overloaded("too many calls"))
        found = await client("recommend", "42", exclude_seen=False)
        assert found.source is FeatureSource.TOP_MOVIES
        assert services.fake.requests("TopMovies")[0].exclude_packed == b""

    @pytest.mark.parametrize(
        ("catalogue", "passing", "reason"),
        [
            (9, 9, ShortReason.CATALOG),
            (10, 9, ShortReason.FILTER),
            (10, 10, ShortReason.EXCLUDED),
        ],
    )
    async def test_a_short_list_says_why(
        self, client: Ask, services: Services, catalogue: int, passing: int, reason: ShortReason
    ) -> None:
        services.fake.then("Encode", errors.Overloaded("too many calls"))
        counts = [catalog_pb2.GetFacetsResponse(movies=count) for count in (catalogue, passing)]
        services.fake.then("GetFacets", *counts)
        found = await client("recommend", "42", k=10, genres=["Comedy"], exclude=[3])
        assert (len(found), found.short_reason) == (2, reason)
        asked = [types_pb2.MovieFilter(), types_pb2.MovieFilter(genres_any=["Comedy"])]
        given = [request.filter for request in services.fake.requests("GetFacets")]
        assert given == (asked[:1] if reason is ShortReason.CATALOG else asked)

    async def test_a_short_list_is_shown_also_where_nobody_can_say_why(self, client: Ask, services: Services) -> None:
        services.fake.then("Encode", errors.Overloaded("too many calls"))
        services.fake.then("GetFacets", errors.MarqueeError("broken"))
        found = await client("recommend", "42", k=10)
        assert (len(found), found.short_reason) == (2, ShortReason.UNSPECIFIED)

    async def test_why_a_list_is_short_is_asked_once_and_in_a_part_of_the_time(
        self, make_client: MakeClient, services: Services
    ) -> None:
        services.fake.then("Encode", *[errors.Overloaded("too many calls")] * 2)
        client = make_client(services.encoder, services.retriever, deadline_s=20)
        await client("recommend", "42", k=10)
        assert [seen.remaining_s <= 6.0 for seen in services.fake.calls if seen.rpc == "GetFacets"] == [True]
        services.fake.then("GetFacets", errors.Overloaded("too many calls", retry_after_s=0.001))
        found = await client("recommend", "42", k=10)
        assert (len(found), found.short_reason) == (2, ShortReason.UNSPECIFIED)
        assert services.fake.names().count("GetFacets") == 2

    @pytest.mark.parametrize("fallback", [True, False])
    @pytest.mark.parametrize("k", [0, -1])
    async def test_no_movies_are_refused_with_and_without_the_encoder(
        self, make_client: MakeClient, services: Services, nobody: str, fallback: bool, k: int
    ) -> None:
        for encoder in (services.encoder, nobody):
            client = make_client(encoder, services.retriever)
            with pytest.raises(errors.InvalidRequest, match=rf"^k is {k}; send 1 to 1000$") as caught:
                await client("recommend", "42", k=k, fallback=fallback)
            assert caught.value.field == "k"
            with pytest.raises(errors.InvalidRequest, match=rf"^k is {k}; send 1 to 1000$"):
                await client("top", k=k)

    async def test_an_encoder_that_hangs_is_away_as_well(self, make_client: MakeClient, services: Services) -> None:
        services.fake.then("Encode", hanging()[0])
        found = await make_client(services.encoder, services.retriever, deadline_s=0.5)("recommend", "42", k=2)
        assert (found.degraded, found.source) == (True, FeatureSource.TOP_MOVIES)
        assert isinstance(found.away, errors.DeadlineExceeded)
        assert f"user_encoder at {services.encoder} did not answer in time" in found.away.message

    async def test_where_both_hang_the_encoder_is_blamed(self, make_client: MakeClient, services: Services) -> None:
        services.fake.then("Encode", hanging()[0])
        services.fake.then("TopMovies", hanging()[0])
        client = make_client(services.encoder, services.retriever, deadline_s=0.5)
        with pytest.raises(errors.DeadlineExceeded, match=f"user_encoder at {services.encoder}"):
            await client("recommend", "42")

    async def test_it_can_be_left_out(self, client: Ask, services: Services) -> None:
        services.fake.then("Encode", errors.Overloaded("too many calls"))
        with pytest.raises(errors.Overloaded, match="too many calls"):
            await client("recommend", "42", fallback=False)
        assert services.fake.names() == ["Encode"]

    @pytest.mark.parametrize(
        "error", [errors.InvalidRequest("k is 0", field="k"), errors.UserUnknown("who?"), errors.Unauthenticated("no")]
    )
    async def test_a_wrong_request_has_no_fallback(
        self, client: Ask, services: Services, error: errors.MarqueeError
    ) -> None:
        services.fake.then("Encode", error)
        with pytest.raises(type(error)):
            await client("recommend", "42")
        assert services.fake.names() == ["Encode"]

    async def test_where_there_is_no_fallback_either_the_encoder_is_blamed(
        self, client: Ask, services: Services
    ) -> None:
        services.fake.then("Encode", errors.Overloaded("too many calls"))
        services.fake.then("TopMovies", errors.MarqueeError("broken"))
        with pytest.raises(errors.Overloaded, match="too many calls") as caught:
            await client("recommend", "42")
        assert isinstance(caught.value.__cause__, errors.MarqueeError)

    async def test_a_filter_that_is_wrong_is_said(self, client: Ask, services: Services) -> None:
        services.fake.then("Encode", errors.Overloaded("too many calls"))
        services.fake.then("TopMovies", errors.InvalidRequest("year_min is -1", field="filter.year_min"))
        with pytest.raises(errors.InvalidRequest, match="year_min is -1"):
            await client("recommend", "42", year_min=-1)

    async def test_an_encoder_that_comes_back_is_asked_again(self, client: Ask, services: Services) -> None:
        services.fake.then("Encode", errors.Overloaded("too many calls"))
        services.fake.then("TopMovies", catalog_pb2.TopMoviesResponse())
        assert (await client("recommend", "42")).degraded
        while (found := await client("recommend", "42")).degraded:
            assert found.source is FeatureSource.TOP_MOVIES  # refused here, by a throw of the coin
        assert found.source is FeatureSource.STORE

    async def test_an_encoder_that_was_away_is_found_again(self, make_client: MakeClient, services: Services) -> None:
        add = lambda server: encoder_on(server, services.fake)  # noqa: E731
        async with serving(add) as encoder:
            client = make_client(encoder, services.retriever)
            assert not (await client("recommend", "42")).degraded
        assert (await client("recommend", "42")).source is FeatureSource.TOP_MOVIES
        async with serving(add, port=int(encoder.rpartition(":")[2])), asyncio.timeout(30):
            while (await client("recommend", "42")).degraded:
                pass


async def call_until_it_fails(client: Ask) -> None:
    async with asyncio.timeout(30):
        while True:
            await client("retriever_state")


async def test_a_service_that_is_stopping_is_said_to_be(make_client: MakeClient, tmp_path: Path) -> None:
    registry = publish(tmp_path / "registry", make_bundle(tmp_path / "bundle"))
    async with retriever(registry.root) as rig:
        address = f"127.0.0.1:{rig.life.port}"
        client = make_client(address, address)
        await client("retriever_state")
        rig.life.health.set_serving(False)
        with pytest.raises(errors.Unavailable, match=rf"the retriever at {address} says that it is not ready"):
            await call_until_it_fails(client)
        rig.life.health.set_serving(True)
        await client("retriever_state")


class TestOverload:
    async def test_a_refused_call_comes_back_when_it_was_told_to(self, client: Ask, services: Services) -> None:
        services.fake.then("GetIndex", errors.Overloaded("too many calls", retry_after_s=0.05))
        began = time.monotonic()
        await client("retriever_state")
        assert time.monotonic() - began >= 0.05
        assert services.fake.names() == ["GetIndex"] * 2

    async def test_it_comes_back_once(self, client: Ask, services: Services) -> None:
        refusals = [errors.Overloaded(f"too many calls {n}", retry_after_s=0.001) for n in range(2)]
        services.fake.then("GetIndex", *refusals)
        with pytest.raises(errors.Overloaded, match="too many calls 1"):
            await client("retriever_state")

    @pytest.mark.parametrize("retry_after_s", [None, 60.0])
    async def test_it_does_not_wait_in_vain(self, client: Ask, services: Services, retry_after_s: float | None) -> None:
        services.fake.then("GetIndex", errors.Overloaded("too many calls", retry_after_s=retry_after_s))
        with pytest.raises(errors.Overloaded) as caught:
            await client("retriever_state")
        assert services.fake.names() == ["GetIndex"]
        assert caught.value.retry_after_s == retry_after_s

    async def test_calls_are_refused_here_where_all_are_refused_there(self, client: Ask, services: Services) -> None:
        services.fake.then("GetIndex", *[errors.Overloaded("too many calls") for _ in range(200)])
        told = Counter[str]()
        for _ in range(200):
            with pytest.raises(errors.Overloaded) as caught:
                await client("retriever_state")
            told[caught.value.message.partition(":")[0]] += 1
        sent = len(services.fake.calls)
        # The expected number is the sum of 1/(n+1): 5.9.
        assert 1 <= sent <= 40
        assert told == {"too many calls": sent, "this client did not send the call": 200 - sent}

    async def test_what_the_core_turns_away_is_overload(self, client: Ask, services: Services) -> None:
        async def turn_away(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many pending requests for this server")

        services.fake.then("GetIndex", turn_away)
        with pytest.raises(errors.Overloaded, match=r"has too many calls \(Too many pending requests") as caught:
            await client("retriever_state")
        assert caught.value.retry_after_s is None
        services.fake.then("Encode", turn_away)
        assert (await client("recommend", "42")).degraded

    async def test_a_message_that_is_too_large_is_no_overload(self, client: Ask, services: Services) -> None:
        with pytest.raises(errors.RemoteError, match=r"a message is too large .*; ask for less at a time"):
            await client("search", "x" * (33 << 20))
        assert services.fake.calls == []

    async def test_one_rpc_refused_leaves_the_others_alone(self, client: Ask, services: Services) -> None:
        services.fake.then("GetIndex", *[errors.Overloaded("too many calls") for _ in range(20)])
        for _ in range(20):
            with pytest.raises(errors.Overloaded):
                await client("retriever_state")
        for _ in range(20):
            await client("encoder_state")

    async def test_other_failures_refuse_nothing_here(self, client: Ask, services: Services) -> None:
        services.fake.then("GetIndex", *[errors.InvalidRequest("no") for _ in range(50)])
        for _ in range(50):
            with pytest.raises(errors.InvalidRequest):
                await client("retriever_state")
        assert len(services.fake.calls) == 50


async def test_a_replica_that_only_fails_is_left_out(make_client: MakeClient, services: Services) -> None:
    broken = Fake()
    broken.then("GetModel", *[errors.BundleError("broken")] * 10_000)
    async with serving(lambda server: encoder_on(server, broken)) as failing:
        client = make_client([services.encoder, failing], services.retriever)
        async with asyncio.timeout(30):
            # Until an interval has passed in which enough calls failed, and then not one of many.
            while await _failures(client, 40):
                pass
        assert len(broken.calls) >= 10


async def _failures(client: Ask, calls: int) -> int:
    failed = 0
    for _ in range(calls):
        try:
            await client("encoder_state")
        except errors.BundleError:
            failed += 1
    return failed


class TestWrongAddress:
    async def test_a_port_of_something_else(self, make_client: MakeClient, services: Services) -> None:
        async with talking(b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\n\r\n") as address:
            with pytest.raises(errors.Unavailable, match=rf"what answers at {address} is no gRPC service: check"):
                await make_client(services.encoder, address)("search", "toy")

    async def test_a_port_that_says_nothing(self, make_client: MakeClient, services: Services) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            address = f"127.0.0.1:{mute.getsockname()[1]}"
            client = make_client(services.encoder, address)
            with pytest.raises(errors.DeadlineExceeded, match=rf"retriever at {address} did not answer in time"):
                await client("search", "toy", deadline_s=0.2)

    async def test_a_name_that_nobody_has(self, make_client: MakeClient, services: Services) -> None:
        client = make_client(services.encoder, "dns:///nobody.invalid:5")
        with pytest.raises(errors.Unavailable, match="there is no host of the name in dns:///nobody"):
            await client("search", "toy")

    async def test_a_service_of_somebody_elses(self, make_client: MakeClient, services: Services) -> None:
        async with serving() as address:
            with pytest.raises(errors.RemoteError, match=rf"what answers at {address} is no retriever, or an older"):
                await make_client(services.encoder, address)("search", "toy")


@asynccontextmanager
async def talking(words: bytes) -> AsyncIterator[str]:
    """Listens as something that is no gRPC service: says these words and hangs up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


class TestKeys:
    async def test_a_key_goes_with_every_call(self, make_client: MakeClient, services: Services) -> None:
        client = make_client(services.encoder, services.retriever, api_key="s3cret")
        await client("recommend", "42")
        assert [call.metadata["authorization"] for call in services.fake.calls] == ["Bearer s3cret"] * 2

    async def test_no_key_is_no_header(self, client: Ask, services: Services) -> None:
        await client("status")
        assert "authorization" not in services.fake.calls[0].metadata

    async def test_a_service_that_wants_one_says_so(self, client: Ask, services: Services) -> None:
        async def ask_for_a_key(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")

        services.fake.then("GetModel", ask_for_a_key, errors.Unauthenticated("the call has no key; send one"))
        with pytest.raises(errors.Unauthenticated, match=r"does not know who calls \(no key\); give its api_key"):
            await client("status")
        with pytest.raises(errors.Unauthenticated, match="the call has no key; send one"):
            await client("status")

    async def test_a_key_that_may_not(self, client: Ask, services: Services) -> None:
        services.fake.then("DeleteUser", errors.PermissionDenied("this key may not delete"))
        with pytest.raises(errors.PermissionDenied, match="may not delete"):
            await client("forget", "42")


TITLES = [
    "L'Étrange \"Affaire\" d'Ø",
    "🎬🍿 The Emoji Movie",
    "خلیج فارس",
    "\u202emovie reversed\u202c",
    "a\u0301 combining",
    "'; DROP TABLE movies; --",
    "日本の夏",
]


@pytest.mark.parametrize("title", TITLES)
async def test_titles_of_any_script_come_and_go_whole(client: Ask, services: Services, title: str) -> None:
    film = types_pb2.Movie(movie_id=9, title=title, genres=[title])
    services.fake.then("SearchMovies", catalog_pb2.SearchMoviesResponse(movies=[film]))
    [found] = await client("search", title)
    assert (found.title, found.genres) == (title, (title,))
    assert services.fake.requests("SearchMovies")[0].query == title
    await client("recommend", title, genres=[title])
    assert services.fake.requests("Encode")[0].user_id == title
    assert list(services.fake.requests("Search")[0].filter.genres_any) == [title]


async def test_a_deadline_that_has_expired_ends_a_batch_for_its_people(client: Ask, services: Services) -> None:
    hang: Act = _never
    services.fake.then("BatchEncode", hang)
    [result] = await client("batch", ["42"], deadline_s=0.1)
    assert isinstance(result.error, errors.DeadlineExceeded)
    assert "0.1 s" in result.error.message


async def _never(request: user_encoder_pb2.BatchEncodeRequest, context: Any) -> None:
    await asyncio.Event().wait()


async def test_a_name_is_resolved(make_client: MakeClient, services: Services) -> None:
    named = services.retriever.replace("127.0.0.1", "dns:///localhost")
    assert await make_client(services.encoder, named)("genres")


async def test_several_replicas_share_the_calls(make_client: MakeClient, services: Services) -> None:
    other = Fake()
    async with serving(lambda server: retriever_on(server, other)) as second:
        client = make_client(services.encoder, [services.retriever, second])
        async with asyncio.timeout(20):
            # Both connections come up by themselves; then the calls alternate.
            while not (other.calls and services.fake.calls):
                await client("genres")
        before = len(other.calls), len(services.fake.calls)
        for _ in range(10):
            await client("genres")
        assert (len(other.calls) - before[0], len(services.fake.calls) - before[1]) == (5, 5)
