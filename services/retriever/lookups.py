"""Looks movies up in the loaded bundles, first the active, then the standby, and finds them by title."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from marquee.errors import InvalidRequest, MarqueeError, MovieUnknown
from marquee.movies import MovieRecord
from marquee.v1 import catalog_pb2
from services.common.spaces import RETIRING, Loaded, Spaces
from services.retriever.retrieval import Retrieval

MAX_KEYS = 1000
MAX_EXTERNAL_ID_BYTES = 256
MAX_QUERY_BYTES = 1024
MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE = 100, 10
# Nobody pages this far by hand, and every page sorts all that come before it.
MAX_OFFSET = 10_000


class Located(NamedTuple):
    """Holds a movie and the bundle that it was found in."""

    movie: MovieRecord
    bundle_id: str


class Page(NamedTuple):
    """Holds one page of a title search; `next_token` is empty on the last one."""

    movies: list[MovieRecord]
    next_token: str
    bundle_id: str


def find_movie(spaces: Spaces[Retrieval], key: catalog_pb2.MovieKey, field: str) -> Located:
    """Finds one movie; raises InvalidRequest or MovieUnknown."""
    _check_key(key, field)
    for loaded in _looked_in(spaces):
        catalog = loaded.model.catalog
        by_id = key.WhichOneof("key") == "movie_id"
        movie = catalog.get(key.movie_id) if by_id else catalog.by_external_id(key.external_id)
        if movie is not None and not loaded.model.block_list.holds(movie.movie_id):
            return Located(movie, loaded.bundle.id)
    raise _unknown(key)


def find_movies(
    spaces: Spaces[Retrieval], keys: Iterable[catalog_pb2.MovieKey], field: str
) -> Iterator[Located | MarqueeError]:
    """Finds movies, or for each what `find_movie` would have raised."""
    for at, key in enumerate(keys):
        try:
            yield find_movie(spaces, key, f"{field}[{at}]")
        except (InvalidRequest, MovieUnknown) as error:
            yield error


def _looked_in(spaces: Spaces[Retrieval]) -> Iterator[Loaded[Retrieval]]:
    return (loaded for loaded in spaces.loaded() if loaded.role != RETIRING)


def _check_key(key: catalog_pb2.MovieKey, field: str) -> None:
    kind = key.WhichOneof("key")
    if kind is None:
        raise InvalidRequest(f"{field} is empty; set movie_id or external_id", field=field)
    if kind == "movie_id" and key.movie_id < 1:
        path = f"{field}.movie_id"
        raise InvalidRequest(f"{path} is {key.movie_id}; movie ids are positive", field=path)
    if kind == "external_id" and not 1 <= len(key.external_id.encode()) <= MAX_EXTERNAL_ID_BYTES:
        path = f"{field}.external_id"
        size = len(key.external_id.encode())
        raise InvalidRequest(f"{path} has {size} bytes; send 1 to {MAX_EXTERNAL_ID_BYTES}", field=path)


def _unknown(key: catalog_pb2.MovieKey) -> MovieUnknown:
    kind = key.WhichOneof("key") or ""
    value = str(getattr(key, kind))
    return MovieUnknown(
        f"no loaded bundle has the movie {value}; look up ids that Search or SearchMovies gave", metadata={kind: value}
    )


async def search_titles(spaces: Spaces[Retrieval], request: catalog_pb2.SearchMoviesRequest) -> Page:
    """Finds movies of the active bundle by title."""
    if len(request.query.encode()) > MAX_QUERY_BYTES:
        raise InvalidRequest(f"query is longer than {MAX_QUERY_BYTES} bytes; send its beginning", field="query")
    if not 0 <= request.page_size <= MAX_PAGE_SIZE:
        raise InvalidRequest(
            f"page_size is {request.page_size}; send 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}",
            field="page_size",
        )
    size = request.page_size or DEFAULT_PAGE_SIZE
    offset = _read_token(request.page_token, request.query)
    loaded = spaces.get("")
    model = loaded.model
    search = partial(model.titles.search, limit=size + 1, offset=offset, hidden=model.block_list.holds)
    # Milliseconds of SQLite, which lets the event loop go on.
    movies = await asyncio.to_thread(search, request.query)
    more = len(movies) > size and offset + size <= MAX_OFFSET
    return Page(movies[:size], _make_token(offset + size, request.query) if more else "", loaded.bundle.id)


def _make_token(offset: int, query: str) -> str:
    return f"{offset:x}.{zlib.crc32(query.encode()):08x}"


def _read_token(token: str, query: str) -> int:
    if not token:
        return 0
    digits = re.match(r"[0-9a-f]{1,4}\.", token)
    offset = int(digits[0][:-1], 16) if digits else 0
    if token != _make_token(offset, query) or not 0 < offset <= MAX_OFFSET:
        raise InvalidRequest(
            "page_token was not made for this query; send the next_page_token of its last page, or none to begin again",
            field="page_token",
        )
    return offset
