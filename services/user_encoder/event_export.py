"""Everybody's events as Parquet, a page of people at a time: what training reads as exported events."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import struct
from collections.abc import Callable, Iterable, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marquee.errors import DataError, InvalidRequest, Unavailable
from marquee.features import Events, current, join
from marquee.v1 import types_pb2
from services.user_encoder.checks import read_size
from services.user_encoder.stores.base import FeatureStore

DEFAULT_PAGE, MAX_PAGE = 500, 1000
# Events after which a page ends: two megabytes, and some tens while it is made.
_PAGE_EVENTS = 100_000
# People who are read at once, with up to 10,000 events each.
_PAGE_STEP = 10

# By EventKind's numbers.
_KINDS = [types_pb2.EventKind.Name(kind).removeprefix("EVENT_KIND_") for kind in types_pb2.EventKind.values()]
_TOKEN = struct.Struct("<Bq")
_TOKEN_VERSION = 1


class People(NamedTuple):
    """Holds people and the events that are wanted of them, one at least each.

    `cursor` is where the next ones are, `part` about how much of the store has been read by then, 0 to 1.
    """

    user_ids: list[str]
    histories: list[Events]
    cursor: str
    part: float

    @property
    def events(self) -> int:
        """Counts the events."""
        return sum(history.size for history in self.histories)


class ExportPage(NamedTuple):
    """Holds a page as Parquet, b"" where nobody's events are wanted; `next_token` is "" on the last one."""

    parquet: bytes
    next_token: str
    users: int
    events: int


async def export_page(store: FeatureStore, since_ms: int, page_size: int, token: str) -> ExportPage:
    """Reads a page of people as Parquet, without events dated before `since_ms`.

    Raises InvalidRequest, also for a token that no page gave.
    """
    if since_ms < 0:
        raise InvalidRequest(f"since_ms is {since_ms}; send UTC milliseconds since 1970, or 0", field="since_ms")
    size = read_size(page_size, DEFAULT_PAGE, MAX_PAGE, "page_size")
    cursor = _read_token(token, since_ms) if token else ""
    try:
        people = await read_people(store, cursor, since_ms, size, _PAGE_EVENTS, _PAGE_STEP)
    except ValueError as error:
        raise _bad_token() from error
    parquet = await asyncio.to_thread(_parquet_bytes, people) if people.user_ids else b""
    next_token = _write_token(people.cursor, since_ms) if people.cursor else ""
    return ExportPage(parquet, next_token, len(people.user_ids), people.events)


async def read_people(
    store: FeatureStore, cursor: str, since_ms: int, most_people: int, most_events: int, step: int
) -> People:
    """Reads people from a cursor on, `step` at once, until about so many have been read, or have so many events.

    Leaves out what was retracted, events dated before `since_ms`, and people of whom nothing is left.
    """
    user_ids: list[str] = []
    histories: list[Events] = []
    read = events = 0
    while True:
        page = await store.scan(cursor, min(step, most_people - read))
        for user_id, history in page.people:
            wanted = _wanted(history, since_ms)
            if wanted.size:
                user_ids.append(user_id)
                histories.append(wanted)
                events += wanted.size
        read += len(page.people)
        cursor = page.cursor
        if not cursor or read >= most_people or events >= most_events:
            return People(user_ids, histories, cursor, page.part)


def _wanted(history: Events, since_ms: int) -> Events:
    held = current(history)
    # Oldest first.
    return held.take(slice(int(np.searchsorted(held.times_ms, since_ms)), None)) if since_ms else held


def write_parquet(people: People, target: Path | io.BytesIO) -> None:
    """Writes people's events as a Parquet file with the columns user_id, movie_id, kind, value and time_ms.

    Raises Unavailable where pyarrow is not installed.
    """
    pa, parquet = _pyarrow()
    both = join(people.histories)
    owners = np.repeat(np.arange(len(people.user_ids), dtype=np.int32), [one.size for one in people.histories])
    table = pa.table(
        {
            "user_id": pa.DictionaryArray.from_arrays(owners, people.user_ids).dictionary_decode(),
            "movie_id": both.movie_ids,
            "kind": pa.DictionaryArray.from_arrays(both.kinds.astype(np.int8), _KINDS).dictionary_decode(),
            "value": both.values,
            "time_ms": both.times_ms,
        }
    )
    parquet.write_table(table, target, compression="zstd")


def read_user_ids(path: Path) -> list[str]:
    """Lists the people of a file that `write_parquet` wrote."""
    _, parquet = _pyarrow()
    ids: list[str] = parquet.read_table(path, columns=["user_id"])["user_id"].unique().to_pylist()
    return ids


def read_firsts(
    paths: Iterable[Path], tag: Callable[[str], str], wanted: Set[str]
) -> tuple[dict[str, dict[int, tuple[int, str]]], int]:
    """Reads when and how some people first met each movie, from files that `write_parquet` wrote.

    People are known by their tags. Returns movie → (UTC milliseconds, kind) of each, and when the newest event of
    anybody was. Raises DataError where a file cannot be read.
    """
    _, parquet = _pyarrow()
    firsts: dict[str, dict[int, tuple[int, str]]] = {}
    newest_ms = 0
    for path in paths:
        try:
            table = parquet.read_table(path, columns=["user_id", "movie_id", "time_ms", "kind"])
            columns = [table[name].to_pylist() for name in ("user_id", "movie_id", "time_ms", "kind")]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: is no export of events ({error}); name a folder of export-events") from error
        tags = {user_id: tag(user_id) for user_id in set(columns[0])}
        for user_id, movie_id, time_ms, kind in zip(*columns, strict=True):
            newest_ms = max(newest_ms, time_ms)
            if tags[user_id] in wanted:
                movies = firsts.setdefault(tags[user_id], {})
                movies[movie_id] = min((time_ms, kind), movies.get(movie_id, (time_ms, kind)))
    return firsts, newest_ms


def _pyarrow() -> tuple[Any, Any]:
    """Imports pyarrow, which takes 40 MB that only exports are to cost."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise Unavailable(
            "events cannot be exported, because pyarrow is not installed here; install what the encoder needs: "
            "pip install 'marquee[encoder]'"
        ) from error
    # Its own pool keeps 40 MB more of a worker's memory for itself.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    return pyarrow, pyarrow.parquet


def _parquet_bytes(people: People) -> bytes:
    target = io.BytesIO()
    write_parquet(people, target)
    return target.getvalue()


def _write_token(cursor: str, since_ms: int) -> str:
    return base64.urlsafe_b64encode(_TOKEN.pack(_TOKEN_VERSION, since_ms) + cursor.encode()).decode()


def _read_token(token: str, since_ms: int) -> str:
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        version, begun_since_ms = _TOKEN.unpack_from(raw)
        cursor = raw[_TOKEN.size :].decode()
    except (binascii.Error, struct.error, UnicodeDecodeError):
        raise _bad_token() from None
    if (version, begun_since_ms) != (_TOKEN_VERSION, since_ms) or not cursor:
        raise _bad_token()
    return cursor


def _bad_token() -> InvalidRequest:
    return InvalidRequest(
        "page_token is not one that these pages gave; send next_page_token unchanged and the same since_ms, or nothing "
        "for the first page",
        field="page_token",
    )
