"""Search, BatchSearch, SearchSimilar and GetIndex over a real socket and a real bundle."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import field_mask_pb2

from marquee.bundle.format import ITEM_VECTORS, MOVIE_IDS
from marquee.errors import InvalidRequest, MovieUnknown, SpaceNotLoaded, from_status
from marquee.v1 import retriever_pb2, types_pb2
from tests.bundles import movie_record
from tests.rigs import error_of, retriever
from tests.search_twin import World, make_world, packed

MOVIES = 120
DIMENSION = 16


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("search"), movies=MOVIES, dimension=DIMENSION)


def vector_bytes(seed: int) -> bytes:
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype("<f4").tobytes()


def request(world: World, **fields: Any) -> retriever_pb2.SearchRequest:
    defaults: dict[str, Any] = {"vector": vector_bytes(1), "space": world.bundle.space, "k": 5}
    return retriever_pb2.SearchRequest(**defaults | fields)


async def test_search_names_space_bundle_and_request(world: World) -> None:
    async with retriever(world.registry) as rig:
        given = await rig.search.Search(request(world, request_id="mine"))
        made = [await rig.search.Search(request(world)) for _ in range(2)]
    assert (given.space, given.bundle_id, given.request_id) == (world.bundle.space, world.bundle.id, "mine")
    assert len({answer.request_id for answer in made} | {""}) == 3
    assert len(given.movies) == 0


async def test_a_vector_counts_by_direction_only(world: World) -> None:
    vector = np.frombuffer(vector_bytes(1), "<f4")
    async with retriever(world.registry) as rig:
        plain = await rig.search.Search(request(world))
        for scale in (1e-30, 1e30):
            scaled = await rig.search.Search(request(world, vector=(vector * np.float32(scale)).tobytes()))
            assert list(scaled.movie_ids) == list(plain.movie_ids)


SHORT = [
    ({"k": MOVIES}, retriever_pb2.SHORT_REASON_UNSPECIFIED, MOVIES),
    ({"k": MOVIES + 1}, retriever_pb2.SHORT_REASON_CATALOG, MOVIES),
    # Every sixth of the 120 movies is a Western, movie 1 the first.
    ({"k": 30, "filter": {"genres_any": ["western"]}}, retriever_pb2.SHORT_REASON_FILTER, 20),
    ({"k": 20, "filter": {"genres_any": ["Western"]}}, retriever_pb2.SHORT_REASON_UNSPECIFIED, 20),
    (
        {"k": 20, "filter": {"genres_any": ["Western"], "exclude_ids": [1]}},
        retriever_pb2.SHORT_REASON_EXCLUDED,
        19,
    ),
    ({"k": 120, "exclude_packed": packed([1, 4])}, retriever_pb2.SHORT_REASON_EXCLUDED, 118),
    ({"k": 5, "filter": {"genres_any": ["Opera"]}}, retriever_pb2.SHORT_REASON_FILTER, 0),
]


@pytest.mark.parametrize(("fields", "reason", "count"), SHORT)
async def test_a_short_list_says_why(world: World, fields: dict[str, Any], reason: int, count: int) -> None:
    async with retriever(world.registry) as rig:
        answer = await rig.search.Search(request(world, **fields))
    assert (len(answer.movie_ids), answer.short_reason) == (count, reason)


def with_vector(at: int, value: float) -> bytes:
    vector = np.ones(DIMENSION, "<f4")
    vector[at] = value
    return vector.tobytes()


BAD_QUERIES: list[tuple[dict[str, Any], str, str]] = [
    ({"vector": b""}, "vector", "0 bytes"),
    ({"vector": b"\0" * 63}, "vector", "63 bytes; the space has 16 dimensions, so send 64"),
    ({"vector": with_vector(3, np.nan)}, "vector", "entry 3 is nan"),
    ({"vector": with_vector(5, -np.inf)}, "vector", "entry 5 is -inf"),
    ({"vector": bytes(64)}, "vector", "is zero"),
    ({"k": 0}, "k", "k is 0; send 1 to 1000"),
    ({"k": 1001}, "k", "k is 1001"),
    ({"k": -1}, "k", "k is -1"),
    ({"exclude_packed": b"1234567"}, "exclude_packed", "7 bytes, not a multiple of 8"),
    ({"exclude_packed": np.array([1, 5, 4], "<i8").tobytes()}, "exclude_packed", "id 2 (4) comes after 5"),
    ({"exclude_packed": bytes(8 * 100_001)}, "exclude_packed", "100001 ids; send at most 100000"),
    ({"filter": {"genres_any": ["Drama"] * 101}}, "filter.genres_any", "101 entries; send at most 100"),
    ({"filter": {"genres_none": ["Drama"] * 101}}, "filter.genres_none", "101 entries"),
    ({"filter": {"languages": ["en"] * 101}}, "filter.languages", "101 entries"),
    ({"filter": {"include_ids": [1] * 100_001}}, "filter.include_ids", "at most 100000"),
    ({"filter": {"exclude_ids": [1] * 100_001}}, "filter.exclude_ids", "at most 100000"),
    ({"filter": {"people_any": ["Nobody"] * 101}}, "filter.people_any", "101 entries; send at most 100"),
    ({"filter": {"rating_count_min": 9, "rating_count_max": 8}}, "filter.rating_count_min", "is 9, above rating_count"),
    ({"filter": {"rating_min": np.nan}}, "filter.rating_min", "is nan; send stars, 0.5 to 5"),
    ({"filter": {"rating_min": -np.inf}}, "filter.rating_min", "is -inf"),
    ({"options": {"min_score": np.nan}}, "options.min_score", "is nan; send -1 to 1"),
    ({"options": {"min_score": 1.01}}, "options.min_score", "is 1.01; send -1 to 1"),
    ({"options": {"min_score": -np.inf}}, "options.min_score", "is -inf"),
    ({"options": {"diversity": np.nan}}, "options.diversity", "is nan; send 0 to 1"),
    ({"options": {"diversity": -0.1}}, "options.diversity", "is -0.1; send 0 to 1"),
    ({"options": {"diversity": 1.5}}, "options.diversity", "is 1.5; send 0 to 1"),
    ({"options": {"max_per_genre": -1}}, "options.max_per_genre", "is -1; send 1 or more, or 0 for no cap"),
    ({"options": {"max_per_director": -7}}, "options.max_per_director", "is -7; send 1 or more"),
    ({"options": {"quality": 9}}, "options.quality", "is 9, which is no Quality; send one of QUALITY_UNSPECIFIED, "),
    ({"filter": {"year_min": 2001, "year_max": 2000}}, "filter.year_min", "is 2001, above year_max, 2000"),
]
BAD_REQUESTS: list[tuple[dict[str, Any], str, str]] = [
    ({"space": ""}, "space", "pass back the space of the Encode answer"),
    ({"request_id": "x" * 129}, "request_id", "129 bytes"),
    ({"request_id": "é" * 65}, "request_id", "130 bytes"),
    ({"details": field_mask_pb2.FieldMask(paths=["title", "titel"])}, "details", "no field 'titel'"),
    ({"details": field_mask_pb2.FieldMask(paths=["title.x"])}, "details", "no field 'title.x'"),
]


@pytest.mark.parametrize(("fields", "field", "text"), BAD_QUERIES + BAD_REQUESTS)
async def test_a_bad_field_is_named(world: World, fields: dict[str, Any], field: str, text: str) -> None:
    async with retriever(world.registry) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await rig.search.Search(request(world, **fields))
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    error = error_of(failure.value)
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert text in error.message


async def test_a_bad_query_of_a_batch_fails_alone(world: World) -> None:
    good: dict[str, Any] = {"vector": vector_bytes(1), "k": 5}
    queries = [retriever_pb2.BatchSearchQuery(**good)]
    queries += [retriever_pb2.BatchSearchQuery(**good | fields) for fields, _, _ in BAD_QUERIES]
    async with retriever(world.registry) as rig:
        plain = await rig.search.Search(request(world))
        answer = await rig.search.BatchSearch(
            retriever_pb2.BatchSearchRequest(queries=queries, space=world.bundle.space)
        )
    assert list(answer.results[0].movie_ids) == list(plain.movie_ids)
    for at, (_, field, text) in enumerate(BAD_QUERIES, start=1):
        error = from_status(answer.results[at].status)
        assert isinstance(error, InvalidRequest)
        assert error.field == f"queries[{at}].{field}"
        assert text in error.message
        assert len(answer.results[at].movie_ids) == 0


@pytest.mark.parametrize("count", [0, 1025])
async def test_a_batch_has_1_to_1024_queries(world: World, count: int) -> None:
    queries = [retriever_pb2.BatchSearchQuery(vector=vector_bytes(1), k=1)] * count
    async with retriever(world.registry) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await rig.search.BatchSearch(retriever_pb2.BatchSearchRequest(queries=queries, space=world.bundle.space))
    assert error_of(failure.value).field == "queries"


async def test_another_space_is_refused_and_the_loaded_one_named(world: World) -> None:
    async with retriever(world.registry) as rig:
        for call in (
            rig.search.Search(request(world, space="ab" * 32)),
            rig.search.BatchSearch(
                retriever_pb2.BatchSearchRequest(queries=[retriever_pb2.BatchSearchQuery()], space="ab" * 32)
            ),
            rig.search.SearchSimilar(retriever_pb2.SearchSimilarRequest(movie_ids=[1], k=1, space="ab" * 32)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call
            error = error_of(failure.value)
            assert failure.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert isinstance(error, SpaceNotLoaded)
            assert error.metadata == {"space": "ab" * 32, "loaded": world.bundle.space}


async def test_details_have_the_fields_that_were_asked_for(world: World) -> None:
    records = {movie.movie_id: movie for movie in map(movie_record, range(MOVIES))}
    async with retriever(world.registry) as rig:
        for _ in range(2):  # the second time from what was kept
            some = await rig.search.Search(
                request(world, k=MOVIES, details=field_mask_pb2.FieldMask(paths=["title", "year"]))
            )
            every = await rig.search.Search(request(world, k=MOVIES, details=field_mask_pb2.FieldMask(paths=["*"])))
            for movie_id, two, full in zip(some.movie_ids, some.movies, every.movies, strict=True):
                record = records[movie_id]
                assert two == types_pb2.Movie(title=record.title, year=record.year)
                assert full.movie_id == movie_id
                assert (full.HasField("year"), full.HasField("mean_rating"), full.HasField("runtime_minutes")) == (
                    record.year is not None,
                    record.mean_rating is not None,
                    record.runtime_minutes is not None,
                )
                assert (tuple(full.genres), tuple(full.cast), full.language) == (
                    record.genres,
                    record.cast,
                    record.language,
                )
                assert full.external_id == record.external_id


async def test_similar_searches_with_the_mean_of_the_examples(world: World) -> None:
    ids = np.asarray(world.bundle.array(MOVIE_IDS), np.int64)
    vectors = np.asarray(world.bundle.array(ITEM_VECTORS), np.float64)
    mean = (vectors[3] + vectors[8]) / 2 - vectors[11]
    examples = ids[[3, 8, 11]].tolist()
    async with retriever(world.registry) as rig:
        similar = await rig.search.SearchSimilar(
            retriever_pb2.SearchSimilarRequest(movie_ids=examples[:2], negative_movie_ids=examples[2:], k=10)
        )
        searched = await rig.search.Search(
            request(world, vector=mean.astype("<f4").tobytes(), k=10, exclude_packed=packed(examples))
        )
    assert list(similar.movie_ids) == list(searched.movie_ids)
    assert list(similar.scores) == pytest.approx(list(searched.scores), abs=2e-6)
    assert not set(similar.movie_ids) & set(examples)
    assert similar.space == world.bundle.space


SIMILAR_ERRORS = [
    ({"movie_ids": []}, InvalidRequest, "movie_ids"),
    ({"movie_ids": [1] * 101}, InvalidRequest, "movie_ids"),
    ({"movie_ids": [1, 0]}, InvalidRequest, "movie_ids[1]"),
    ({"movie_ids": [1], "negative_movie_ids": [4] * 101}, InvalidRequest, "negative_movie_ids"),
    ({"movie_ids": [1, 2]}, MovieUnknown, "movie_ids[1]"),
    ({"movie_ids": [1], "negative_movie_ids": [4, 10**9]}, MovieUnknown, "negative_movie_ids[1]"),
    ({"movie_ids": [1, 4], "negative_movie_ids": [4, 1]}, InvalidRequest, "movie_ids"),
    ({"movie_ids": [1], "k": 0}, InvalidRequest, "k"),
    ({"movie_ids": [1], "options": {"diversity": 2}}, InvalidRequest, "options.diversity"),
    ({"movie_ids": [1], "filter": {"year_min": 2, "year_max": 1}}, InvalidRequest, "filter.year_min"),
]


@pytest.mark.parametrize(("fields", "kind", "field"), SIMILAR_ERRORS)
async def test_similar_refuses(world: World, fields: dict[str, Any], kind: type[Exception], field: str) -> None:
    async with retriever(world.registry) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await rig.search.SearchSimilar(retriever_pb2.SearchSimilarRequest(**{"k": 5} | fields))
    error = error_of(failure.value)
    assert type(error) is kind
    assert error.field == field


async def test_get_index_says_what_is_loaded(world: World) -> None:
    async with retriever(world.registry) as rig:
        answer = await rig.search.GetIndex(retriever_pb2.GetIndexRequest())
    (loaded,) = answer.state.bundles
    assert (loaded.space, loaded.bundle_id) == (world.bundle.space, world.bundle.id)
    assert (loaded.role, loaded.dimension, loaded.movies) == (types_pb2.BUNDLE_ROLE_ACTIVE, DIMENSION, MOVIES)
    assert (loaded.tower, loaded.index.kind) == ("pooled", "exact")
    assert [metric.name for metric in loaded.metrics] == ["ndcg@10"]
    assert loaded.loaded_at_ms > 0
    # Publishing was the first generation, activating the second.
    assert (answer.state.generation, answer.state.reload_error) == (2, "")
    assert len(answer.request_id) == 32
    assert not loaded.HasField("feature_spec")
