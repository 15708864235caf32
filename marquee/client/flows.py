"""The methods of the SDK, each written once and without input or output.

A flow is a generator: it yields calls and receives their answers, or their errors at the place of the yield. Where an
answer comes in pages it yields a flow for each page. The classes in `recommender` run flows over a blocking or an
asyncio channel and take their methods' signatures, types and docstrings from here; `deadline_s` is theirs to read: the
seconds that this call may take, or that each page of it may, instead of what the client was made with.
"""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from collections.abc import Sequence
from itertools import islice
from typing import Unpack

from marquee.client import answers, requests
from marquee.client.rpcs import (
    BATCH_GET_MOVIES,
    DELETE_USER,
    ENCODE,
    EXPLAIN,
    GET_FACETS,
    GET_HISTORY,
    GET_INDEX,
    GET_MODEL,
    GET_MOVIE,
    LIST_GENRES,
    RECORD_EVENTS,
    SEARCH,
    SEARCH_MOVIES,
    SEARCH_SIMILAR,
    TOP_MOVIES,
    Call,
    Flow,
    Page,
    Pages,
    call,
)
from marquee.client.values import (
    EncoderState,
    Event,
    EventKind,
    Explanation,
    Facet,
    Facets,
    Filters,
    Forgotten,
    Movie,
    RankedMovies,
    Recommendations,
    Recorded,
    RecordFailure,
    ReplicaState,
    SearchOptions,
    ShortReason,
    Status,
)
from marquee.errors import DeadlineExceeded, InvalidRequest, MarqueeError, Overloaded, SpaceNotLoaded, Unavailable
from marquee.v1 import catalog_pb2, retriever_pb2, types_pb2, user_encoder_pb2

# What is raised where a service does not answer, whatever it was asked.
AWAY = (Unavailable, Overloaded)
# How much of its deadline `recommend` gives the encoder where there is something to answer with without it.
_ENCODERS_PART = 0.7
# How much of what is left each question takes why a list is short, which is there already.
_REASONS_PART = 0.3

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
    fallback: bool = True,
    request_id: str = "",
    deadline_s: float | None = None,
    **options: Unpack[SearchOptions],
) -> Flow[Recommendations]:
    """Recommends the k best movies for a person, known by id, by events, or both.

    `events` are merged with the stored ones; `likes` and `dislikes` are short for events on those movie ids, now.
    `exclude_seen` leaves out every movie that the person has an event on. `as_of` is the moment to recommend for;
    nothing after it is read. `allow_cold_start` answers for a person without events as for anyone new. `fallback`
    answers with the most watched movies that pass the filters where the encoder is away, overloaded, or has not
    answered within 70 % of the deadline; flagged `degraded`, source TOP_MOVIES. `request_id` is the caller's name for
    the request; one is made where there is none. `options` are those of `SearchOptions`, the filters among them.

    Raises UserUnknown for a person without events where `allow_cold_start` is off, InvalidRequest, Unavailable,
    Overloaded, DeadlineExceeded.
    """
    request_id = request_id or uuid.uuid4().hex
    told = _told(events, likes, dislikes)
    encode = requests.encode(user_id, told, as_of, allow_cold_start, request_id)
    search = requests.search(k, options, request_id)
    try:
        encoded = yield from call(ENCODE, encode, _ENCODERS_PART if fallback else 1.0)
    except (*AWAY, DeadlineExceeded) as away:
        if not fallback:
            raise
        seen = requests.packed(event.movie_id for event in told) if exclude_seen else b""
        found = yield from _most_watched(search, seen, away)
        reason = yield from _why_short(search, len(found.movies))
        return answers.most_watched(found, reason, as_of or dt.datetime.now(dt.UTC), away)
    try:
        return answers.recommendations(encoded, (yield from _search(search, encoded, exclude_seen)))
    except SpaceNotLoaded as error:
        encode.space = loaded_space(error)
        encoded = yield from call(ENCODE, encode)
        return answers.recommendations(encoded, (yield from _search(search, encoded, exclude_seen)))


