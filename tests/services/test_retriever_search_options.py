"""Search's options, one by one: a least score, variety, caps, vectors, the debug block."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from marquee.bundle.columns import ListedMaker
from marquee.engine.groups import Groups
from marquee.engine.index import Hits
from marquee.v1 import retriever_pb2
from services.retriever.picking import Cap, Picks
from tests.rigs import retriever
from tests.search_twin import World, make_world

MOVIES = 300
DIMENSION = 16
K = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("options"), movies=MOVIES, dimension=DIMENSION)


def request(world: World, k: int = K, **options: Any) -> retriever_pb2.SearchRequest:
    vector = np.random.default_rng(3).standard_normal(DIMENSION).astype("<f4").tobytes()
    return retriever_pb2.SearchRequest(
        vector=vector, space=world.bundle.space, k=k, options=retriever_pb2.SearchOptions(**options)
    )


async def search(world: World, *requests: retriever_pb2.SearchRequest) -> list[retriever_pb2.SearchResponse]:
    async with retriever(world.registry) as rig:
        return [await rig.search.Search(request) for request in requests]


def picked(scores: list[float], vectors: list[list[float]], diversity: float, k: int, *caps: Cap) -> list[int]:
    """Picks from candidates with the ids 1, 2, ..., best first, each in the row before its id."""
    ids = np.arange(1, len(scores) + 1)
    picks = Picks(diversity, caps)
    picks.pick(Hits(ids, np.array(scores, np.float32)), ids - 1, np.array(vectors, np.float32), k)
    return [int(movie_id) for movie_id in picks.hits().movie_ids]


# The second is nearly the first; the third is at a right angle to both.
ALIKE = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("diversity", "expected"),
    [
        (0.0, [1, 2, 3]),
        # 0.8 x 0.8 - 0.2 x 0.8 = 0.48 is more than 0.8 x 0.5 - 0.2 x 0 = 0.4
        (0.2, [1, 2, 3]),
        # 0.5 x 0.8 - 0.5 x 0.8 = 0 is less than 0.5 x 0.5 - 0.5 x 0 = 0.25
        (0.5, [1, 3, 2]),
        # -0.8 is less than 0
        (1.0, [1, 3, 2]),
    ],
)
def test_variety_is_what_arithmetic_says(diversity: float, expected: list[int]) -> None:
    assert picked([0.9, 0.8, 0.5], ALIKE, diversity, 3) == expected


def test_what_is_equally_good_goes_by_score_and_then_by_id() -> None:
    same = [[1.0, 0.0]] * 4
    assert picked([0.7, 0.7, 0.7, 0.7], same, 0.5, 4) == [1, 2, 3, 4]
    assert picked([0.9, 0.8, 0.7, 0.6], same, 1.0, 4) == [1, 2, 3, 4]


def test_a_cap_counts_every_group_of_a_movie() -> None:
    maker = ListedMaker()
    for genres in (["Drama"], ["drama", "War"], ["Drama", "Drama"], ["War"], []):
        maker.add(genres)
    groups = Groups(maker.listed(str.casefold), np.arange(5), 5)
    scores, vectors = [0.9, 0.8, 0.7, 0.6, 0.5], [[1.0, 0.0]] * 5
    # Of "Drama" the first; with it goes the second, so that of "War" the fourth is there.
    assert picked(scores, vectors, 0.0, 5, Cap(groups, 1)) == [1, 4, 5]
    assert picked(scores, vectors, 0.0, 5, Cap(groups, 2)) == [1, 2, 4, 5]
    assert picked(scores, vectors, 0.0, 5, Cap(groups, 3)) == [1, 2, 3, 4, 5]


async def test_a_least_score_keeps_what_has_exactly_that(world: World) -> None:
    (plain,) = await search(world, request(world))
    (cut,) = await search(world, request(world, min_score=plain.scores[6]))
    kept = [movie for movie, score in zip(plain.movie_ids, plain.scores, strict=True) if score >= plain.scores[6]]
    assert list(cut.movie_ids) == kept
    assert cut.short_reason == retriever_pb2.SHORT_REASON_SCORE


async def test_without_options_and_with_empty_ones_the_answer_is_the_same(world: World) -> None:
    empty = request(world)
    unset = retriever_pb2.SearchRequest(vector=empty.vector, space=empty.space, k=empty.k, request_id="x")
    empty.request_id = "x"
    assert empty.HasField("options")
    first, second = await search(world, empty, unset)
    assert first == second
    assert not first.HasField("debug")
    assert first.vectors == b""


async def test_vectors_are_those_of_the_movies_in_their_order(world: World) -> None:
    (answer,) = await search(world, request(world, vectors=True, diversity=0.5))
    rows = {movie.movie_id: row for row, movie in enumerate(world.movies)}
    vectors_KD = np.frombuffer(answer.vectors, "<f4").reshape(K, DIMENSION)
    assert vectors_KD.tolist() == world.vectors_ND[[rows[movie_id] for movie_id in answer.movie_ids]].tolist()


async def test_variety_makes_a_list_more_varied_and_keeps_its_scores(world: World) -> None:
    answers = await search(world, *(request(world, vectors=True, diversity=dial) for dial in (0, 0.3, 0.7, 1)))
    likeness = []
    for answer in answers:
        vectors_KD = np.frombuffer(answer.vectors, "<f4").reshape(K, DIMENSION)
        likeness.append(float((vectors_KD @ vectors_KD.T).mean()))
        # Scores stay cosines to the query, whatever the order.
        query_D = np.frombuffer(request(world).vector, "<f4")
        cosines = vectors_KD @ (query_D / np.linalg.norm(query_D))
        assert list(answer.scores) == pytest.approx(cosines.tolist(), abs=2e-6)
        assert answer.movie_ids[0] == answers[0].movie_ids[0]
        assert len(answer.movie_ids) == K
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[-1] < likeness[0] - 0.1


async def test_caps_hold_and_the_list_stays_full(world: World) -> None:
    (answer,) = await search(world, request(world, max_per_genre=4, max_per_director=2))
    movies = {movie.movie_id: movie for movie in world.movies}
    shown = [movies[movie_id] for movie_id in answer.movie_ids]
    assert max(Counter(genre for movie in shown for genre in movie.genres).values()) == 4
    assert max(Counter(name for movie in shown for name in movie.directors).values()) == 2
    assert len(shown) == K
    assert list(answer.scores) == sorted(answer.scores, reverse=True)


async def test_the_debug_block_counts(world: World) -> None:
    asked = request(world, debug=True)
    asked.filter.genres_any.append("Western")
    asked.filter.exclude_ids.append(1)
    (answer,) = await search(world, asked)
    # Every sixth of the 300 movies is a Western; movie 1 is one of them.
    assert (answer.debug.candidates, answer.debug.matching) == (MOVIES, 49)
    assert answer.debug.path in ("exact", "exact over the matching")
    assert answer.debug.search_us > 0


async def test_a_batch_sends_neither_vectors_nor_debug_block(world: World) -> None:
    asked = request(world, debug=True, vectors=True, diversity=0.4)
    query = retriever_pb2.BatchSearchQuery(vector=asked.vector, k=asked.k, options=asked.options)
    async with retriever(world.registry) as rig:
        answer = await rig.search.Search(asked)
        batch = await rig.search.BatchSearch(retriever_pb2.BatchSearchRequest(queries=[query], space=asked.space))
    (result,) = batch.results
    assert (list(result.movie_ids), list(result.scores)) == (list(answer.movie_ids), list(answer.scores))


async def test_similar_takes_the_same_options(world: World) -> None:
    """As Search does with the mean of the examples."""
    rows = [4, 9]
    mean_D = world.vectors_ND[rows].astype(np.float64).mean(axis=0)
    examples = [world.movies[row].movie_id for row in rows]
    options = retriever_pb2.SearchOptions(
        min_score=-0.5, diversity=0.6, max_per_genre=5, max_per_director=3, vectors=True, debug=True
    )
    async with retriever(world.registry) as rig:
        similar = await rig.search.SearchSimilar(
            retriever_pb2.SearchSimilarRequest(movie_ids=examples, k=K, options=options)
        )
        asked = retriever_pb2.SearchRequest(
            vector=mean_D.astype("<f4").tobytes(), space=world.bundle.space, k=K, options=options
        )
        asked.filter.exclude_ids.extend(examples)
        found = await rig.search.Search(asked)
    assert list(similar.movie_ids) == list(found.movie_ids)
    assert similar.vectors == found.vectors
    assert similar.debug.matching == found.debug.matching == MOVIES - 2


@pytest.mark.parametrize("k", [5, 150])
async def test_where_caps_leave_no_more_the_list_says_so(world: World, k: int) -> None:
    """Of Westerns one may be shown; there are 50, fewer than 150."""
    asked = request(world, k=k, max_per_genre=1)
    asked.filter.genres_any.append("Western")
    (answer,) = await search(world, asked)
    assert (len(answer.movie_ids), answer.short_reason) == (
        1,
        retriever_pb2.SHORT_REASON_CAPS if k == 5 else retriever_pb2.SHORT_REASON_FILTER,
    )
