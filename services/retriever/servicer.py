"""The rpcs of RetrieverService: each translates a request, asks the model, translates its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc.aio
import numpy as np

from marquee.errors import InvalidRequest, to_status
from marquee.features import Floats
from marquee.v1 import catalog_pb2_grpc, retriever_pb2, retriever_pb2_grpc, types_pb2
from services.common.requests import request_id_of
from services.common.spaces import Loaded, Spaces
from services.retriever.catalogue import CatalogServicer
from services.retriever.finding import Found
from services.retriever.queries import (
    MAX_QUERIES,
    Wanted,
    read_details,
    read_examples,
    read_vector,
    read_wanted,
)
from services.retriever.retrieval import Retrieval

Context = grpc.aio.ServicerContext[Any, Any]

# How long a batch may hold the event loop before other calls get their turn.
_TURN_S = 0.001
# Picking a list of more movies than this under caps or for variety takes from half a millisecond to some 50: elsewhere.
_QUICK_PICKS = 50
# A thread of its own: in the pool that everything shares, a flood of such lists would hold up the watch of registry and
# block list.
_APART = ThreadPoolExecutor(1, "picking")

SERVICES = ("marquee.v1.RetrieverService", "marquee.v1.CatalogService")


def add_servicers(spaces: Spaces[Retrieval], server: grpc.aio.Server) -> None:
    """Adds the services of SERVICES to a server."""
    retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(RetrieverServicer(spaces), server)
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogServicer(spaces), server)


class RetrieverServicer(retriever_pb2_grpc.RetrieverServiceServicer):
    """Answers RetrieverService."""

    def __init__(self, spaces: Spaces[Retrieval]) -> None:
        self._spaces = spaces

    async def Search(  # noqa: N802
        self, request: retriever_pb2.SearchRequest, context: Context
    ) -> retriever_pb2.SearchResponse:
        """Finds the nearest movies to a vector. Runs on the event loop: a thread hop would cost more than it does."""
        request_id = request_id_of(request.request_id)
        names = read_details(request.details)
        loaded = self._named(request.space)
        found = await _search(loaded, request, "")
        return retriever_pb2.SearchResponse(**_told(loaded, found, names), request_id=request_id)

    async def BatchSearch(  # noqa: N802
        self, request: retriever_pb2.BatchSearchRequest, context: Context
    ) -> retriever_pb2.BatchSearchResponse:
        """Runs several searches."""
        request_id = request_id_of(request.request_id)
        if not 1 <= len(request.queries) <= MAX_QUERIES:
            raise InvalidRequest(f"queries has {len(request.queries)}; send 1 to {MAX_QUERIES}", field="queries")
        loaded = self._named(request.space)
        return retriever_pb2.BatchSearchResponse(
            results=[result async for result in _search_each(loaded, request)],
            space=loaded.bundle.space,
            bundle_id=loaded.bundle.id,
            request_id=request_id,
        )

    async def SearchSimilar(  # noqa: N802
        self, request: retriever_pb2.SearchSimilarRequest, context: Context
    ) -> retriever_pb2.SearchSimilarResponse:
        """Finds movies like others."""
        request_id = request_id_of(request.request_id)
        names = read_details(request.details)
        loaded = self._spaces.get(request.space)
        examples = read_examples(request.movie_ids, "movie_ids", least=1)
        negatives = read_examples(request.negative_movie_ids, "negative_movie_ids", least=0)
        wanted = read_wanted(request, "")
        query_D = loaded.model.toward(examples, negatives)
        excluded = np.concatenate((wanted.excluded, examples, negatives))
        found = await _find(loaded, query_D, wanted._replace(excluded=excluded))
        return retriever_pb2.SearchSimilarResponse(**_told(loaded, found, names), request_id=request_id)

    async def GetIndex(  # noqa: N802
        self, request: retriever_pb2.GetIndexRequest, context: Context
    ) -> retriever_pb2.GetIndexResponse:
        """Says what is loaded."""
        state = self._spaces.replica_state(_describe)
        return retriever_pb2.GetIndexResponse(state=state, request_id=request_id_of(""))

    def _named(self, space: str) -> Loaded[Retrieval]:
        if not space:
            raise InvalidRequest(
                "space is empty: a vector means nothing without it; pass back the space of the Encode answer that the "
                "vector came with",
                field="space",
            )
        return self._spaces.get(space)


async def _search(
    loaded: Loaded[Retrieval], query: retriever_pb2.SearchRequest | retriever_pb2.BatchSearchQuery, path: str
) -> Found:
    vector_D = read_vector(query.vector, loaded.model.index.dimension, path)
    return await _find(loaded, vector_D, read_wanted(query, path))


async def _find(loaded: Loaded[Retrieval], query_D: Floats, wanted: Wanted) -> Found:
    if wanted.k > _QUICK_PICKS and wanted.options and wanted.options.picks:
        return await asyncio.get_running_loop().run_in_executor(_APART, loaded.model.search_apart, query_D, wanted)
    return loaded.model.search(query_D, wanted)


def _told(loaded: Loaded[Retrieval], found: Found, names: tuple[str, ...]) -> dict[str, Any]:
    """Lists the fields that the answers of Search and SearchSimilar have in common."""
    hits = found.hits
    began = time.perf_counter_ns()
    movies = loaded.model.details(hits.movie_ids, names)
    if found.debug is not None:
        found.debug.finish_us += (time.perf_counter_ns() - began) // 1000
    return {
        "movie_ids": hits.movie_ids.tolist(),
        "scores": hits.scores.tolist(),
        "movies": movies,
        "short_reason": found.short_reason,
        "space": loaded.bundle.space,
        "bundle_id": loaded.bundle.id,
        "vectors": found.vectors,
        "debug": found.debug,
    }


async def _search_each(
    loaded: Loaded[Retrieval], request: retriever_pb2.BatchSearchRequest
) -> AsyncIterator[retriever_pb2.BatchSearchResult]:
    turn_ends = time.monotonic() + _TURN_S
    for at, query in enumerate(request.queries):
        yield await _result(loaded, query, f"queries[{at}].")
        if time.monotonic() >= turn_ends:
            await asyncio.sleep(0)
            turn_ends = time.monotonic() + _TURN_S


async def _result(
    loaded: Loaded[Retrieval], query: retriever_pb2.BatchSearchQuery, path: str
) -> retriever_pb2.BatchSearchResult:
    try:
        found = await _search(loaded, query, path)
    except InvalidRequest as error:
        return retriever_pb2.BatchSearchResult(status=to_status(error))
    return retriever_pb2.BatchSearchResult(
        movie_ids=found.hits.movie_ids.tolist(),
        scores=found.hits.scores.tolist(),
        short_reason=found.short_reason,
    )


def _describe(loaded: Loaded[Retrieval], message: types_pb2.LoadedBundle) -> None:
    message.index.CopyFrom(loaded.bundle.manifest.index)
