"""Whatever callers send to Search, on a real socket: a precise error or a defined answer, never an internal error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marquee.errors import InvalidRequest, MarqueeError, MovieUnknown
from marquee.v1 import retriever_pb2, types_pb2
from tests.rigs import Rig, error_of, retriever
from tests.search_twin import World, make_world, twin

MOVIES = 50
DIMENSION = 8

INT64, INT32 = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)
FLOAT32 = st.floats(width=32)
NAMES = st.lists(st.one_of(st.sampled_from(["Drama", "western", "FR", "Director 3", "actor 5"]), st.text(max_size=8)))
IDS = st.lists(st.one_of(st.integers(1, 3 * MOVIES), INT64), max_size=30)

# One server a test, for all of its examples.
on_the_wire = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("any"), movies=MOVIES, dimension=DIMENSION)


@pytest.fixture
async def rig(world: World) -> AsyncIterator[Rig]:
    async with retriever(world.registry) as running:
        yield running


def messages(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draws messages with any of the fields set."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


FILTERS = messages(
    types_pb2.MovieFilter,
    genres_any=NAMES,
    genres_all=NAMES,
    genres_none=NAMES,
    languages=NAMES,
    people_any=NAMES,
    year_min=st.one_of(INT32, st.integers(1940, 2010)),
    year_max=st.one_of(INT32, st.integers(1940, 2010)),
    include_ids=IDS,
    exclude_ids=IDS,
    rating_min=st.one_of(FLOAT32, st.floats(0, 5, width=32)),
    rating_count_min=st.one_of(INT64, st.integers(0, 100)),
    rating_count_max=st.one_of(INT64, st.integers(0, 100)),
)
OPTIONS = messages(
    retriever_pb2.SearchOptions,
    min_score=st.one_of(FLOAT32, st.floats(-1, 1, width=32)),
    quality=st.one_of(st.sampled_from(retriever_pb2.Quality.values()), INT32),
    diversity=st.one_of(FLOAT32, st.floats(0, 1, width=32)),
    max_per_genre=st.one_of(INT32, st.integers(0, 9)),
    max_per_director=st.one_of(INT32, st.integers(0, 9)),
)
VECTORS = st.one_of(
    st.lists(st.floats(-4, 4, width=32), min_size=DIMENSION, max_size=DIMENSION).map(
        lambda values: np.array(values, "<f4").tobytes()
    ),
    st.binary(min_size=4 * DIMENSION, max_size=4 * DIMENSION),
    st.binary(max_size=5 * DIMENSION),
)
PACKED = st.one_of(st.binary(max_size=40), IDS.map(lambda ids: np.array(sorted(ids), "<i8").tobytes()))
QUERIES = st.fixed_dictionaries(
    {"vector": VECTORS, "k": st.one_of(st.integers(1, 60), INT32)},
    optional={"filter": FILTERS, "exclude_packed": PACKED, "options": OPTIONS},
)


async def outcome(call: Any) -> Any:
    """Waits for a call; returns its answer, or the error that came in its details."""
    try:
        return await call
    except grpc.aio.AioRpcError as failure:
        return error_of(failure)


def refused_field(error: MarqueeError, request: Any) -> str:
    """Checks that an error names a field of the request and says what is wrong with it; returns the field's name."""
    assert isinstance(error, InvalidRequest), error
    assert error.message.startswith(error.field)
    message = request
    for name in error.field.split("."):
        assert name in message.DESCRIPTOR.fields_by_name, error.field
        message = getattr(message, name)
    return error.field


@given(QUERIES)
@on_the_wire
async def test_any_query_is_refused_by_field_or_answered_as_by_the_twin(
    rig: Rig, world: World, query: dict[str, Any]
) -> None:
    request = retriever_pb2.SearchRequest(space=world.bundle.space, **query)
    answer = await outcome(rig.search.Search(request))
    if isinstance(answer, MarqueeError):
        refused_field(answer, request)
        return
    expected = twin(world, request)
    assert list(answer.movie_ids) == expected.movie_ids
    assert answer.short_reason == expected.short_reason


