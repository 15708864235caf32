"""CatalogService over a real socket and real bundles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest

from marquee.bundle.format import Bundle
from marquee.errors import InvalidRequest, MovieUnknown, from_status
from marquee.movies import MovieRecord
from marquee.v1 import catalog_pb2, types_pb2
from services.retriever.block_list import BlockList
from services.retriever.retrieval import to_proto
from tests.bundles import make_bundle, movie_record
from tests.rigs import error_of, publish, retriever


class World(NamedTuple):
    """Has movies 1, 4, 7, … of numbers 0 to 39 in the active bundle, and of numbers 0 to 44 in the standby."""

    registry: Path
    active: Bundle
    standby: Bundle


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("catalog")
    active = make_bundle(folder / "active", movies=40, seed=1)
    standby = make_bundle(folder / "standby", movies=45, seed=2)
    publish(folder / "registry", active)
    publish(folder / "registry", standby, activate=False)
    return World(folder / "registry", active, standby)


def by_id(movie_id: int) -> catalog_pb2.MovieKey:
    return catalog_pb2.MovieKey(movie_id=movie_id)


def by_external(external_id: str) -> catalog_pb2.MovieKey:
    return catalog_pb2.MovieKey(external_id=external_id)


async def test_a_movie_is_found_by_either_id(world: World) -> None:
    record = movie_record(7)
    async with retriever(world.registry) as rig:
        first = await rig.catalog.GetMovie(catalog_pb2.GetMovieRequest(key=by_id(record.movie_id), request_id="r"))
        second = await rig.catalog.GetMovie(catalog_pb2.GetMovieRequest(key=by_external(record.external_id)))
    assert first.movie == second.movie == to_proto(record)
    assert (first.bundle_id, first.request_id) == (world.active.id, "r")
    assert len(second.request_id) == 32


async def test_the_standby_is_looked_in_after_the_active(world: World) -> None:
    record = movie_record(44)
    async with retriever(world.registry) as rig:
        for key in (by_id(record.movie_id), by_external(record.external_id)):
            answer = await rig.catalog.GetMovie(catalog_pb2.GetMovieRequest(key=key))
            assert (answer.movie.title, answer.bundle_id) == (record.title, world.standby.id)


BAD_KEYS = [
    (catalog_pb2.MovieKey(), InvalidRequest, "key"),
    (by_id(0), InvalidRequest, "key.movie_id"),
    (by_id(-3), InvalidRequest, "key.movie_id"),
    (by_external(""), InvalidRequest, "key.external_id"),
    (by_external("é" * 129), InvalidRequest, "key.external_id"),
    (by_id(2), MovieUnknown, ""),
    (by_external("imdb:tt9999999"), MovieUnknown, ""),
]


@pytest.mark.parametrize(("key", "kind", "field"), BAD_KEYS)
async def test_get_movie_refuses(world: World, key: catalog_pb2.MovieKey, kind: type[Exception], field: str) -> None:
    async with retriever(world.registry) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await rig.catalog.GetMovie(catalog_pb2.GetMovieRequest(key=key))
    error = error_of(failure.value)
    assert type(error) is kind
    assert error.field == field


async def test_a_batch_answers_each_key_as_get_movie_would(world: World) -> None:
    keys = [by_id(1), *(key for key, _, _ in BAD_KEYS), by_id(movie_record(44).movie_id)]
    async with retriever(world.registry) as rig:
        answer = await rig.catalog.BatchGetMovies(catalog_pb2.BatchGetMoviesRequest(keys=keys))
    assert [result.bundle_id for result in answer.results] == [world.active.id, *[""] * 7, world.standby.id]
    assert answer.results[0].movie == to_proto(movie_record(0))
    assert not answer.results[0].HasField("status")
    for at, (_, kind, field) in enumerate(BAD_KEYS, start=1):
        error = from_status(answer.results[at].status)
        assert type(error) is kind
        assert error.field == field.replace("key", f"keys[{at}]")
        assert not answer.results[at].HasField("movie")


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_1_to_1000_keys(world: World, count: int) -> None:
    async with retriever(world.registry) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await rig.catalog.BatchGetMovies(catalog_pb2.BatchGetMoviesRequest(keys=[by_id(1)] * count))
    assert error_of(failure.value).field == "keys"


async def test_pages_of_a_title_search_follow_one_another(world: World) -> None:
    query: dict[str, Any] = {"query": "the lan", "page_size": 4}
    pages: list[list[types_pb2.Movie]] = []
    token = ""
    async with retriever(world.registry) as rig:
        whole = await rig.catalog.SearchMovies(catalog_pb2.SearchMoviesRequest(query="the lan", page_size=100))
        while not pages or token:
            answer = await rig.catalog.SearchMovies(catalog_pb2.SearchMoviesRequest(page_token=token, **query))
            pages.append(list(answer.movies))
            token = answer.next_page_token
            assert answer.bundle_id == world.active.id
    assert whole.next_page_token == ""
    assert [movie for page in pages for movie in page] == list(whole.movies)
    assert [len(page) for page in pages[:-1]] == [4] * (len(pages) - 1)
    assert len(pages) > 1
    assert all("Lantern" in movie.title for movie in whole.movies)


async def test_a_page_has_ten_movies_unless_asked_otherwise(world: World) -> None:
    async with retriever(world.registry) as rig:
        some = await rig.catalog.SearchMovies(catalog_pb2.SearchMoviesRequest(query="the"))
        none = await rig.catalog.SearchMovies(catalog_pb2.SearchMoviesRequest(query=""))
    assert len(some.movies) == 10
    assert some.next_page_token != ""
    assert (len(none.movies), none.next_page_token) == (0, "")


BAD_SEARCHES = [
    ({"query": "x" * 1025}, "query"),
    ({"query": "the", "page_size": 101}, "page_size"),
    ({"query": "the", "page_size": -1}, "page_size"),
    ({"query": "the", "page_token": "nonsense"}, "page_token"),
    ({"query": "the", "page_token": "0.00000000"}, "page_token"),
    ({"query": "the", "page_token": "ffff.2c2e2a4a"}, "page_token"),
    ({"query": "the", "request_id": "x" * 129}, "request_id"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_SEARCHES)
async def test_search_movies_refuses(world: World, fields: dict[str, Any], field: str) -> None:
    async with retriever(world.registry) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await rig.catalog.SearchMovies(catalog_pb2.SearchMoviesRequest(**fields))
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error_of(failure.value).field == field


async def test_a_page_token_belongs_to_its_query(world: World) -> None:
    async with retriever(world.registry) as rig:
        first = await rig.catalog.SearchMovies(catalog_pb2.SearchMoviesRequest(query="the"))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await rig.catalog.SearchMovies(
                catalog_pb2.SearchMoviesRequest(query="harbor", page_token=first.next_page_token)
            )
    assert error_of(failure.value).field == "page_token"


ACTIVE = [movie_record(number) for number in range(40)]


def counted(values: Iterable[str]) -> list[catalog_pb2.Facet]:
    """Counts as a plain person would: largest first, then by name."""
    ordered = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    return [catalog_pb2.Facet(value=value, movies=movies) for value, movies in ordered]


def facets_of(movies: Sequence[MovieRecord]) -> catalog_pb2.GetFacetsResponse:
    decades = Counter(movie.year // 10 * 10 for movie in movies if movie.year is not None)
    return catalog_pb2.GetFacetsResponse(
        movies=len(movies),
        genres=counted(genre for movie in movies for genre in movie.genres),
        decades=[{"value": str(decade), "movies": decades[decade]} for decade in sorted(decades, reverse=True)],
        languages=counted(movie.language for movie in movies if movie.language),
    )


def most_watched(movies: Iterable[MovieRecord]) -> Iterator[types_pb2.Movie]:
    return map(to_proto, sorted(movies, key=lambda movie: (-movie.rating_count, movie.movie_id)))


FILTERS: list[tuple[dict[str, Any], list[MovieRecord]]] = [
    ({}, ACTIVE),
    ({"genres_any": ["comedy", "WESTERN"]}, [one for one in ACTIVE if {"Comedy", "Western"} & {*one.genres}]),
    ({"year_min": 1960, "year_max": 1969}, [one for one in ACTIVE if one.year and one.year // 10 == 196]),
    ({"languages": ["fr"]}, [one for one in ACTIVE if one.language == "fr"]),
    ({"include_ids": [1, 4, 7, 2], "exclude_ids": [4]}, [ACTIVE[0], ACTIVE[2]]),
    ({"genres_any": ["no such genre"]}, []),
]


@pytest.mark.parametrize(("fields", "passing"), FILTERS)
async def test_facets_count_what_passes_a_filter(
    world: World, fields: dict[str, Any], passing: list[MovieRecord]
) -> None:
    request = catalog_pb2.GetFacetsRequest(filter=types_pb2.MovieFilter(**fields), request_id="r")
    async with retriever(world.registry) as rig:
        answer = await rig.catalog.GetFacets(request)
        whole = await rig.catalog.GetFacets(catalog_pb2.GetFacetsRequest())
    expected = facets_of(passing)
    expected.bundle_id, expected.request_id = world.active.id, "r"
    assert answer == expected
    assert (whole.movies, whole.bundle_id) == (40, world.active.id)


@pytest.mark.parametrize(("fields", "passing"), FILTERS)
async def test_top_movies_are_the_most_watched_that_pass(
    world: World, fields: dict[str, Any], passing: list[MovieRecord]
) -> None:
    wanted = types_pb2.MovieFilter(**fields)
    async with retriever(world.registry) as rig:
        ten = await rig.catalog.TopMovies(catalog_pb2.TopMoviesRequest(filter=wanted, request_id="r"))
        every = await rig.catalog.TopMovies(catalog_pb2.TopMoviesRequest(filter=wanted, k=1000))
        seen = np.array(sorted(movie.movie_id for movie in every.movies[:3]), "<i8").tobytes()
        unseen = await rig.catalog.TopMovies(catalog_pb2.TopMoviesRequest(filter=wanted, k=4, exclude_packed=seen))
    expected = list(most_watched(passing))
    assert list(every.movies) == expected
    assert list(ten.movies) == expected[:10]
    assert list(unseen.movies) == expected[3:7]
    assert (ten.bundle_id, ten.request_id) == (world.active.id, "r")


async def test_genres_come_with_their_numbers_of_movies(world: World) -> None:
    async with retriever(world.registry) as rig:
        answer = await rig.catalog.ListGenres(catalog_pb2.ListGenresRequest(request_id="r"))
    assert list(answer.genres) == list(facets_of(ACTIVE).genres)
    assert (answer.bundle_id, answer.request_id) == (world.active.id, "r")


async def test_what_is_blocked_is_in_no_answer_and_no_count(world: World, tmp_path: Path) -> None:
    blocked, shown = ACTIVE[7], [movie for movie in ACTIVE if movie != ACTIVE[7]]
    (tmp_path / "blocked").write_text(f"{blocked.movie_id}\n")
    async with retriever(world.registry, block_list=BlockList(tmp_path / "blocked")) as rig:
        for key in (by_id(blocked.movie_id), by_external(blocked.external_id)):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await rig.catalog.GetMovie(catalog_pb2.GetMovieRequest(key=key))
            assert type(error_of(failure.value)) is MovieUnknown
        batch = await rig.catalog.BatchGetMovies(catalog_pb2.BatchGetMoviesRequest(keys=[by_id(blocked.movie_id)]))
        by_title = await rig.catalog.SearchMovies(catalog_pb2.SearchMoviesRequest(query=blocked.title))
        titles = await rig.catalog.SearchMovies(catalog_pb2.SearchMoviesRequest(query="the", page_size=100))
        facets = await rig.catalog.GetFacets(catalog_pb2.GetFacetsRequest())
        genres = await rig.catalog.ListGenres(catalog_pb2.ListGenresRequest())
        top = await rig.catalog.TopMovies(catalog_pb2.TopMoviesRequest(k=100))
    assert type(from_status(batch.results[0].status)) is MovieUnknown
    assert blocked.movie_id not in [movie.movie_id for movie in by_title.movies]
    assert sorted(movie.movie_id for movie in titles.movies) == [movie.movie_id for movie in shown]
    expected = facets_of(shown)
    expected.bundle_id, expected.request_id = facets.bundle_id, facets.request_id
    assert facets == expected
    assert list(genres.genres) == list(expected.genres)
    assert list(top.movies) == list(most_watched(shown))


BAD_TOPS: list[tuple[dict[str, Any], str]] = [
    ({"k": -1}, "k"),
    ({"k": 1001}, "k"),
    ({"exclude_packed": b"1234567"}, "exclude_packed"),
    ({"exclude_packed": np.array([2, 1], "<i8").tobytes()}, "exclude_packed"),
    ({"filter": types_pb2.MovieFilter(genres_any=["x"] * 101)}, "filter.genres_any"),
    ({"filter": types_pb2.MovieFilter(rating_min=float("nan"))}, "filter.rating_min"),
    ({"request_id": "x" * 129}, "request_id"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_TOPS)
async def test_top_movies_and_facets_refuse(world: World, fields: dict[str, Any], field: str) -> None:
    async with retriever(world.registry) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await rig.catalog.TopMovies(catalog_pb2.TopMoviesRequest(**fields))
        assert type(error_of(failure.value)) is InvalidRequest
        assert error_of(failure.value).field == field
        if "filter" in fields or "request_id" in fields:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await rig.catalog.GetFacets(catalog_pb2.GetFacetsRequest(**fields))
            assert error_of(failure.value).field == field
