"""Search, BatchSearch and their plain twin answer alike, whatever is asked of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from marquee.engine.kinds import EXACT, HNSW, IVF, IVF_FP16, IVF_SQ8, KINDS, Spec
from marquee.v1 import retriever_pb2, types_pb2
from tests.rigs import retriever
from tests.search_checks import DIMENSION, ask, check, correlated_queries, random_query
from tests.search_twin import World, make_world, twin

# More than the 200 that a list is picked from at least: caps must widen the pool.
MOVIES = 700


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("properties"), movies=MOVIES, dimension=DIMENSION)


async def test_search_equals_its_twin(world: World) -> None:
    rng = np.random.default_rng(7)
    answers = await check(world, [random_query(rng) for _ in range(200)])
    assert sum(bool(answer.movie_ids) for answer in answers) > 100
    reasons = Counter(answer.short_reason for answer in answers)
    assert set(reasons) == set(retriever_pb2.ShortReason.values()), reasons


async def test_filters_correlated_with_the_query_cost_no_movie(world: World) -> None:
    queries = list(correlated_queries(world))
    answers = await check(world, queries)
    for query, answer in zip(queries, answers, strict=True):
        if not query["options"].max_per_director:
            assert len(answer.movie_ids) == 20


@pytest.mark.parametrize("share", [1 / MOVIES, 0.01, 0.1, 0.5, 0.99, 1.0])
async def test_every_selectivity_finds_what_there_is(world: World, share: float) -> None:
    rng = np.random.default_rng(8)
    ids = [movie.movie_id for movie in world.movies]
    queries = []
    for k in (1, 20, 1000):
        chosen = rng.choice(ids, round(share * MOVIES), replace=False).tolist()
        vector = rng.standard_normal(DIMENSION).astype("<f4").tobytes()
        queries.append({"vector": vector, "k": k, "filter": types_pb2.MovieFilter(include_ids=chosen)})
    answers = await check(world, queries)
    assert [len(answer.movie_ids) for answer in answers] == [min(k, round(share * MOVIES)) for k in (1, 20, 1000)]


async def test_a_list_is_never_short_while_caps_leave_a_movie(world: World) -> None:
    """Nothing that was left out could still be shown, and no cap is broken."""
    rng = np.random.default_rng(9)
    movies = {movie.movie_id: movie for movie in world.movies}
    for _ in range(12):
        genre_cap, director_cap, k = (int(rng.integers(low, 12)) for low in (0, 0, 1))
        options = retriever_pb2.SearchOptions(
            max_per_genre=genre_cap, max_per_director=director_cap, diversity=float(rng.choice([0, 0.5]))
        )
        vector = rng.standard_normal(DIMENSION).astype("<f4").tobytes()
        (answer,) = await check(world, [{"vector": vector, "k": 30 * k, "options": options}])
        shown = [movies[movie_id] for movie_id in answer.movie_ids]
        genres = Counter(genre for movie in shown for genre in movie.genres)
        directors = Counter(director for movie in shown for director in movie.directors)
        assert max(genres.values()) <= (genre_cap or MOVIES)
        assert max(directors.values()) <= (director_cap or MOVIES)
        if len(shown) < 30 * k:
            full = {
                name
                for counts, cap in ((genres, genre_cap), (directors, director_cap))
                for name in counts
                if cap and counts[name] == cap
            }
            left_out = [movie for movie in world.movies if movie.movie_id not in answer.movie_ids]
            assert all(full & {*movie.genres, *movie.directors} for movie in left_out)


@pytest.fixture(scope="module")
def approximate(tmp_path_factory: pytest.TempPathFactory) -> World:
    # Half of the lists are looked at: enough for the probes, and some movies are missed.
    spec = Spec(IVF, {"nlist": 12, "nprobe": 6})
    return make_world(tmp_path_factory.mktemp("approximate"), movies=MOVIES, dimension=DIMENSION, index=spec)


_SMALL = {"nlist": 12, "nprobe": 9}
_SPECS = {
    EXACT: Spec(EXACT, {}),
    IVF: Spec(IVF, _SMALL),
    IVF_FP16: Spec(IVF_FP16, _SMALL),
    IVF_SQ8: Spec(IVF_SQ8, _SMALL),
    HNSW: Spec(HNSW, {"m": 8, "ef_construction": 40, "ef_search": 100}),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_batch_answers_as_its_queries_would_alone(tmp_path: Path, kind: str) -> None:
    """Most without options, as they are searched together; some with, some refused; every one in its place."""
    world = make_world(tmp_path, movies=MOVIES, dimension=DIMENSION, index=_SPECS[kind])
    rng = np.random.default_rng(12)
    queries = [random_query(rng) for _ in range(150)]
    for query in queries:
        if rng.random() < 0.7:
            query.pop("options", None)
    async with retriever(world.registry) as rig:
        answers = await ask(rig, world, queries)
        bad = [{**query, "k": 0} if at % 3 == 0 else query for at, query in enumerate(queries)]
        batch = retriever_pb2.BatchSearchRequest(
            queries=[retriever_pb2.BatchSearchQuery(**query) for query in bad], space=world.bundle.space
        )
        results = (await rig.search.BatchSearch(batch)).results
    assert len(results) == len(answers)
    for at, (result, answer) in enumerate(zip(results, answers, strict=True)):
        if at % 3 == 0:
            assert result.status.message.startswith(f"queries[{at}].k is 0; send 1 to 1000")
            assert not result.movie_ids
        else:
            assert not result.HasField("status")
            assert list(result.movie_ids) == list(answer.movie_ids)
            assert list(result.scores) == list(answer.scores)


async def test_quality_exact_is_exact_with_an_approximate_index(approximate: World) -> None:
    rng = np.random.default_rng(10)
    queries = [random_query(rng) for _ in range(60)]
    for query in queries:
        query.setdefault("options", retriever_pb2.SearchOptions()).quality = retriever_pb2.QUALITY_EXACT
    await check(approximate, queries)


async def test_an_approximate_index_misses_movies_and_never_makes_a_list_short(approximate: World) -> None:
    rng = np.random.default_rng(11)
    queries = [random_query(rng) for _ in range(60)]
    for query in queries:
        query["k"] = min(query["k"], 120)
        options = query.setdefault("options", retriever_pb2.SearchOptions())
        options.quality = retriever_pb2.QUALITY_FAST
        # How many these let through hangs on what was found.
        for name in ("min_score", "max_per_genre", "max_per_director"):
            options.ClearField(name)
    async with retriever(approximate.registry) as rig:
        answers = await ask(rig, approximate, queries)
    expected = [twin(approximate, retriever_pb2.SearchRequest(**query)) for query in queries]
    assert [(len(answer.movie_ids), answer.short_reason) for answer in answers] == [
        (len(one.movie_ids), one.short_reason) for one in expected
    ]
    assert any(list(answer.movie_ids) != one.movie_ids for answer, one in zip(answers, expected, strict=True))


async def test_quality_and_filter_decide_what_looks(approximate: World) -> None:
    vector = np.ones(DIMENSION, "<f4").tobytes()
    few = types_pb2.MovieFilter(include_ids=[1, 4, 7])
    paths = []
    async with retriever(approximate.registry) as rig:
        for quality in ("QUALITY_UNSPECIFIED", "QUALITY_BALANCED", "QUALITY_FAST", "QUALITY_EXACT"):
            for wanted in (None, few):
                options = retriever_pb2.SearchOptions(quality=quality, debug=True)
                answer = await rig.search.Search(
                    retriever_pb2.SearchRequest(
                        vector=vector, space=approximate.bundle.space, k=5, filter=wanted, options=options
                    )
                )
                paths.append(answer.debug.path)
    assert paths == [*["ivf", "exact over the matching"] * 3, "exact", "exact over the matching"]
