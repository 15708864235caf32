"""The rpcs of RetrieverService: each translates a request, asks the model, translates its answer."""

from __future__ import annotations

import time
from typing import Any

import grpc.aio
import numpy as np

from marquee.errors import InvalidRequest, to_status
from marquee.v1 import catalog_pb2_grpc, retriever_pb2, retriever_pb2_grpc, types_pb2
from services.common.deadlines import time_left
from services.common.measures import BATCH_SIZE, stage
from services.common.requests import request_id_of
from services.common.spaces import Loaded, Spaces
from services.retriever.catalogue import CatalogServicer
from services.retriever.finding import Found, tell
from services.retriever.queries import MAX_QUERIES, read_details, read_examples, read_wanted
from services.retriever.retrieval import Retrieval
from services.retriever.running import Outcome, find, find_many, read_query
from services.retriever.served import ServedLists

Context = grpc.aio.ServicerContext[Any, Any]

SERVICES = ("marquee.v1.RetrieverService", "marquee.v1.CatalogService")


def add_servicers(spaces: Spaces[Retrieval], server: grpc.aio.Server, served: ServedLists | None = None) -> None:
    """Adds the services of SERVICES to a server; `served` gets Search's answers, where some are looked at."""
    retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(RetrieverServicer(spaces, served), server)
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogServicer(spaces), server)


class RetrieverServicer(retriever_pb2_grpc.RetrieverServiceServicer):
    """Answers RetrieverService."""

    def __init__(self, spaces: Spaces[Retrieval], served: ServedLists | None = None) -> None:
        self._spaces = spaces
        self._served = served

    async def Search(  # noqa: N802
        self, request: retriever_pb2.SearchRequest, context: Context
    ) -> retriever_pb2.SearchResponse:
        """Finds the nearest movies to a vector."""
        request_id = request_id_of(request.request_id)
        names = read_details(request.details)
        loaded = self._named(request.space)
        with stage("search"):
            found = await find(loaded.model, *read_query(loaded.model, request, ""), time_left)
        if self._served is not None:
            self._served.add(request, request_id, loaded, found)
        tell([found])
        with stage("finish"):
            return retriever_pb2.SearchResponse(**_told(loaded, found, names), request_id=request_id)

    async def BatchSearch(  # noqa: N802
        self, request: retriever_pb2.BatchSearchRequest, context: Context
    ) -> retriever_pb2.BatchSearchResponse:
        """Runs several searches."""
        request_id = request_id_of(request.request_id)
        if not 1 <= len(request.queries) <= MAX_QUERIES:
            raise InvalidRequest(f"queries has {len(request.queries)}; send 1 to {MAX_QUERIES}", field="queries")
        BATCH_SIZE.observe(len(request.queries))
        loaded = self._named(request.space)
        with stage("search"):
            outcomes = await find_many(loaded.model, request.queries, time_left)
        tell(outcome for outcome in outcomes if isinstance(outcome, Found))
        return retriever_pb2.BatchSearchResponse(
            results=map(_result, outcomes),
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
        with stage("search"):
            found = await find(loaded.model, query_D, wanted._replace(excluded=excluded), time_left)
        tell([found])
        with stage("finish"):
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


def _result(found: Outcome) -> retriever_pb2.BatchSearchResult:
    if not isinstance(found, Found):
        return retriever_pb2.BatchSearchResult(status=to_status(found))
    return retriever_pb2.BatchSearchResult(
        movie_ids=found.hits.movie_ids.tolist(),
        scores=found.hits.scores.tolist(),
        short_reason=found.short_reason,
    )


def _describe(loaded: Loaded[Retrieval], message: types_pb2.LoadedBundle) -> None:
    message.index.CopyFrom(loaded.bundle.manifest.index)