def similar(
    movie_ids: Sequence[int],
    *,
    unlike: Sequence[int] = (),
    k: int = 10,
    request_id: str = "",
    deadline_s: float | None = None,
    **options: Unpack[SearchOptions],
) -> Flow[RankedMovies]:
    """Finds the k movies nearest to some and away from others; none of either is in the answer.

    `request_id` and `options` are as in `recommend`. Raises MovieUnknown, InvalidRequest, Unavailable, Overloaded,
    DeadlineExceeded.
    """
    request = requests.similar(movie_ids, unlike, k, options, request_id or uuid.uuid4().hex)
    return answers.ranked((yield from call(SEARCH_SIMILAR, request)))


def explain(
    user_id: str,
    movie_ids: Sequence[int],
    *,
    events: Sequence[Event] = (),
    likes: Sequence[int] = (),
    dislikes: Sequence[int] = (),
    as_of: dt.datetime | None = None,
    max_events: int = 50,
    request_id: str = "",
    deadline_s: float | None = None,
) -> Flow[Explanation]:
    """Says which of a person's events speak for and against up to 100 movies.

    `user_id` may be "" where `events` say it all; the person's events are those that `recommend` would read, and the
    newest `max_events` of them are explained. Runs the tower once for each of them: it is slower than `recommend`.

    Raises UserUnknown for a person without events, InvalidRequest, StoreUnavailable, Unavailable, Overloaded,
    DeadlineExceeded.
    """
    told = _told(events, likes, dislikes)
    request = requests.explain(user_id, movie_ids, told, as_of, max_events, request_id or uuid.uuid4().hex)
    return answers.explanation((yield from call(EXPLAIN, request)))


def top(
    *, k: int = 10, request_id: str = "", deadline_s: float | None = None, **filters: Unpack[Filters]
) -> Flow[tuple[Movie, ...]]:
    """Lists the k most watched movies that pass the filters, the same for everybody.

    Raises InvalidRequest, Unavailable, Overloaded, DeadlineExceeded.
    """
    found = yield from call(TOP_MOVIES, requests.top_movies(k, filters, request_id))
    return tuple(map(answers.movie, found.movies))


def genres(*, deadline_s: float | None = None) -> Flow[tuple[Facet, ...]]:
    """Lists the catalogue's genres with their numbers of movies, largest first.

    Raises Unavailable, Overloaded, DeadlineExceeded.
    """
    return answers.facet_list((yield from call(LIST_GENRES, catalog_pb2.ListGenresRequest())).genres)


def facets(*, deadline_s: float | None = None, **filters: Unpack[Filters]) -> Flow[Facets]:
    """Counts the movies that pass the filters, by genre, decade and language.

    Raises InvalidRequest, Unavailable, Overloaded, DeadlineExceeded.
    """
    return answers.facets((yield from call(GET_FACETS, requests.get_facets(filters))))


def search(title_text: str, *, limit: int | None = 10, deadline_s: float | None = None) -> Pages[Movie]:
    """Finds movies by title, best match first: up to `limit`, or all of them where that is None.

    The last word may be unfinished, and a year narrows the search. An iterator that asks for a page when it needs one.
    Raises InvalidRequest, Unavailable, Overloaded, DeadlineExceeded.
    """
    if limit is not None and limit < 1:
        raise InvalidRequest(f"limit is {limit}; ask for at least 1 movie", field="limit")
    left, token = sys.maxsize if limit is None else limit, ""
    size = min(left, _TITLES_PAGE)
    while left:
        page = yield _titles(title_text, size, left, token)
        left, token = left - len(page.items), page.next_token
        if not token:
            return


