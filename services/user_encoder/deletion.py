"""Deletes people for good."""

from __future__ import annotations

from typing import NamedTuple

from marquee.errors import StoreUnavailable
from marquee.features import MAX_FUTURE_MS
from services.user_encoder.stores.base import FeatureStore


class Deleted(NamedTuple):
    """Says what was deleted: events dated at or before `at_ms` are refused; `existed`: there were some."""

    at_ms: int
    existed: bool


async def delete_user(store: FeatureStore, user_id: str, now_ms: int) -> Deleted:
    """Deletes everything about a person; raises StoreUnavailable where not all of it may be gone.

    What was recorded is refused when it is sent again, also what a faster clock had dated ahead of this one.
    """
    at_ms = max(now_ms, await _newest_ms(store, user_id, now_ms))
    return Deleted(at_ms, await store.delete(user_id, at_ms))


async def _newest_ms(store: FeatureStore, user_id: str, now_ms: int) -> int:
    try:
        history = await store.read(user_id)
    except StoreUnavailable:
        # A history that is damaged can be deleted too. None holds a later event than this.
        return now_ms + MAX_FUTURE_MS
    return int(history.times_ms[-1]) if history.size else 0
