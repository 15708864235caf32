"""The block list: movies that are in no answer, whatever the space; a file that is read again when it changes."""

from __future__ import annotations

import asyncio
import codecs
import logging
from pathlib import Path

import numpy as np

from marquee.errors import ConfigError
from marquee.features import Int64s

_log = logging.getLogger(__name__)

# Two looks see a change: the first that it is there, the second that it is all there.
_LOOK_S = 0.25
_MAX_ID = (1 << 63) - 1


class BlockList:
    """Holds the ids of a file with one movie id a line, where # begins a comment; without a file it holds none.

    Raises ConfigError where the file cannot be read at the start. Later the last good list stays: a movie that must not
    be shown is not shown because somebody mistyped another one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seen = self._taken = _read(path) if path else None
        self._problem = ""
        self._hold(_parse(path, self._taken) if path and self._taken is not None else np.zeros(0, np.int64))

    def _hold(self, ids: Int64s) -> None:
        # Replaced, never changed: who holds the array may know by its identity whether the list is still the same.
        self.ids = ids
        self._held = frozenset(ids.tolist())

    def holds(self, movie_id: int) -> bool:
        """Says whether a movie is blocked."""
        return movie_id in self._held

    async def watch(self) -> None:
        """Follows the file until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.poll()

    async def poll(self) -> None:
        """Looks at the file once; a change counts from the second look that sees it."""
        if self._path is None:
            return
        try:
            ids = await asyncio.to_thread(self._changed, self._path)
        except ConfigError as error:
            if error.message != self._problem:
                _log.error("%s; the %d movies that were blocked stay blocked", error.message, len(self.ids))
            self._problem = error.message
            return
        if ids is not None:
            self._hold(ids)
            self._problem = ""
            _log.info("%s: blocks %d movies", self._path, len(ids))

    def _changed(self, path: Path) -> Int64s | None:
        try:
            text = _read(path)
        except ConfigError:
            self._seen = self._taken = None
            raise
        settled, self._seen = text == self._seen, text
        if not settled or text == self._taken:
            return None
        self._taken = text
        return _parse(path, text)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: the block list cannot be read ({error.strerror}); put it back, or start without --block-list"
        ) from error


def _parse(path: Path, text: bytes) -> Int64s:
    lines = text.removeprefix(codecs.BOM_UTF8).split(b"\n")
    ids = (_parse_line(path, number, line) for number, line in enumerate(lines, start=1))
    return np.unique(np.array([movie_id for movie_id in ids if movie_id], np.int64))


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
