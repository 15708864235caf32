"""The methods of the SDK, each written once and without input or output.

A flow is a generator: it yields calls and receives their answers, or their errors at the place of the yield. The
classes in `recommender` run flows over a blocking or an asyncio channel and take their methods' signatures, types and
docstrings from here.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from itertools import islice
from typing import Unpack

from marquee.client import answers, requests
from marquee.client.rpcs import (
    BATCH_GET_MOVIES,
    ENCODE,
    GET_HISTORY,
    GET_INDEX,
    GET_MODEL,
    GET_MOVIE,
    RECORD_EVENTS,
    SEARCH,
    SEARCH_MOVIES,
    SEARCH_SIMILAR,
    Flow,
    call,
)
from marquee.client.values import (
    Event,
    EventKind,
    Filters,
    Movie,
    RankedMovies,
    Recommendations,
    Recorded,
    RecordFailure,
    Status,
)
from marquee.errors import InvalidRequest, SpaceNotLoaded
from marquee.v1 import retriever_pb2, user_encoder_pb2

# Limits of one call, from the contract.
_BATCH = 1_000
_TITLES_PAGE = 100
_HISTORY_PAGE = 1_000


def recommend(
    user_id: str = "",
    *,
    events: Sequence[Event] = (),
    likes: Sequence[int] = (),
    dislikes: Sequence[int] = (),
    k: int = 10,
    exclude_seen: bool = True,
    as_of: dt.datetime | None = None,
    allow_cold_start: bool = True,
    request_id: str = "",
    **filters: Unpack[Filters],
) -> Flow[Recommendations]:
    """Recommends the k best movies for a person, known by id, by events, or both.

    `events` are merged with the stored ones; `likes` and `dislikes` are short for events on those movie ids, now.
    `exclude_seen` leaves out every movie that the person has an event on. `as_of` is the moment to recommend for;
    nothing after it is read. `allow_cold_start` answers for a person without events as for anyone new. `request_id`
    is the caller's name for the request; one is made where there is none. `filters` are those of `Filters`.

    Raises UserUnknown for a person without events where `allow_cold_start` is off, InvalidRequest, Unavailable,
    DeadlineExceeded.
    """
    request_id = request_id or uuid.uuid4().hex
    told = [*events, *_events(likes, EventKind.LIKED), *_events(dislikes, EventKind.DISLIKED)]
    encode = requests.encode(user_id, told, as_of, allow_cold_start, request_id)
    search = requests.search(k, filters, request_id)
    try:
        encoded, found = yield from _encode_and_search(encode, search, exclude_seen)
    except SpaceNotLoaded as error:
        encode.space = _loaded_space(error)
        encoded, found = yield from _encode_and_search(encode, search, exclude_seen)
    return answers.recommendations(encoded, found)


def similar(
    movie_ids: Sequence[int],
    *,
    unlike: Sequence[int] = (),
    k: int = 10,
    request_id: str = "",
    **filters: Unpack[Filters],
) -> Flow[RankedMovies]:
    """Finds the k movies nearest to some and away from others; none of either is in the answer.

    `request_id` and `filters` are as in `recommend`. Raises MovieUnknown, InvalidRequest, Unavailable,
    DeadlineExceeded.
    """
    request = requests.similar(movie_ids, unlike, k, filters, request_id or uuid.uuid4().hex)
    return answers.ranked((yield from call(SEARCH_SIMILAR, request)))


def search(title_text: str, *, limit: int = 10) -> Flow[tuple[Movie, ...]]:
    """Finds up to `limit` movies by title, best match first.

    The last word may be unfinished, and a year narrows the search. Raises InvalidRequest, Unavailable,
    DeadlineExceeded.
    """
    if limit < 1:
        raise InvalidRequest(f"limit is {limit}; ask for at least 1 movie", field="limit")
    found: list[Movie] = []
    token = ""
    while True:
        request = requests.search_movies(title_text, min(limit, _TITLES_PAGE), token)
        page = yield from call(SEARCH_MOVIES, request)
        found += map(answers.movie, page.movies)
        token = page.next_page_token
        if len(found) >= limit or not token:
            return tuple(found[:limit])


def movie(movie_id: int | str) -> Flow[Movie]:
    """Reads one movie, by id or by external id ("imdb:tt0078748").

    Raises MovieUnknown, InvalidRequest, Unavailable, DeadlineExceeded.
    """
    return answers.movie((yield from call(GET_MOVIE, requests.get_movie(movie_id))).movie)


def movies(movie_ids: Sequence[int | str]) -> Flow[tuple[Movie | None, ...]]:
    """Reads several movies, by ids or external ids, in their order; None where there is no such movie.

    Raises InvalidRequest, Unavailable, DeadlineExceeded; never MovieUnknown.
    """
    found: list[Movie | None] = []
    for start in range(0, len(movie_ids), _BATCH):
        request = requests.batch_get_movies(movie_ids[start : start + _BATCH])
        found += answers.movies((yield from call(BATCH_GET_MOVIES, request)))
    return tuple(found)


def record(user_id: str, events: Sequence[Event], *, request_id: str = "") -> Flow[Recorded]:
    """Records events of a person and says what became of each; one bad event does not lose the others.

    Events without a time happen now. `request_id` is that of the recommendations that led to the events. After this
    has returned, the next recommendation counts what was recorded. Sent 1,000 at a time: where an error is raised,
    earlier thousands may be in the store, and giving the same events with times again does no harm.

    Raises InvalidRequest, StoreUnavailable, Unavailable, DeadlineExceeded; never for a single event.
    """
    now_ms = requests.clock_ms()
    recorded, failures = 0, list[RecordFailure]()
    for start in range(0, len(events), _BATCH):
        request = requests.record_events(user_id, events[start : start + _BATCH], now_ms, request_id)
        answer = yield from call(RECORD_EVENTS, request)
        recorded += answer.recorded
        failures += answers.failures(answer, start)
    return Recorded(recorded, tuple(failures))


def like(user_id: str, movie_id: int, *, time: dt.datetime | None = None, request_id: str = "") -> Flow[None]:
    """Records that a person likes a movie, at `time` or now; raises what `record` would have reported."""
    yield from _record_one(user_id, Event(movie_id, EventKind.LIKED, time=time), request_id)


def dislike(user_id: str, movie_id: int, *, time: dt.datetime | None = None, request_id: str = "") -> Flow[None]:
    """Records that a person dislikes a movie, at `time` or now; raises what `record` would have reported."""
    yield from _record_one(user_id, Event(movie_id, EventKind.DISLIKED, time=time), request_id)


def rate(
    user_id: str, movie_id: int, stars: float, *, time: dt.datetime | None = None, request_id: str = ""
) -> Flow[None]:
    """Records a person's rating of a movie, 0.5 to 5 stars; raises what `record` would have reported."""
    yield from _record_one(user_id, Event(movie_id, EventKind.RATED, stars, time), request_id)