def _titles(title_text: str, size: int, most: int, token: str) -> Flow[Page[Movie]]:
    answer = yield from call(SEARCH_MOVIES, requests.search_movies(title_text, size, token))
    return Page(tuple(map(answers.movie, answer.movies[:most])), answer.next_page_token)


def movie(movie_id: int | str, *, deadline_s: float | None = None) -> Flow[Movie]:
    """Reads one movie, by id or by external id ("imdb:tt0078748").

    Raises MovieUnknown, InvalidRequest, Unavailable, DeadlineExceeded.
    """
    return answers.movie((yield from call(GET_MOVIE, requests.get_movie(movie_id))).movie)


def movies(movie_ids: Sequence[int | str], *, deadline_s: float | None = None) -> Flow[tuple[Movie | None, ...]]:
    """Reads several movies, by ids or external ids, in their order; None where there is no such movie.

    Raises InvalidRequest, Unavailable, DeadlineExceeded; never MovieUnknown.
    """
    found: list[Movie | None] = []
    for start in range(0, len(movie_ids), _BATCH):
        request = requests.batch_get_movies(movie_ids[start : start + _BATCH])
        found += answers.movies((yield from call(BATCH_GET_MOVIES, request)))
    return tuple(found)


def record(
    user_id: str, events: Sequence[Event], *, request_id: str = "", deadline_s: float | None = None
) -> Flow[Recorded]:
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


def like(
    user_id: str,
    movie_id: int,
    *,
    time: dt.datetime | None = None,
    request_id: str = "",
    deadline_s: float | None = None,
) -> Flow[None]:
    """Records that a person likes a movie, at `time` or now; raises what `record` would have reported."""
    yield from _record_one(user_id, Event(movie_id, EventKind.LIKED, time=time), request_id)


def dislike(
    user_id: str,
    movie_id: int,
    *,
    time: dt.datetime | None = None,
    request_id: str = "",
    deadline_s: float | None = None,
) -> Flow[None]:
    """Records that a person dislikes a movie, at `time` or now; raises what `record` would have reported."""
    yield from _record_one(user_id, Event(movie_id, EventKind.DISLIKED, time=time), request_id)


def rate(
    user_id: str,
    movie_id: int,
    stars: float,
    *,
    time: dt.datetime | None = None,
    request_id: str = "",
    deadline_s: float | None = None,
) -> Flow[None]:
    """Records a person's rating of a movie, 0.5 to 5 stars; raises what `record` would have reported."""
    yield from _record_one(user_id, Event(movie_id, EventKind.RATED, stars, time), request_id)


def retract(
    user_id: str,
    movie_id: int,
    *,
    time: dt.datetime | None = None,
    request_id: str = "",
    deadline_s: float | None = None,
) -> Flow[None]:
    """Takes back every event of a person on a movie dated up to `time` or now; raises what `record` would have."""
    yield from _record_one(user_id, Event(movie_id, EventKind.RETRACTED, time=time), request_id)


def history(user_id: str, *, deadline_s: float | None = None) -> Pages[Event]:
    """Reads all events of a person, newest first; what was retracted or replaced is not among them.

    An iterator that asks for a page when it needs one. Raises UserUnknown, InvalidRequest, StoreUnavailable,
    Unavailable, Overloaded, DeadlineExceeded.
    """
    token, more = "", True
    while more:
        page = yield _history_page(user_id, token)
        token, more = page.next_token, bool(page.next_token)


def _history_page(user_id: str, token: str) -> Flow[Page[Event]]:
    answer = yield from call(GET_HISTORY, requests.get_history(user_id, _HISTORY_PAGE, token))
    return Page(tuple(answers.events(answer.events)), answer.next_page_token)


def forget(user_id: str, *, deadline_s: float | None = None) -> Flow[Forgotten]:
    """Deletes everything about a person, for good: events dated up to now are refused from then on.

    Again is no error. Raises InvalidRequest, StoreUnavailable, Unavailable, Overloaded, DeadlineExceeded; after an
    error nothing or not all may be deleted: call it again.
    """
    return answers.forgotten((yield from call(DELETE_USER, requests.delete_user(user_id))))


