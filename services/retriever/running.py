"""Runs searches so that they hold up nobody: on the event loop, in turns, or in a thread of their own. D dimension."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from marquee.engine.index import Mask
from marquee.errors import InvalidRequest, Unavailable
from marquee.features import Floats
from marquee.v1 import retriever_pb2
from services.retriever.finding import Found
from services.retriever.queries import Wanted, read_vector, read_wanted
from services.retriever.retrieval import Retrieval

# How long a batch may hold the event loop before other calls get their turn.
_TURN_S = 0.001
# Picking a list of more movies than this under caps or for variety takes from half a millisecond to some 50: elsewhere.
_QUICK_PICKS = 50
# A thread of its own: in the pool that everything shares, a flood of such lists would hold up the watch of registry and
# block list.
_APART = ThreadPoolExecutor(1, "picking")
# Queries of one batch that a Milvus is asked at once; other calls want to ask it, too.
_ASKED_AT_ONCE = 8

Queries = Sequence[retriever_pb2.BatchSearchQuery]
# Says how many seconds are left of a call's deadline; None: it has none.
Left = Callable[[], float | None]
# What became of a query of a batch.
Outcome = Found | InvalidRequest | Unavailable


async def find(model: Retrieval, query_D: Floats, wanted: Wanted, left: Left) -> Found:
    """Searches once: in a thread where a Milvus is asked, which the event loop must not wait for, else here."""
    if model.collection is None:
        return await _find_here(model, query_D, wanted)
    left_s = left()
    ends_at = None if left_s is None else time.monotonic() + left_s
    threads = model.collection.milvus.searches
    return await _apart(threads, model, query_D, wanted, ends_at)


async def _apart(
    threads: Executor, model: Retrieval, query_D: Floats, wanted: Wanted, ends_at: float | None = None
) -> Found:
    # In the call's context, so that what is said there is said of this call.
    search = partial(contextvars.copy_context().run, model.search_apart, query_D, wanted, ends_at)
    return await asyncio.get_running_loop().run_in_executor(threads, search)


async def _find_here(model: Retrieval, query_D: Floats, wanted: Wanted) -> Found:
    """Searches on the event loop unless that would hold it up: a thread hop costs more than most searches."""
    if wanted.k > _QUICK_PICKS and wanted.options and wanted.options.picks:
        return await _apart(_APART, model, query_D, wanted)
    return model.search(query_D, wanted)


async def find_many(model: Retrieval, queries: Queries, left: Left) -> list[Outcome]:
    """Answers each query of a batch as `find` would, or says why not."""
    found: list[Outcome] = []
    if model.collection is not None:
        for start in range(0, len(queries), _ASKED_AT_ONCE):
            asked = enumerate(queries[start : start + _ASKED_AT_ONCE], start)
            found += await asyncio.gather(*(_find_of_batch(model, query, at, left) for at, query in asked))
        return found
    turns = _Turns()
    for start in range(0, len(queries), model.index.together):
        found += await _find_some(model, queries[start : start + model.index.together], start, turns)
    return found


async def _find_of_batch(model: Retrieval, query: retriever_pb2.BatchSearchQuery, at: int, left: Left) -> Outcome:
    try:
        return await find(model, *read_query(model, query, f"queries[{at}]."), left)
    except (InvalidRequest, Unavailable) as error:
        return error


class _Ready(NamedTuple):
    query_D: Floats
    wanted: Wanted
    mask: Mask | None


async def _find_some(model: Retrieval, queries: Queries, start: int, turns: _Turns) -> list[Found | InvalidRequest]:
    found: dict[int, Found | InvalidRequest] = {}
    plain: dict[int, _Ready] = {}
    for at, query in enumerate(queries):
        try:
            query_D, wanted = read_query(model, query, f"queries[{start + at}].")
        except InvalidRequest as error:
            found[at] = error
            continue
        if wanted.options is None:
            plain[at] = _Ready(query_D, wanted, model.filters.matching(wanted.filter, wanted.excluded))
        else:
            found[at] = await _find_here(model, query_D, wanted)
        await turns.pass_on()
    found.update(zip(plain, _find_together(model, list(plain.values())), strict=True))
    await turns.pass_on()
    return [found[at] for at in range(len(queries))]


def _find_together(model: Retrieval, ready: Sequence[_Ready]) -> list[Found]:
    if not ready:
        return []
    queries, wanted, masks = zip(*ready, strict=True)
    return model.search_many(np.stack(queries), wanted, masks)


def read_query(
    model: Retrieval, query: retriever_pb2.SearchRequest | retriever_pb2.BatchSearchQuery, path: str
) -> tuple[Floats, Wanted]:
    """Reads a query's vector and what its list is to be like; raises InvalidRequest."""
    return read_vector(query.vector, model.index.dimension, path), read_wanted(query, path)


class _Turns:
    """Lets other calls in between, once this one has held the event loop for long enough."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + _TURN_S

    async def pass_on(self) -> None:
        """Gives the turn away where it has lasted long enough."""
        if time.monotonic() >= self._ends:
            await asyncio.sleep(0)
            self._ends = time.monotonic() + _TURN_S
