"""Exports everybody's events into a folder, in shards that training reads, so that a run goes on where one was ended.

DIR/events.unfinished holds the shards and `export.json`, which says where the next one begins. It becomes DIR/events
when all are there: training sees a whole export or none.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from marquee.bundle.format import sync_folder
from marquee.errors import DataError
from marquee.whole_files import read_json, write_json, write_whole
from services.user_encoder.event_export import People, read_people, read_user_ids, write_parquet
from services.user_encoder.stores.base import FeatureStore

FINISHED, UNFINISHED, STATE = "events", "events.unfinished", "export.json"
FORMAT = 1

# Some tens of megabytes while a shard is made, and some megabytes as a file.
_SHARD_EVENTS = 500_000
# People who are read at once, with up to 10,000 events each.
_STEP = 100


class Source(NamedTuple):
    """Says what is exported: the store's name, and the time before which events are left out."""

    store: str
    since_ms: int


class Exported(NamedTuple):
    """Holds what a folder got; `begun` says how many of the events a run before this one wrote."""

    users: int
    events: int
    shards: int
    begun: int
    seconds: float


class _State(NamedTuple):
    """Is what `export.json` holds: what is exported, what of it is there, and where the next shard begins."""

    format: int
    store: str
    since_ms: int
    shards: int = 0
    users: int = 0
    events: int = 0
    cursor: str = ""
    complete: bool = False


async def export_events(
    store: FeatureStore, source: Source, out: Path, progress: Callable[[float, int], None]
) -> Exported:
    """Exports a store into `out`/events, or goes on with an export of the same source there.

    `progress` gets the part that is done, and the events that this run wrote. Raises DataError where the folder holds
    something else or cannot be written.
    """
    started = time.monotonic()
    if (out / FINISHED).exists():
        raise DataError(f"{out / FINISHED} is there already: name another folder with --out, or move that one away")
    try:
        with _locked(out / UNFINISHED) as folder:
            begun = _begin(folder, source)
            done = await _write_shards(store, folder, begun, progress)
            os.replace(folder, out / FINISHED)
            sync_folder(out, [])
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be written ({error.strerror or error}); see that this user may and the "
            "disk has room, then run it again to go on"
        ) from error
    return Exported(done.users, done.events, done.shards, begun.events, time.monotonic() - started)


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Makes the folder and holds it for this process alone, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    except BlockingIOError as error:
        raise DataError(f"{folder}: another process exports there; wait for it, or name another folder") from error
    finally:
        os.close(handle)


def _begin(folder: Path, source: Source) -> _State:
    """Reads how far an export is, and removes what its last run had not finished."""
    state = _read_state(folder / STATE) or _State(FORMAT, *source)
    if state.format != FORMAT or (state.store, state.since_ms) != source:
        raise DataError(
            f"{folder} holds a part of another export ({state.store}, since_ms {state.since_ms}): go on with that one, "
            "remove the folder, or name another one with --out"
        )
    kept = _shards(folder, state.shards)
    for path in [*folder.glob("part-*.parquet"), *folder.glob("*.writing")]:
        if path not in kept:
            path.unlink()
    return state


def _read_state(path: Path) -> _State | None:
    values = read_json(path)
    try:
        return values if values is None else _State(**values)
    except TypeError as error:
        raise DataError(f"{path} is not of an export ({error}); remove its folder, or name another one") from error


async def _write_shards(
    store: FeatureStore, folder: Path, state: _State, progress: Callable[[float, int], None]
) -> _State:
    before = state.events
    # A store may give somebody twice while it moves its keys.
    seen = {store.digest(user_id) for path in _shards(folder, state.shards) for user_id in read_user_ids(path)}
    while not state.complete:
        read = await read_people(store, state.cursor, state.since_ms, sys.maxsize, _SHARD_EVENTS, _STEP)
        people = _unseen(store, read, seen)
        if people.user_ids:
            state = _add_shard(folder, people, state)
        state = state._replace(cursor=read.cursor, complete=not read.cursor)
        write_json(folder / STATE, state._asdict())
        progress(read.part, state.events - before)
    return state


def _shards(folder: Path, count: int) -> list[Path]:
    return [folder / f"part-{number:05}.parquet" for number in range(1, count + 1)]


def _unseen(store: FeatureStore, people: People, seen: set[bytes]) -> People:
    """Drops people whom an earlier shard or an earlier page has."""
    user_ids, histories = [], []
    for user_id, history in zip(people.user_ids, people.histories, strict=True):
        digest = store.digest(user_id)
        if digest not in seen:
            seen.add(digest)
            user_ids.append(user_id)
            histories.append(history)
    return people._replace(user_ids=user_ids, histories=histories)


def _add_shard(folder: Path, people: People, state: _State) -> _State:
    shards = state.shards + 1
    write_whole(_shards(folder, shards)[-1], lambda path: write_parquet(people, path))
    return state._replace(shards=shards, users=state.users + len(people.user_ids), events=state.events + people.events)