def status(*, deadline_s: float | None = None) -> Flow[Status]:
    """Reads what one replica of each service has loaded: with several, those that happen to answer.

    Raises Unavailable, DeadlineExceeded.
    """
    encoder = yield from encoder_state()
    return Status(encoder, (yield from retriever_state()))


def encoder_state(*, deadline_s: float | None = None) -> Flow[EncoderState]:
    """Reads what one encoder has loaded, and how its store is. Raises Unavailable, DeadlineExceeded."""
    return answers.encoder_state((yield from call(GET_MODEL, user_encoder_pb2.GetModelRequest())))


def retriever_state(*, deadline_s: float | None = None) -> Flow[ReplicaState]:
    """Reads what one retriever has loaded. Raises Unavailable, DeadlineExceeded."""
    return answers.replica_state((yield from call(GET_INDEX, retriever_pb2.GetIndexRequest())).state)


def loaded_space(error: SpaceNotLoaded) -> str:
    """Says which space to encode in instead; raises the error itself where none is loaded."""
    # Active first: the space that the service would answer in by itself.
    space = error.metadata.get("loaded", "").partition(",")[0].strip()
    if not space:
        raise error
    return space


def _told(events: Sequence[Event], likes: Sequence[int], dislikes: Sequence[int]) -> list[Event]:
    liked = (Event(movie_id, EventKind.LIKED) for movie_id in likes)
    return [*events, *liked, *(Event(movie_id, EventKind.DISLIKED) for movie_id in dislikes)]


def _search(
    search: retriever_pb2.SearchRequest, encoded: user_encoder_pb2.EncodeResponse, exclude_seen: bool
) -> Flow[retriever_pb2.SearchResponse]:
    search.vector, search.space = encoded.vector, encoded.space
    search.exclude_packed = encoded.seen if exclude_seen else b""
    return (yield from call(SEARCH, search))


def _most_watched(
    search: retriever_pb2.SearchRequest, seen: bytes, away: MarqueeError
) -> Flow[catalog_pb2.TopMoviesResponse]:
    """Asks for what is most watched under the filters of a search; raises why, where that cannot be had either."""
    request = catalog_pb2.TopMoviesRequest(
        k=search.k, filter=search.filter, exclude_packed=seen, request_id=search.request_id
    )
    try:
        return (yield from call(TOP_MOVIES, request))
    except InvalidRequest:
        raise
    except MarqueeError as error:
        raise away from error


def _why_short(search: retriever_pb2.SearchRequest, found: int) -> Flow[ShortReason]:
    """Says why so few are the most watched; UNSPECIFIED also where that cannot be found out soon.

    As Search would, but for movies of the block list, which Search counts as EXCLUDED: they are in no count here, so
    that for want of them it is CATALOG or FILTER.
    """
    if found >= search.k:
        return ShortReason.UNSPECIFIED
    passing = types_pb2.MovieFilter()
    passing.CopyFrom(search.filter)
    passing.ClearField("exclude_ids")
    try:
        for reason, those in ((ShortReason.CATALOG, types_pb2.MovieFilter()), (ShortReason.FILTER, passing)):
            # Not made again: there is a list, and it is not to wait.
            counted = yield Call(GET_FACETS, catalog_pb2.GetFacetsRequest(filter=those), part=_REASONS_PART)
            if counted.movies < search.k:
                return reason
    except MarqueeError:
        # There is a list, and it is not to be lost for this.
        return ShortReason.UNSPECIFIED
    return ShortReason.EXCLUDED


def _record_one(user_id: str, event: Event, request_id: str) -> Flow[None]:
    recorded = yield from record(user_id, [event], request_id=request_id)
    for failure in islice(recorded.failures, 1):
        raise failure.error
