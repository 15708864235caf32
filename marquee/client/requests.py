"""From Python's values to requests. What a request cannot hold is refused here, before anything is sent."""

from __future__ import annotations

import datetime as dt
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, Unpack

from google.protobuf.field_mask_pb2 import FieldMask

from marquee.client.values import Event, Filters, ListOptions, Person, Quality, SearchOptions
from marquee.errors import InvalidRequest
from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2

T = TypeVar("T", bound=Iterable[object])

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
_ALL_DETAILS = FieldMask(paths=["*"])


@contextmanager
def _sendable() -> Iterator[None]:
    """Turns protobuf's refusal of a value (a number too large for its field, text that is no UTF-8) into ours."""
    try:
        yield
    except ValueError as error:
        raise InvalidRequest(f"the request cannot hold a value that was given: {error}; change that value") from error


@_sendable()
def encode(
    user_id: str, events: Sequence[Event], as_of: dt.datetime | None, allow_cold_start: bool, request_id: str
) -> user_encoder_pb2.EncodeRequest:
    """Builds Encode's request; events without a time happen at `as_of`."""
    as_of_ms = _as_of_ms(as_of)
    return user_encoder_pb2.EncodeRequest(
        user_id=_text("user_id", user_id),
        events=_columns(events, _untimed_ms(as_of_ms)),
        as_of_ms=as_of_ms,
        allow_cold_start=allow_cold_start,
        request_id=request_id,
    )


@_sendable()
def batch_encode(
    as_of: dt.datetime | None, allow_cold_start: bool, request_id: str
) -> user_encoder_pb2.BatchEncodeRequest:
    """Builds BatchEncode's request but for its people."""
    return user_encoder_pb2.BatchEncodeRequest(
        as_of_ms=_as_of_ms(as_of), allow_cold_start=allow_cold_start, request_id=request_id
    )


@_sendable()
def batch_item(person: Person, as_of: dt.datetime | None) -> user_encoder_pb2.BatchEncodeItem:
    """Builds one person of BatchEncode's request."""
    return user_encoder_pb2.BatchEncodeItem(
        user_id=_text("user_id", person.user_id), events=_columns(person.events, _untimed_ms(_as_of_ms(as_of)))
    )


@_sendable()
def explain(
    user_id: str,
    movie_ids: Sequence[int],
    events: Sequence[Event],
    as_of: dt.datetime | None,
    max_events: int,
    request_id: str,
) -> user_encoder_pb2.ExplainRequest:
    """Builds Explain's request."""
    as_of_ms = _as_of_ms(as_of)
    return user_encoder_pb2.ExplainRequest(
        user_id=_text("user_id", user_id),
        movie_ids=movie_ids,
        events=_columns(events, _untimed_ms(as_of_ms)),
        as_of_ms=as_of_ms,
        max_events=max_events,
        request_id=request_id,
    )


@_sendable()
def search(k: int, options: SearchOptions, request_id: str) -> retriever_pb2.SearchRequest:
    """Builds Search's request but for what Encode will answer: vector, space and seen movies."""
    chosen, filters = _split(**options)
    return retriever_pb2.SearchRequest(
        k=_wanted(k), filter=filters, details=_ALL_DETAILS, request_id=request_id, options=chosen
    )


@_sendable()
def batch_query(k: int, options: ListOptions) -> retriever_pb2.BatchSearchQuery:
    """Builds a query of BatchSearch but for what BatchEncode will answer: vector and seen movies."""
    chosen, filters = _split(**options)
    return retriever_pb2.BatchSearchQuery(k=k, filter=filters, options=chosen)


@_sendable()
def similar(
    movie_ids: Sequence[int], unlike: Sequence[int], k: int, options: SearchOptions, request_id: str
) -> retriever_pb2.SearchSimilarRequest:
    """Builds SearchSimilar's request."""
    chosen, filters = _split(**options)
    return retriever_pb2.SearchSimilarRequest(
        movie_ids=movie_ids,
        negative_movie_ids=unlike,
        k=k,
        filter=filters,
        details=_ALL_DETAILS,
        request_id=request_id,
        options=chosen,
    )


