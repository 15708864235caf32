"""From Python's values to requests. What a request cannot hold is refused here, before anything is sent."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from google.protobuf.field_mask_pb2 import FieldMask

from marquee.client.values import Event, Filters
from marquee.errors import InvalidRequest
from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2

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
    as_of_ms = 0 if as_of is None else to_ms(as_of, "as_of")
    return user_encoder_pb2.EncodeRequest(
        user_id=_text("user_id", user_id),
        # "Now" would lie after a past as_of, and the encoder reads nothing from after it. A future one stays "now".
        events=_columns(events, as_of_ms if as_of_ms < clock_ms() else 0),
        as_of_ms=as_of_ms,
        allow_cold_start=allow_cold_start,
        request_id=request_id,
    )


@_sendable()
def search(k: int, filters: Filters, request_id: str) -> retriever_pb2.SearchRequest:
    """Builds Search's request but for what Encode will answer: vector, space and seen movies."""
    return retriever_pb2.SearchRequest(
        k=k, filter=_movie_filter(**filters), details=_ALL_DETAILS, request_id=request_id
    )


@_sendable()
def similar(
    movie_ids: Sequence[int], unlike: Sequence[int], k: int, filters: Filters, request_id: str
) -> retriever_pb2.SearchSimilarRequest:
    """Builds SearchSimilar's request."""
    return retriever_pb2.SearchSimilarRequest(
        movie_ids=movie_ids,
        negative_movie_ids=unlike,
        k=k,
        filter=_movie_filter(**filters),
        details=_ALL_DETAILS,
        request_id=request_id,
    )


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
        genres_any=_texts("genres", genres),
        genres_all=_texts("all_genres", all_genres),
        genres_none=_texts("without_genres", without_genres),
        year_min=year_min,
        year_max=year_max,
        languages=_texts("languages", languages),
        include_ids=only,
        exclude_ids=exclude,
        people_any=_texts("people", people),
        rating_min=rating_min,
        rating_count_min=rating_count_min,
        rating_count_max=rating_count_max,
    )


def _texts(name: str, values: Sequence[str]) -> Sequence[str]:
    # A text is a sequence of texts to Python: "Comedy" would ask for the genres C, o, m, e, d and y.
    if isinstance(values, str):
        raise InvalidRequest(f"{name} is the text {values!r}; give a list: [{values!r}]", field=name)
    return values


def _text(name: str, value: object) -> str:
    # Protobuf would only say "bad argument type for built-in operation", and user ids are numbers in many a data set.
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {value!r}, which is no text; give {str(value)!r}", field=name)
    return value
