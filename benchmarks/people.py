"""Made-up people with events, put into stores by the thousand, as the stores themselves would pack them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.machine import Shares
from benchmarks.processes import pinned
from benchmarks.work import Work
from marquee.features import RATED, Events, Int64s
from services.user_encoder.stores.base import pack_person
from services.user_encoder.stores.redis_keys import keys_of
from services.user_encoder.stores.sqlite_file import (
    WRITE,
    default_key_path,
    empty_log,
    number_of,
    open_file,
    transaction,
)
from services.user_encoder.stores.sqlite_pages import Page
from services.user_encoder.stores.tags import KEY_BYTES, read_tags
from tests.redis_rigs import RedisServer, redis_server

Person = tuple[str, Events]

EVENTS = 50
_FIRST_MS = 1_767_225_600_000
_MINUTE_MS = 60_000
_TOGETHER = 10_000
_PIPELINED = 500
_TIMEOUT_S = 60.0
# What a Redis store ends a history with, to know it again when it writes.
_VERSION = bytes(8)
_SEED = 0


class Peopled(NamedTuple):
    """Is a Redis for a store, on the caller's core, and the file of its key."""

    server: RedisServer
    key: Path

    @property
    def store(self) -> tuple[str | Path, ...]:
        """What an encoder is told to use it; it waits long: a hiccup is measured, not answered around."""
        return ("--store", self.server.url, "--store-key", self.key, "--store-timeout-s", "5")


@contextlib.contextmanager
def empty_redis(work: Work, cores: Shares, name: str) -> Iterator[Peopled]:
    """Runs a Redis on the caller's core, as another machine would run it."""
    folder, key = work.folder / name, work.folder / f"{name}.key"
    key.write_bytes(random.Random(_SEED).randbytes(KEY_BYTES))
    with contextlib.ExitStack() as stack:
        with pinned(cores.caller):
            server = stack.enter_context(redis_server(folder))
        yield Peopled(server, key)


def invent(ids: Sequence[str], movie_ids: Int64s, events: int, seed: int = _SEED) -> Iterator[Person]:
    """Invents people who rated so many different movies each, a minute apart."""
    rng = np.random.default_rng(seed)
    movies, order = rng.permutation(movie_ids), np.arange(events)
    kinds, times_ms = np.full(events, RATED, np.int64), _FIRST_MS + _MINUTE_MS * order
    firsts = rng.integers(0, len(movies), len(ids)).tolist()
    for user, first in zip(ids, firsts, strict=True):
        values = (rng.integers(1, 11, events) / 2).astype(np.float32)
        yield user, Events(movies[(first + order) % len(movies)], kinds, values, times_ms)


def fill_sqlite(path: Path, people: Iterable[Person]) -> None:
    """Writes people into a SQLite store, which is made where there is none."""
    connection, tags = open_file(path, default_key_path(path), _TIMEOUT_S)
    people = iter(people)
    with closing(connection):
        page = Page.of(connection)
        # Nobody else has the file, and it is thrown away.
        connection.execute("PRAGMA synchronous = OFF")
        while some := list(islice(people, _TOGETHER)):
            rows = [(number_of(tags.of(user)), page.fill(pack_person(user, events))) for user, events in some]
            with transaction(connection):
                connection.executemany(WRITE, rows)
        empty_log(connection, _TIMEOUT_S)


def fill_redis(peopled: Peopled, people: Iterable[Person]) -> None:
    """Writes people into a Redis store."""
    tags, people = read_tags(peopled.key), iter(people)
    while some := list(islice(people, _PIPELINED)):
        pipeline = peopled.server.ask.pipeline(transaction=False)
        for user, events in some:
            pipeline.set(keys_of(tags.of(user)).history, pack_person(user, events) + _VERSION)
        pipeline.execute()