@_sendable()
def top_movies(k: int, filters: Filters, request_id: str) -> catalog_pb2.TopMoviesRequest:
    """Builds TopMovies' request."""
    return catalog_pb2.TopMoviesRequest(k=_wanted(k), filter=_movie_filter(**filters), request_id=request_id)


@_sendable()
def get_facets(filters: Filters) -> catalog_pb2.GetFacetsRequest:
    """Builds GetFacets' request."""
    return catalog_pb2.GetFacetsRequest(filter=_movie_filter(**filters))


@_sendable()
def search_movies(query: str, page_size: int, page_token: str) -> catalog_pb2.SearchMoviesRequest:
    """Builds SearchMovies' request."""
    return catalog_pb2.SearchMoviesRequest(query=query, page_size=page_size, page_token=page_token)


@_sendable()
def get_movie(key: int | str) -> catalog_pb2.GetMovieRequest:
    """Builds GetMovie's request from a movie id or an external id."""
    return catalog_pb2.GetMovieRequest(key=_movie_key(key))


@_sendable()
def batch_get_movies(keys: Sequence[int | str]) -> catalog_pb2.BatchGetMoviesRequest:
    """Builds BatchGetMovies' request from movie ids and external ids."""
    return catalog_pb2.BatchGetMoviesRequest(keys=[_movie_key(key) for key in keys])


@_sendable()
def record_events(
    user_id: str, events: Sequence[Event], now_ms: int, led_by: str
) -> live_features_pb2.RecordEventsRequest:
    """Builds RecordEvents' request.

    Events without a time get `now_ms`: without one, a second attempt after a lost answer would record them twice.
    """
    return live_features_pb2.RecordEventsRequest(
        events=[_event(user_id, event, now_ms, led_by, f"events[{index}]") for index, event in enumerate(events)]
    )


@_sendable()
def get_history(user_id: str, page_size: int, page_token: str) -> live_features_pb2.GetHistoryRequest:
    """Builds GetHistory's request."""
    return live_features_pb2.GetHistoryRequest(
        user_id=_text("user_id", user_id), page_size=page_size, page_token=page_token
    )


@_sendable()
def delete_user(user_id: str) -> live_features_pb2.DeleteUserRequest:
    """Builds DeleteUser's request."""
    return live_features_pb2.DeleteUserRequest(user_id=_text("user_id", user_id))


def packed(movie_ids: Iterable[int]) -> bytes:
    """Packs movie ids as Encode answers them in `seen`: int64, little-endian, ascending."""
    ids = array("q", sorted(set(movie_ids)))
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tobytes()


def clock_ms() -> int:
    """Reads the clock, in UTC milliseconds."""
    return time.time_ns() // 1_000_000


def to_ms(moment: dt.datetime, field: str) -> int:
    """Turns a moment into UTC milliseconds; raises InvalidRequest for one without a time zone or not after 1970."""
    if moment.tzinfo is None:
        raise InvalidRequest(
            f"{field} is {moment.isoformat()} without a time zone; give one, for example datetime.now(timezone.utc)",
            field=field,
        )
    milliseconds = (moment - _EPOCH) // _MILLISECOND
    # On the wire 0 means now: the first moment of 1970 must not turn into this one.
    if milliseconds <= 0:
        raise InvalidRequest(f"{field} is {moment.isoformat()}; give a moment after 1970-01-01", field=field)
    return milliseconds


def _as_of_ms(as_of: dt.datetime | None) -> int:
    return 0 if as_of is None else to_ms(as_of, "as_of")


def _untimed_ms(as_of_ms: int) -> int:
    """Says when events without a time happened."""
    # "Now" would lie after a past as_of, and the encoder reads nothing from after it. A future one stays "now".
    return as_of_ms if as_of_ms < clock_ms() else 0


