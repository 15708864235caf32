"""What a feature store does, whatever keeps the bytes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from marquee.errors import StoreUnavailable
from marquee.features import MAX_EVENTS, Events, union, union_newer, user_hash

# What happens while a store cannot be read.
MEANWHILE = (
    "people are encoded from what this process remembers and what they send, which their answers say (source, degraded)"
)


class UserWrite(NamedTuple):
    """Holds events to add to one person's history, in the order of arrival.

    `request_ids` has an entry for each event, "" where no request led to it; empty stands for none at all.
    """

    user_id: str
    events: Events
    request_ids: tuple[str, ...] = ()


class Written(NamedTuple):
    """Holds what became of one write: whether it changed the history, and when the person was deleted (0: never).

    Events dated at or before the deletion were refused.
    """

    changed: bool
    deleted_at_ms: int = 0


class ScanPage(NamedTuple):
    """Holds people with their histories, retractions among them; `cursor` is for the next page, "" on the last one.

    `part` is about how much of the store has been read by then, 0 to 1.
    """

    people: list[tuple[str, Events]]
    cursor: str
    part: float


class FeatureStore(Protocol):
    """Keeps one merged history a person.

    A history is what `features.union` leaves: sorted, one event a (movie, kind), retractions kept. It holds the
    newest `features.MAX_EVENTS` of them; older ones go first. Failures are StoreUnavailable.

    `kind` is the store's name in GetModel. `waits`: reads give other calls their turn, so that a timeout can end them;
    where it is False they run on the event loop to their end.
    """

    kind: str
    waits: bool

    def digest(self, user_id: str) -> bytes:
        """Computes the keyed hash of an id, under which its tombstone stands; asks nobody."""

    async def read(self, user_id: str) -> Events:
        """Reads a person's history, with its retractions; empty where there is none."""

    async def read_many(self, user_ids: Sequence[str]) -> list[Events | StoreUnavailable]:
        """Reads several people's histories, in their order; says which could not be read where others could.

        Raises StoreUnavailable where none could.
        """

    async def write(self, writes: Sequence[UserWrite]) -> list[Written | StoreUnavailable]:
        """Adds events; says for each write what became of it. One person's write is stored whole or not at all.

        What has returned as Written is kept and seen by the next read, from any process. Of the same (movie, kind,
        time) the later write wins, so writing an event again changes nothing. Raises StoreUnavailable where nothing
        was written, and DeadlineExceeded where the call that asks has no time left when its turn comes: what has not
        begun by then is not begun.
        """

    async def delete(self, user_id: str, at_ms: int) -> bool:
        """Deletes everything about a person but a tombstone that refuses events dated at or before `at_ms`.

        The tombstone stands under a keyed hash of the id and never moves back. Says whether there was a history. Raises
        as `write` does.
        """

    async def scan(self, cursor: str, limit: int) -> ScanPage:
        """Reads about `limit` people from a cursor on, "" being the first; each stands on one page at least.

        A cursor outlives the process. Raises ValueError for one that `scan` never gave.
        """

    async def watch_deletions(self, forget: Callable[[bytes | None], None]) -> None:
        """Tells of deletions, by whatever process, until cancelled: within about a second, by the `digest` of the id.

        `forget(None)` says that some may have been missed: forget everybody.
        """

    async def aclose(self) -> None:
        """Finishes running writes and releases everything."""


# Events that are united one by one; more are sorted.
_FEW = 8


def add(history: Events, write: UserWrite) -> Events:
    """Adds a write to a person's history, as every store must: `union`, then the newest MAX_EVENTS."""
    events, user = write.events, user_hash(write.user_id)
    # As most writes are. Each event looks through the history, so that many are better sorted into it.
    appends = 0 < events.size <= _FEW and (history.size == 0 or events.times_ms.min() > history.times_ms[-1])
    united = (union_newer if appends else union)(history, events, user)
    return united.take(slice(-MAX_EVENTS, None)) if united.size > MAX_EVENTS else united


def after_deletion(write: UserWrite, deleted_at_ms: int) -> UserWrite:
    """Drops the events of a write that the person's deletion refuses: those dated at or before it."""
    keep = write.events.times_ms > deleted_at_ms
    if deleted_at_ms == 0 or keep.all():
        return write
    return UserWrite(write.user_id, write.events.take(keep), tuple(itertools.compress(write.request_ids, keep)))


def attribute(packed: bytes, write: UserWrite) -> bytes:
    """Adds the request ids of a write to a person's packed attributions, and keeps the newest MAX_EVENTS of them.

    They are JSON: rows of time, movie id, kind and request id, oldest first. Empty stands for none.
    """
    by_event = {tuple(event): request_id for *event, request_id in json.loads(packed or b"[]")}
    columns = (write.events.times_ms.tolist(), write.events.movie_ids.tolist(), write.events.kinds.tolist())
    by_event |= {
        tuple(event): request_id for *event, request_id in zip(*columns, write.request_ids, strict=True) if request_id
    }
    rows = [[*event, request_id] for event, request_id in sorted(by_event.items())]
    return json.dumps(rows[-MAX_EVENTS:], separators=(",", ":"), ensure_ascii=False).encode() if rows else b""


def damaged(what: str) -> StoreUnavailable:
    """Makes the error for bytes that no store wrote."""
    return StoreUnavailable(f"the feature store holds {what}; the store is damaged: restore it from a backup")


# A packed history is four columns, one after the other, little-endian: times, movie ids, values, kinds. Columns, so
# that reading is a view and no copy; the widest first, so that each is aligned.
_EVENT_BYTES = 8 + 8 + 4 + 1


def pack(history: Events) -> bytes:
    """Packs a history into 21 bytes an event; `unpack` reads it."""
    return b"".join(
        (
            history.times_ms.astype("<i8").tobytes(),
            history.movie_ids.astype("<i8").tobytes(),
            history.values.astype("<f4").tobytes(),
            history.kinds.astype("u1").tobytes(),
        )
    )


def unpack(blob: bytes | memoryview) -> Events:
    """Reads what `pack` wrote; the arrays may be read-only views of `blob`."""
    count, rest = divmod(len(blob), _EVENT_BYTES)
    if rest:
        raise damaged(f"a history of {len(blob)} bytes, which is no whole number of events")
    return Events(
        times_ms=np.frombuffer(blob, "<i8", count),
        movie_ids=np.frombuffer(blob, "<i8", count, 8 * count),
        values=np.frombuffer(blob, "<f4", count, 16 * count),
        kinds=np.frombuffer(blob, "u1", count, 20 * count).astype(np.int64),
    )


# A packed person is the packed history, the id in UTF-8, and the id's length in two bytes, little-endian: the history
# comes first, so that its columns stay aligned.
_LENGTH_BYTES = 2


def pack_person(user_id: str, history: Events) -> bytes:
    """Packs a person; `unpack_person` reads it."""
    name = user_id.encode()
    return b"".join((pack(history), name, len(name).to_bytes(_LENGTH_BYTES, "little")))


def unpack_person(blob: bytes | memoryview) -> tuple[str, Events]:
    """Reads what `pack_person` wrote; the arrays may be read-only views of `blob`."""
    view = memoryview(blob)
    end = len(view) - _LENGTH_BYTES
    start = end - int.from_bytes(view[max(end, 0) :], "little")
    if start < 0:
        raise damaged(f"a person of {len(view)} bytes, which is too short")
    return str(view[start:end], "utf-8", "replace"), unpack(view[:start])
