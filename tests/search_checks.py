"""Asks a retriever for whatever comes to mind, one by one and as a batch, and holds the answers to the plain twin's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from marquee.v1 import retriever_pb2, types_pb2
from services.retriever.milvus import Milvus
from tests.bundles import GENRES
from tests.rigs import Rig, retriever
from tests.search_twin import World, packed, random_filter, random_options, twin

DIMENSION = 12

Fields = dict[str, Any]


def random_query(rng: np.random.Generator) -> Fields:
    query: Fields = {
        "vector": rng.standard_normal(DIMENSION).astype("<f4").tobytes(),
        "k": int(rng.choice([1, 3, 10, 50, 120, 690, 1000])),
        "exclude_packed": packed(np.unique(rng.integers(1, 400, rng.integers(0, 120))).tolist()),
    }
    if rng.random() < 0.7:
        query["filter"] = random_filter(rng)
    if rng.random() < 0.7:
        query["options"] = random_options(rng)
    return query


async def ask(rig: Rig, world: World, queries: list[Fields]) -> list[retriever_pb2.SearchResponse]:
    """Asks one by one and as a batch; both must say the same, to the bit."""
    space = world.bundle.space
    answers = [await rig.search.Search(retriever_pb2.SearchRequest(space=space, **query)) for query in queries]
    batch = retriever_pb2.BatchSearchRequest(
        queries=[retriever_pb2.BatchSearchQuery(**query) for query in queries], space=space
    )
    results = (await rig.search.BatchSearch(batch)).results
    for answer, result in zip(answers, results, strict=True):
        assert result == retriever_pb2.BatchSearchResult(
            movie_ids=answer.movie_ids, scores=answer.scores, short_reason=answer.short_reason
        )
    return answers


async def check(
    world: World, queries: list[Fields], milvus: Milvus | None = None
) -> list[retriever_pb2.SearchResponse]:
    """Checks that the answers are those of the twin."""
    async with retriever(world.registry, milvus=milvus) as rig:
        answers = await ask(rig, world, queries)
    for query, answer in zip(queries, answers, strict=True):
        expected = twin(world, retriever_pb2.SearchRequest(**query))
        assert list(answer.movie_ids) == expected.movie_ids, query
        assert list(answer.scores) == pytest.approx(expected.scores, abs=1e-6)
        assert answer.short_reason == expected.short_reason, query
    return answers


def correlated_queries(world: World) -> Iterator[Fields]:
    """Asks in the direction of the movies that pass, and away from them."""
    for genre in GENRES:
        wanted = types_pb2.MovieFilter(genres_all=[genre])
        rows = [row for row, movie in enumerate(world.movies) if genre in movie.genres]
        mean = world.vectors_ND[rows].mean(axis=0)
        for vector in (mean, -mean):
            for cap in (0, 2):
                yield {
                    "vector": vector.astype("<f4").tobytes(),
                    "k": 20,
                    "filter": wanted,
                    "options": retriever_pb2.SearchOptions(max_per_director=cap),
                }
