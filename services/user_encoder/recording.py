"""Records what people do: checks each event, and writes the good ones person by person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marquee.errors import InvalidRequest, MarqueeError, StoreUnavailable, UserDeleted
from marquee.features import Events
from marquee.v1 import live_features_pb2
from services.user_encoder.checks import check_event
from services.user_encoder.stores.base import FeatureStore, UserWrite, Written


class _Row(NamedTuple):
    """Is one good event; `number` is its place in the request."""

    number: int
    movie_id: int
    kind: int
    value: float
    time_ms: int
    request_id: str


async def record(
    store: FeatureStore, events: Sequence[live_features_pb2.Event], now_ms: int
) -> list[MarqueeError | None]:
    """Records events; says for each why it is not stored, None where it is.

    An event is refused where it is no event, or dated at or before its person's deletion; where the store wrote others
    and not this person's, they come as StoreUnavailable. Raises that where the store could not write: then nothing was
    recorded.
    """
    refusals: list[MarqueeError | None] = []
    rows_by_user: dict[str, list[_Row]] = {}
    for number, event in enumerate(events):
        refusal = _refusal(event, now_ms, number)
        refusals.append(refusal)
        if refusal is None:
            row = _Row(number, event.movie_id, event.kind, event.value, event.time_ms or now_ms, event.request_id)
            rows_by_user.setdefault(event.user_id, []).append(row)
    if rows_by_user:
        written = await store.write([_user_write(user_id, rows) for user_id, rows in rows_by_user.items()])
        for (user_id, rows), one in zip(rows_by_user.items(), written, strict=True):
            for row in rows:
                refusals[row.number] = _not_stored(user_id, row, one)
    return refusals


def _refusal(event: live_features_pb2.Event, now_ms: int, number: int) -> InvalidRequest | None:
    try:
        check_event(event, now_ms, f"events[{number}]")
    except InvalidRequest as error:
        return error
    return None


def _not_stored(user_id: str, row: _Row, one: Written | StoreUnavailable) -> MarqueeError | None:
    if isinstance(one, StoreUnavailable):
        return one
    if row.time_ms > one.deleted_at_ms:
        return None
    field = f"events[{row.number}].time_ms"
    return UserDeleted(
        f"{field} is {row.time_ms}, but user {user_id!r} was deleted at {one.deleted_at_ms}: only later events are "
        "recorded; drop this one",
        field=field,
    )


def _user_write(user_id: str, rows: list[_Row]) -> UserWrite:
    _, movie_ids, kinds, values, times_ms, request_ids = zip(*rows, strict=True)
    events = Events(
        np.array(movie_ids, np.int64),
        np.array(kinds, np.int64),
        np.array(values, np.float32),
        np.array(times_ms, np.int64),
    )
    return UserWrite(user_id, events, request_ids if any(request_ids) else ())
