"""A person's events a page at a time, newest first."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import NamedTuple

import numpy as np

from marquee.errors import InvalidRequest, UserUnknown
from marquee.features import Events, Int64s, current, tie_hash, user_hash
from services.user_encoder.checks import read_size

DEFAULT_PAGE, MAX_PAGE = 100, 1000


class Page(NamedTuple):
    """Holds one page, newest first; `next_token` is "" on the last one, `total` counts all of the person's events."""

    events: Events
    next_token: str
    total: int


class _Mark(NamedTuple):
    """Names the last event of a page. The next page starts with what sorts before it.

    The event's own sort key and no position: events that are added meanwhile move no page.
    """

    version: int
    user: int
    time_ms: int
    movie_id: int
    kind: int


_MARK = struct.Struct("<BQqqB")
_MARK_VERSION = 1


def page_of(history: Events, user_id: str, page_size: int, token: str) -> Page:
    """Cuts one page out of a stored history.

    Raises InvalidRequest for a token that this person's pages never gave, and UserUnknown where no event holds.
    """
    size = read_size(page_size, DEFAULT_PAGE, MAX_PAGE, "page_size")
    merged = current(history)
    if merged.size == 0:
        raise UserUnknown(f"user {user_id!r} has no stored events; record some first")
    user = user_hash(user_id)
    end = _position(merged, _read_token(token, user)) if token else merged.size
    start = max(0, end - size)
    next_token = _write_token(merged, start, user) if start else ""
    return Page(merged.take(slice(start, end)).take(slice(None, None, -1)), next_token, merged.size)


def _position(merged: Events, mark: _Mark) -> int:
    """Counts the events that sort before the mark."""
    ties = tie_hash(mark.user, merged.movie_ids)
    tie = tie_hash(mark.user, _one(mark.movie_id))[0]
    same_time = merged.times_ms == mark.time_ms
    before = (ties < tie) | ((ties == tie) & (merged.kinds < mark.kind))
    return int(np.count_nonzero((merged.times_ms < mark.time_ms) | (same_time & before)))


def _one(movie_id: int) -> Int64s:
    return np.array([movie_id], np.int64)


def _write_token(merged: Events, at: int, user: int) -> str:
    mark = _Mark(_MARK_VERSION, user, int(merged.times_ms[at]), int(merged.movie_ids[at]), int(merged.kinds[at]))
    return base64.urlsafe_b64encode(_MARK.pack(*mark)).decode()


def _read_token(token: str, user: int) -> _Mark:
    try:
        mark = _Mark(*_MARK.unpack(base64.b64decode(token.encode(), altchars=b"-_", validate=True)))
    except (binascii.Error, struct.error):
        raise _bad_token() from None
    if (mark.version, mark.user) != (_MARK_VERSION, user):
        raise _bad_token()
    return mark


def _bad_token() -> InvalidRequest:
    return InvalidRequest(
        "page_token is not one that this person's pages gave; send next_page_token unchanged, or nothing for the "
        "first page",
        field="page_token",
    )
