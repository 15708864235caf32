"""The block list: movies that are in no answer, whatever the space; read again when it changes, from file or Redis."""

from __future__ import annotations

import codecs
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from marquee.errors import ConfigError
from marquee.features import Int64s
from services.common.watched import Source, Watched
from services.retriever.blocked_key import BlockedKey, is_url

_MAX_ID = (1 << 63) - 1


class _Blocked(NamedTuple):
    # The same movies twice: for masks, and for a question.
    ids: Int64s
    held: frozenset[int]


class BlockList:
    """Holds the ids of a text with one movie id a line, where # begins a comment; without one it holds none.

    `source` is a file, or the URL of a key in a Redis. Raises ConfigError where it cannot be read at the start. Later
    the last good list stays: a movie that must not be shown is not shown because somebody mistyped another one.
    """

    def __init__(self, source: str | Path = "") -> None:
        opened = _open(str(source))
        self._file = Watched({"--block-list": opened} if opened else {}, partial(_parse, opened), _describe)

    @property
    def ids(self) -> Int64s:
        """Lists what is blocked, ascending: an array that is replaced, never changed, so that its identity tells."""
        return self._file.value.ids

    def holds(self, movie_id: int) -> bool:
        """Says whether a movie is blocked."""
        return movie_id in self._file.value.held

    async def watch(self) -> None:
        """Follows it until cancelled."""
        await self._file.watch()

    async def poll(self) -> None:
        """Looks at it once."""
        await self._file.poll()


def _open(source: str) -> Source | None:
    if not source:
        return None
    return BlockedKey(source) if is_url(source) else Path(source).expanduser()


def _describe(blocked: _Blocked) -> str:
    return f"blocks {len(blocked.ids)} movies"


def _parse(source: Source | None, text: bytes = b"") -> _Blocked:
    lines = text.removeprefix(codecs.BOM_UTF8).split(b"\n")
    ids = (_parse_line(source, number, line) for number, line in enumerate(lines, start=1))
    unique = np.unique(np.array([movie_id for movie_id in ids if movie_id], np.int64))
    return _Blocked(unique, frozenset(unique.tolist()))


def _parse_line(source: Source | None, number: int, line: bytes) -> int:
    """Reads a line's movie id, 0 where there is none."""
    text = line.partition(b"#")[0].strip()
    if not text:
        return 0
    # The length first: Python refuses to read thousands of digits.
    movie_id = int(text) if text.isdigit() and len(text) < 20 else 0
    if not 1 <= movie_id <= _MAX_ID:
        shown = text[:40].decode(errors="replace")
        raise ConfigError(
            f"{source}:{number}: {shown!r} is no movie id; write one positive whole number a line, # begins a comment"
        )
    return movie_id
