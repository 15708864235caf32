"""The rpcs of CatalogService: each translates a request, asks the catalogue, translates its answer."""

from __future__ import annotations

from typing import Any

import grpc.aio

from marquee.errors import InvalidRequest, MarqueeError, to_status
from marquee.v1 import catalog_pb2, catalog_pb2_grpc
from services.common.requests import request_id_of
from services.common.spaces import Spaces
from services.retriever import lookups
from services.retriever.retrieval import Retrieval, to_proto

Context = grpc.aio.ServicerContext[Any, Any]


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """Answers CatalogService."""

    def __init__(self, spaces: Spaces[Retrieval]) -> None:
        self._spaces = spaces

    async def GetMovie(  # noqa: N802
        self, request: catalog_pb2.GetMovieRequest, context: Context
    ) -> catalog_pb2.GetMovieResponse:
        """Reads one movie."""
        request_id = request_id_of(request.request_id)
        located = lookups.find_movie(self._spaces, request.key, "key")
        return catalog_pb2.GetMovieResponse(
            movie=to_proto(located.movie), bundle_id=located.bundle_id, request_id=request_id
        )

    async def BatchGetMovies(  # noqa: N802
        self, request: catalog_pb2.BatchGetMoviesRequest, context: Context
    ) -> catalog_pb2.BatchGetMoviesResponse:
        """Reads several movies."""
        request_id = request_id_of(request.request_id)
        if not 1 <= len(request.keys) <= lookups.MAX_KEYS:
            raise InvalidRequest(f"keys has {len(request.keys)}; send 1 to {lookups.MAX_KEYS}", field="keys")
        located = lookups.find_movies(self._spaces, request.keys, "keys")
        return catalog_pb2.BatchGetMoviesResponse(results=map(_movie_result, located), request_id=request_id)

    async def SearchMovies(  # noqa: N802
        self, request: catalog_pb2.SearchMoviesRequest, context: Context
    ) -> catalog_pb2.SearchMoviesResponse:
        """Finds movies by title."""
        request_id = request_id_of(request.request_id)
        page = await lookups.search_titles(self._spaces, request)
        return catalog_pb2.SearchMoviesResponse(
            movies=map(to_proto, page.movies),
            next_page_token=page.next_token,
            bundle_id=page.bundle_id,
            request_id=request_id,
        )


def _movie_result(located: lookups.Located | MarqueeError) -> catalog_pb2.BatchGetMoviesResult:
    if isinstance(located, MarqueeError):
        return catalog_pb2.BatchGetMoviesResult(status=to_status(located))
    return catalog_pb2.BatchGetMoviesResult(movie=to_proto(located.movie), bundle_id=located.bundle_id)
