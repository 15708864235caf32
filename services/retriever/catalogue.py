"""The rpcs of CatalogService: each translates a request, asks the catalogue, translates its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from marquee.errors import InvalidRequest, MarqueeError, to_status
from marquee.v1 import catalog_pb2, catalog_pb2_grpc, types_pb2
from services.common.measures import BATCH_SIZE
from services.common.requests import request_id_of
from services.common.spaces import Spaces
from services.retriever import lookups
from services.retriever.facets import Count, Counts
from services.retriever.queries import MOVIE_FIELDS, NO_IDS, read_excluded, read_filter, read_k
from services.retriever.retrieval import Retrieval, to_proto

DEFAULT_TOP = 10

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
        BATCH_SIZE.observe(len(request.keys))
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

    async def ListGenres(  # noqa: N802
        self, request: catalog_pb2.ListGenresRequest, context: Context
    ) -> catalog_pb2.ListGenresResponse:
        """Lists the genres of the active bundle."""
        request_id = request_id_of(request.request_id)
        loaded = self._spaces.get("")
        counts = await _count(loaded.model, None)
        return catalog_pb2.ListGenresResponse(
            genres=map(_facet, counts.genres), bundle_id=loaded.bundle.id, request_id=request_id
        )

    async def GetFacets(  # noqa: N802
        self, request: catalog_pb2.GetFacetsRequest, context: Context
    ) -> catalog_pb2.GetFacetsResponse:
        """Counts the movies of the active bundle that pass a filter."""
        request_id = request_id_of(request.request_id)
        wanted = read_filter(request, "")
        loaded = self._spaces.get("")
        counts = await _count(loaded.model, wanted)
        return catalog_pb2.GetFacetsResponse(
            movies=counts.movies,
            genres=map(_facet, counts.genres),
            decades=map(_facet, counts.decades),
            languages=map(_facet, counts.languages),
            bundle_id=loaded.bundle.id,
            request_id=request_id,
        )

    async def TopMovies(  # noqa: N802
        self, request: catalog_pb2.TopMoviesRequest, context: Context
    ) -> catalog_pb2.TopMoviesResponse:
        """Lists the most watched movies of the active bundle that pass a filter."""
        request_id = request_id_of(request.request_id)
        wanted = read_filter(request, "")
        k = read_k(request.k or DEFAULT_TOP, "")
        excluded = read_excluded(request.exclude_packed, "exclude_packed")
        loaded = self._spaces.get("")
        model = loaded.model
        movie_ids = model.facets.most_watched(model.filters.matching(wanted, excluded), k)
        return catalog_pb2.TopMoviesResponse(
            movies=model.details(movie_ids, MOVIE_FIELDS), bundle_id=loaded.bundle.id, request_id=request_id
        )


async def _count(model: Retrieval, wanted: types_pb2.MovieFilter | None) -> Counts:
    mask = model.filters.matching(wanted, NO_IDS)
    # Of a million movies it takes milliseconds.
    return await asyncio.to_thread(model.facets.count, mask)


def _facet(count: Count) -> catalog_pb2.Facet:
    return catalog_pb2.Facet(value=count.value, movies=count.movies)


def _movie_result(located: lookups.Located | MarqueeError) -> catalog_pb2.BatchGetMoviesResult:
    if isinstance(located, MarqueeError):
        return catalog_pb2.BatchGetMoviesResult(status=to_status(located))
    return catalog_pb2.BatchGetMoviesResult(movie=to_proto(located.movie), bundle_id=located.bundle_id)
