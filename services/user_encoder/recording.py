"""Records what people do: checks each event, and writes the good ones person by person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marquee.errors import InvalidRequest
from marquee.features import Events
from marquee.v1 import live_features_pb2
from services.user_encoder.checks import check_event
from services.user_encoder.stores.base import FeatureStore, UserWrite

# Per movie_id, kind, value, time_ms and request_id.
_Row = tuple[int, int, float, int, str]


async def record(
    store: FeatureStore, events: Sequence[live_features_pb2.Event], now_ms: int
) -> list[InvalidRequest | None]:
    """Records events; says for each why it was refused, None where it is stored.

    Raises StoreUnavailable where the store could not write: then nothing was recorded.
    """
    refusals: list[InvalidRequest | None] = []
    rows_by_user: dict[str, list[_Row]] = {}
    for number, event in enumerate(events):
        refusal = _refusal(event, now_ms, number)
        refusals.append(refusal)
        if refusal is None:
            row = (event.movie_id, event.kind, event.value, event.time_ms or now_ms, event.request_id)
            rows_by_user.setdefault(event.user_id, []).append(row)
    if rows_by_user:
        await store.write([_user_write(user_id, rows) for user_id, rows in rows_by_user.items()])
    return refusals


def _refusal(event: live_features_pb2.Event, now_ms: int, number: int) -> InvalidRequest | None:
    try:
        check_event(event, now_ms, f"events[{number}]")
    except InvalidRequest as error:
        return error
    return None


def _user_write(user_id: str, rows: list[_Row]) -> UserWrite:
    movie_ids, kinds, values, times_ms, request_ids = zip(*rows, strict=True)
    events = Events(
        np.array(movie_ids, np.int64),
        np.array(kinds, np.int64),
        np.array(values, np.float32),
        np.array(times_ms, np.int64),
    )
    return UserWrite(user_id, events, request_ids if any(request_ids) else ())