def history(user_id: str) -> Flow[tuple[Event, ...]]:
    """Reads all events of a person, newest first; what was retracted or replaced is not among them.

    Raises UserUnknown, InvalidRequest, StoreUnavailable, Unavailable, DeadlineExceeded.
    """
    found: list[Event] = []
    token = ""
    while True:
        page = yield from call(GET_HISTORY, requests.get_history(user_id, _HISTORY_PAGE, token))
        found += answers.events(page.events)
        token = page.next_page_token
        if not token:
            return tuple(found)


def status() -> Flow[Status]:
    """Reads what one replica of each service has loaded: with several, those that happen to answer.

    Raises Unavailable, DeadlineExceeded.
    """
    encoder = yield from call(GET_MODEL, user_encoder_pb2.GetModelRequest())
    retriever = yield from call(GET_INDEX, retriever_pb2.GetIndexRequest())
    return Status(answers.replica_state(encoder.state), answers.replica_state(retriever.state))


def _events(movie_ids: Sequence[int], kind: EventKind) -> list[Event]:
    return [Event(movie_id, kind) for movie_id in movie_ids]


def _encode_and_search(
    encode: user_encoder_pb2.EncodeRequest, search: retriever_pb2.SearchRequest, exclude_seen: bool
) -> Flow[tuple[user_encoder_pb2.EncodeResponse, retriever_pb2.SearchResponse]]:
    encoded = yield from call(ENCODE, encode)
    search.vector, search.space = encoded.vector, encoded.space
    search.exclude_packed = encoded.seen if exclude_seen else b""
    return encoded, (yield from call(SEARCH, search))


def _loaded_space(error: SpaceNotLoaded) -> str:
    # Active first: the space that the service would answer in by itself.
    space = error.metadata.get("loaded", "").partition(",")[0].strip()
    if not space:
        raise error
    return space


def _record_one(user_id: str, event: Event, request_id: str) -> Flow[None]:
    recorded = yield from record(user_id, [event], request_id=request_id)
    for failure in islice(recorded.failures, 1):
        raise failure.error