@given(st.lists(QUERIES, min_size=1, max_size=4))
@on_the_wire
async def test_a_batch_refuses_and_answers_each_query_as_search_does(
    rig: Rig, world: World, queries: list[dict[str, Any]]
) -> None:
    space = world.bundle.space
    batch = await rig.search.BatchSearch(
        retriever_pb2.BatchSearchRequest(
            queries=[retriever_pb2.BatchSearchQuery(**query) for query in queries], space=space
        )
    )
    for at, (query, result) in enumerate(zip(queries, batch.results, strict=True)):
        alone = await outcome(rig.search.Search(retriever_pb2.SearchRequest(space=space, **query)))
        if isinstance(alone, MarqueeError):
            assert result.status.message == f"queries[{at}].{alone.message}"
            assert not result.movie_ids
        else:
            assert (list(result.movie_ids), list(result.scores)) == (list(alone.movie_ids), list(alone.scores))
            assert result.short_reason == alone.short_reason


@given(st.one_of(st.binary(max_size=60), IDS.map(lambda ids: np.array(ids, "<i8").tobytes())))
@on_the_wire
async def test_excluded_ids_are_whole_and_ascending_or_refused(rig: Rig, world: World, packed: bytes) -> None:
    request = retriever_pb2.SearchRequest(
        vector=np.ones(DIMENSION, "<f4").tobytes(), space=world.bundle.space, k=MOVIES, exclude_packed=packed
    )
    answer = await outcome(rig.search.Search(request))
    ids = np.frombuffer(packed[: len(packed) // 8 * 8], "<i8").tolist()
    if len(packed) % 8 or ids != sorted(ids):
        assert refused_field(answer, request) == "exclude_packed"
    else:
        assert set(answer.movie_ids) == {movie.movie_id for movie in world.movies} - set(ids)


@given(IDS, IDS, st.one_of(st.none(), OPTIONS))
@on_the_wire
async def test_similar_names_the_example_that_is_wrong(
    rig: Rig, world: World, like: list[int], unlike: list[int], options: retriever_pb2.SearchOptions | None
) -> None:
    request = retriever_pb2.SearchSimilarRequest(movie_ids=like, negative_movie_ids=unlike, k=MOVIES, options=options)
    answer = await outcome(rig.search.SearchSimilar(request))
    known = {movie.movie_id for movie in world.movies}
    if isinstance(answer, MovieUnknown):
        name, _, at = answer.field.rstrip("]").partition("[")
        ids = {"movie_ids": like, "negative_movie_ids": unlike}[name]
        assert ids[int(at)] not in known
        assert answer.metadata == {"movie_id": str(ids[int(at)])}
    elif isinstance(answer, MarqueeError):
        assert isinstance(answer, InvalidRequest), answer
        assert answer.field.partition("[")[0] in ("movie_ids", "negative_movie_ids") or answer.field.startswith("opt")
    else:
        assert {*like, *unlike} <= known
        assert not {*like, *unlike} & set(answer.movie_ids)


async def test_a_hundred_thousand_ids_may_be_left_out_and_asked_for(rig: Rig, world: World) -> None:
    ids = np.arange(1, 100_001)
    some = world.movies[7].movie_id
    but_one = ids[ids != some]
    asked: dict[str, Any] = {"vector": np.ones(DIMENSION, "<f4").tobytes(), "space": world.bundle.space, "k": 3}
    for request in (
        retriever_pb2.SearchRequest(**asked, exclude_packed=but_one.astype("<i8").tobytes()),
        retriever_pb2.SearchRequest(**asked, filter=types_pb2.MovieFilter(exclude_ids=but_one.tolist())),
        retriever_pb2.SearchRequest(
            **asked, filter=types_pb2.MovieFilter(include_ids=ids.tolist(), exclude_ids=but_one.tolist())
        ),
    ):
        answer = await rig.search.Search(request)
        assert list(answer.movie_ids) == [some]
        assert answer.short_reason == retriever_pb2.SHORT_REASON_EXCLUDED
