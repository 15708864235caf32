"""The block list: movies that are in no answer, whatever the space; a file that is read again when it changes."""

from __future__ import annotations

import codecs
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from marquee.errors import ConfigError
from marquee.features import Int64s
from services.common.watched import Watched

_MAX_ID = (1 << 63) - 1


class _Blocked(NamedTuple):
    # The same movies twice: for masks, and for a question.
    ids: Int64s
    held: frozenset[int]


class BlockList:
    """Holds the ids of a file with one movie id a line, where # begins a comment; without a file it holds none.

    Raises ConfigError where the file cannot be read at the start. Later the last good list stays: a movie that must not
    be shown is not shown because somebody mistyped another one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file = Watched({"--block-list": path} if path else {}, partial(_parse, path or Path()), _describe)

    @property
    def ids(self) -> Int64s:
        """Lists what is blocked, ascending: an array that is replaced, never changed, so that its identity tells."""
        return self._file.value.ids

    def holds(self, movie_id: int) -> bool:
        """Says whether a movie is blocked."""
        return movie_id in self._file.value.held

    async def watch(self) -> None:
        """Follows the file until cancelled."""
        await self._file.watch()

    async def poll(self) -> None:
        """Looks at the file once."""
        await self._file.poll()


def _describe(blocked: _Blocked) -> str:
    return f"blocks {len(blocked.ids)} movies"


def _parse(path: Path, text: bytes = b"") -> _Blocked:
    lines = text.removeprefix(codecs.BOM_UTF8).split(b"\n")
    ids = (_parse_line(path, number, line) for number, line in enumerate(lines, start=1))
    unique = np.unique(np.array([movie_id for movie_id in ids if movie_id], np.int64))
    return _Blocked(unique, frozenset(unique.tolist()))


def _parse_line(path: Path, number: int, line: bytes) -> int:
    """Reads a line's movie id, 0 where there is none."""
    text = line.partition(b"#")[0].strip()
    if not text:
        return 0
    # The length first: Python refuses to read thousands of digits.
    movie_id = int(text) if text.isdigit() and len(text) < 20 else 0
    if not 1 <= movie_id <= _MAX_ID:
        shown = text[:40].decode(errors="replace")
        raise ConfigError(
            f"{path}:{number}: {shown!r} is no movie id; write one positive whole number a line, # begins a comment"
        )
    return movie_id