def _columns(events: Sequence[Event], untimed_ms: int) -> types_pb2.EventColumns:
    rated = any(event.stars is not None for event in events)
    return types_pb2.EventColumns(
        movie_ids=[event.movie_id for event in events],
        kinds=[event.kind.value for event in events],
        values=[event.stars or 0.0 for event in events] if rated else (),
        times_ms=[_time_ms(event, untimed_ms, f"events[{index}]") for index, event in enumerate(events)],
    )


def _event(user_id: str, event: Event, now_ms: int, led_by: str, path: str) -> live_features_pb2.Event:
    return live_features_pb2.Event(
        user_id=_text("user_id", user_id),
        movie_id=event.movie_id,
        kind=event.kind.value,
        value=event.stars,
        time_ms=_time_ms(event, now_ms, path),
        request_id=led_by,
    )


def _time_ms(event: Event, untimed_ms: int, path: str) -> int:
    return untimed_ms if event.time is None else to_ms(event.time, f"{path}.time")


def _movie_key(key: int | str) -> catalog_pb2.MovieKey:
    if isinstance(key, str):
        return catalog_pb2.MovieKey(external_id=key)
    return catalog_pb2.MovieKey(movie_id=key)


def _split(
    *,
    min_score: float | None = None,
    quality: Quality = Quality.UNSPECIFIED,
    diversity: float = 0.0,
    max_per_genre: int = 0,
    max_per_director: int = 0,
    vectors: bool = False,
    debug: bool = False,
    **filters: Unpack[Filters],
) -> tuple[retriever_pb2.SearchOptions | None, types_pb2.MovieFilter]:
    """Takes what a list is to be apart from which movies may be in it; None where nothing is asked for."""
    plain = min_score is None and quality is Quality.UNSPECIFIED and not (vectors or debug)
    if plain and not (diversity or max_per_genre or max_per_director):
        return None, _movie_filter(**filters)
    options = retriever_pb2.SearchOptions(
        min_score=min_score,
        quality=quality.value,
        diversity=diversity,
        max_per_genre=max_per_genre,
        max_per_director=max_per_director,
        vectors=vectors,
        debug=debug,
    )
    return options, _movie_filter(**filters)


def _wanted(k: int) -> int:
    # TopMovies would take 0 for 10, and answer where Search refuses.
    if k < 1:
        raise InvalidRequest(f"k is {k}; send 1 to 1000", field="k")
    return k


def _movie_filter(
    *,
    genres: Sequence[str] = (),
    all_genres: Sequence[str] = (),
    without_genres: Sequence[str] = (),
    year_min: int | None = None,
    year_max: int | None = None,
    languages: Sequence[str] = (),
    only: Sequence[int] = (),
    exclude: Sequence[int] = (),
    people: Sequence[str] = (),
    rating_min: float | None = None,
    rating_count_min: int | None = None,
    rating_count_max: int | None = None,
) -> types_pb2.MovieFilter:
    return types_pb2.MovieFilter(
        genres_any=listed("genres", genres),
        genres_all=listed("all_genres", all_genres),
        genres_none=listed("without_genres", without_genres),
        year_min=year_min,
        year_max=year_max,
        languages=listed("languages", languages),
        include_ids=only,
        exclude_ids=exclude,
        people_any=listed("people", people),
        rating_min=rating_min,
        rating_count_min=rating_count_min,
        rating_count_max=rating_count_max,
    )


def listed(name: str, values: T) -> T:
    """Gives back what is a list of texts; raises InvalidRequest for one text."""
    # A text is a sequence of texts to Python: "Comedy" would ask for the genres C, o, m, e, d and y.
    if isinstance(values, str):
        raise InvalidRequest(f"{name} is the text {values!r}; give a list: [{values!r}]", field=name)
    return values


def _text(name: str, value: object) -> str:
    # Protobuf would only say "bad argument type for built-in operation", and user ids are numbers in many a data set.
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {value!r}, which is no text; give {str(value)!r}", field=name)
    return value
