"""Reads what callers send: each function returns checked values or raises InvalidRequest with the field's path.

`path` is where in the request a message stands, for example "events" or "items[2].events".
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.errors import InvalidRequest
from marquee.features import (
    KINDS,
    MAX_EVENTS,
    MAX_FUTURE_MS,
    MAX_RATING,
    MIN_RATING,
    NO_EVENTS,
    RATED,
    Events,
    Floats,
    Int64s,
)
from marquee.v1 import live_features_pb2, types_pb2
from services.common.requests import MAX_REQUEST_ID_BYTES
from services.user_encoder.packed import Packed, integers, pack

MAX_USER_ID_BYTES = 256
MAX_EXPLAINED = 100
DEFAULT_LEFT_OUT, MAX_LEFT_OUT = 50, 1000

_RATING_RANGE = f"{MIN_RATING:g} to {MAX_RATING:g} stars"


def check_user_id(user_id: str, field: str) -> None:
    """Raises InvalidRequest unless the id is 1 to 256 bytes of UTF-8 without control characters."""
    if not user_id:
        raise InvalidRequest(f"{field} is empty; name the person", field=field)
    # A character takes at most 4 bytes: most ids need no encoding to be short enough.
    if len(user_id) > MAX_USER_ID_BYTES // 4 and len(user_id.encode()) > MAX_USER_ID_BYTES:
        raise InvalidRequest(f"{field} is longer than {MAX_USER_ID_BYTES} bytes", field=field)
    if not user_id.isprintable() and any(unicodedata.category(char) == "Cc" for char in user_id):
        raise InvalidRequest(f"{field} has a control character; send the id without it", field=field)


def check_count(count: int, most: int, field: str) -> None:
    """Raises InvalidRequest unless a repeated field has 1 to `most` entries."""
    if not 1 <= count <= most:
        raise InvalidRequest(f"{field} has {count} entries; send 1 to {most:,}", field=field)


def read_size(size: int, default: int, most: int, field: str) -> int:
    """Reads how many of something to answer with: 1 to `most`, 0 being the default."""
    if not 0 <= size <= most:
        raise InvalidRequest(f"{field} is {size}; send 1 to {most:,}, or 0 for {default}", field=field)
    return size or default


def read_as_of(as_of_ms: int, now_ms: int) -> int:
    """Reads the moment that ages are measured from; 0 is now."""
    if as_of_ms < 0:
        raise InvalidRequest(
            f"as_of_ms is {as_of_ms}; send UTC milliseconds since 1970, or 0 for now", field="as_of_ms"
        )
    return as_of_ms or now_ms


def read_events(columns: types_pb2.EventColumns, now_ms: int, path: str) -> Events:
    """Reads event columns into arrays, with their times filled in."""
    count = _check_lengths(columns, path)
    if count == 0:
        return NO_EVENTS
    movie_ids = np.fromiter(columns.movie_ids, np.int64, count)
    kinds = np.fromiter(columns.kinds, np.int64, count)
    _check_movies(movie_ids, f"{path}.movie_ids")
    _check_kinds(kinds, path)
    values = _read_values(columns, kinds, path)
    times_ms = _read_times(columns, count, now_ms, path)
    return Events(movie_ids, kinds, values, times_ms)


class Sent(NamedTuple):
    """Holds event columns as they came, when they came, and where in their request they stand."""

    columns: types_pb2.EventColumns
    now_ms: int
    path: str


def read_many(many: Sequence[Sent]) -> list[Events | InvalidRequest]:
    """Reads and checks what many people sent, as `read_events` does: says of each what is wrong, or its events.

    All at once, because a numpy call costs much the same for 1,500 events as for 50; whoever is not all right is then
    read alone, and told.
    """
    packed = [pack(one.columns) if _are_alike(one.columns) else None for one in many]
    sizes = [0 if each is None else len(one.columns.movie_ids) for one, each in zip(many, packed, strict=True)]
    flat, good_n = _read_flat(packed, sizes, [one.now_ms for one in many])
    ends = list(itertools.accumulate(sizes))
    bad = set(np.searchsorted(ends, np.flatnonzero(~good_n), "right").tolist())
    return [
        _read_alone(one) if packed[at] is None or at in bad else flat.take(slice(ends[at] - sizes[at], ends[at]))
        for at, one in enumerate(many)
    ]


def _are_alike(columns: types_pb2.EventColumns) -> bool:
    count = len(columns.movie_ids)
    return (
        count <= MAX_EVENTS
        and len(columns.kinds) == count
        and len(columns.values) in (0, count)
        and len(columns.times_ms) in (0, count)
    )


def _read_flat(
    packed: Sequence[Packed | None], sizes: Sequence[int], now_ms: Sequence[int]
) -> tuple[Events, npt.NDArray[np.bool_]]:
    """Reads columns of equal lengths, one person's after another's, and marks the good events."""
    if not any(sizes):
        return NO_EVENTS, np.zeros(0, bool)
    full = [(each, size) for each, size in zip(packed, sizes, strict=True) if each and size]
    now_n = np.repeat(np.array(now_ms, np.int64), sizes)
    events = Events(
        integers(b"".join([each.movie_ids for each, _ in full])),
        integers(b"".join([each.kinds for each, _ in full])),
        # Of a column that was left out every entry is 0: four bytes of a float, one of an integer.
        np.frombuffer(b"".join([each.values or bytes(4 * size) for each, size in full]), "<f4"),
        integers(b"".join([each.times_ms or bytes(size) for each, size in full])),
    )
    good_n = (events.movie_ids > 0) & _good_kinds(events.kinds) & _good_values(events.values, events.kinds == RATED)
    good_n &= _good_times(events.times_ms, now_n + MAX_FUTURE_MS)
    np.copyto(events.times_ms, now_n, where=events.times_ms == 0)
    return events, good_n


def _read_alone(one: Sent) -> Events | InvalidRequest:
    try:
        return read_events(*one)
    except InvalidRequest as error:
        return error


def _check_lengths(columns: types_pb2.EventColumns, path: str) -> int:
    count = len(columns.movie_ids)
    if count > MAX_EVENTS:
        field = f"{path}.movie_ids"
        raise InvalidRequest(f"{field} has {count} entries; send the newest {MAX_EVENTS} events", field=field)
    lengths = (("kinds", len(columns.kinds)), ("values", len(columns.values)), ("times_ms", len(columns.times_ms)))
    for name, length in lengths:
        if length != count and (length or name == "kinds"):
            field = f"{path}.{name}"
            raise InvalidRequest(
                f"{field} has {length} entries, {path}.movie_ids {count}; entry i of every column is event i",
                field=field,
            )
    return count


def _check_movies(movie_ids: Int64s, path: str) -> None:
    good = movie_ids > 0
    if not good.all():
        at = _first(~good)
        field = f"{path}[{at}]"
        raise InvalidRequest(f"{field} is {movie_ids[at]}; movie ids are positive", field=field)


def _check_kinds(kinds: Int64s, path: str) -> None:
    good = _good_kinds(kinds)
    if not good.all():
        at = _first(~good)
        field = f"{path}.kinds[{at}]"
        raise InvalidRequest(f"{field} is {kinds[at]}; {_no_kind(int(kinds[at]))}", field=field)


def _good_kinds(kinds: Int64s) -> npt.NDArray[np.bool_]:
    return (kinds > 0) & (kinds < KINDS)


def _no_kind(kind: int) -> str:
    if kind == 0:
        return "EVENT_KIND_UNSPECIFIED is not a kind: say what the person did"
    return f"this server knows the kinds 1 to {KINDS - 1}"


def _read_values(columns: types_pb2.EventColumns, kinds: Int64s, path: str) -> Floats:
    rated = kinds == RATED
    if not columns.values:
        if rated.any():
            raise InvalidRequest(
                f"{path}.values is empty, but {path}.kinds[{_first(rated)}] is RATED; send the stars of every RATED "
                "event and 0 for the others",
                field=f"{path}.values",
            )
        return np.zeros(len(kinds), np.float32)
    values = np.fromiter(columns.values, np.float32, len(kinds))
    good = _good_values(values, rated)
    if not good.all():
        at = _first(~good)
        rule = f"a rating is {_RATING_RANGE}" if rated[at] else f"only RATED has a value, {_kind_name(kinds[at])} has 0"
        field = f"{path}.values[{at}]"
        raise InvalidRequest(f"{field} is {values[at]:g}; {rule}", field=field)
    return values


def _good_values(values: Floats, rated: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    # Comparisons with NaN are false, so that it is refused everywhere.
    return np.where(rated, (values >= MIN_RATING) & (values <= MAX_RATING), values == 0)


def _read_times(columns: types_pb2.EventColumns, count: int, now_ms: int, path: str) -> Int64s:
    if not columns.times_ms:
        return np.full(count, now_ms, np.int64)
    times_ms = np.fromiter(columns.times_ms, np.int64, count)
    good = _good_times(times_ms, now_ms + MAX_FUTURE_MS)
    if not good.all():
        at = _first(~good)
        raise _bad_time(int(times_ms[at]), f"{path}.times_ms[{at}]")
    times_ms[times_ms == 0] = now_ms
    return times_ms


def _good_times(times_ms: Int64s, latest_ms: Int64s | int) -> npt.NDArray[np.bool_]:
    return (times_ms >= 0) & (times_ms <= latest_ms)


def _bad_time(time_ms: int, field: str) -> InvalidRequest:
    if time_ms < 0:
        return InvalidRequest(f"{field} is {time_ms}; send UTC milliseconds since 1970, or 0 for now", field=field)
    return InvalidRequest(
        f"{field} is {time_ms}, more than 5 minutes ahead of the server's clock; send UTC milliseconds (not micro- or "
        "nanoseconds), and see that the caller's clock is right",
        field=field,
    )


def read_movie_ids(movie_ids: Sequence[int]) -> Int64s:
    """Reads the movies to explain: 1 to 100, each once."""
    check_count(len(movie_ids), MAX_EXPLAINED, "movie_ids")
    read = np.array(movie_ids, np.int64)
    _check_movies(read, "movie_ids")
    places: dict[int, int] = {}
    for at, movie_id in enumerate(movie_ids):
        first = places.setdefault(movie_id, at)
        if first != at:
            field = f"movie_ids[{at}]"
            raise InvalidRequest(f"{field} is {movie_id} as movie_ids[{first}] is; send each movie once", field=field)
    return read


def _first(mask: npt.NDArray[np.bool_]) -> int:
    return int(mask.argmax())


def _kind_name(kind: int) -> str:
    return types_pb2.EventKind.Name(types_pb2.EventKind.ValueType(kind)).removeprefix("EVENT_KIND_")


def check_event(event: live_features_pb2.Event, now_ms: int, path: str) -> None:
    """Raises InvalidRequest unless an event may be recorded."""
    check_user_id(event.user_id, f"{path}.user_id")
    if event.movie_id <= 0:
        field = f"{path}.movie_id"
        raise InvalidRequest(f"{field} is {event.movie_id}; movie ids are positive", field=field)
    if not 0 < event.kind < KINDS:
        field = f"{path}.kind"
        raise InvalidRequest(f"{field} is {event.kind}; {_no_kind(event.kind)}", field=field)
    _check_value(event, f"{path}.value")
    if not 0 <= event.time_ms <= now_ms + MAX_FUTURE_MS:
        raise _bad_time(event.time_ms, f"{path}.time_ms")
    if len(event.request_id.encode()) > MAX_REQUEST_ID_BYTES:
        field = f"{path}.request_id"
        raise InvalidRequest(f"{field} is longer than {MAX_REQUEST_ID_BYTES} bytes", field=field)


def _check_value(event: live_features_pb2.Event, field: str) -> None:
    if event.kind != RATED:
        if event.HasField("value"):
            raise InvalidRequest(
                f"{field} is set; only RATED has a value, {_kind_name(event.kind)} has none", field=field
            )
    elif not event.HasField("value"):
        raise InvalidRequest(f"{field} is not set; a RATED event has its rating, {_RATING_RANGE}", field=field)
    elif not MIN_RATING <= event.value <= MAX_RATING:
        raise InvalidRequest(f"{field} is {event.value:g}; a rating is {_RATING_RANGE}", field=field)
