"""Files that an operator changes while a service runs: read again when they change, the last good ones kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from marquee.errors import ConfigError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# Two looks see a change: the first that it is there, the second that it is all there.
_LOOK_S = 0.25


class Source(Protocol):
    """Is a file, or what can be read like one."""

    def read_bytes(self) -> bytes:
        """Reads all of it; raises OSError where that cannot be done."""


class Watched(Generic[_T]):
    """Holds what files say, as `value`; `files` has their paths under the flags that named them.

    `parse` gets the bytes of each and raises ConfigError where they are no good; `describe` words a value for the log.
    Raises ConfigError where the files cannot be used at the start. Later the last good value stays, and one ERROR says
    why, until there is a good one again.
    """

    def __init__(self, files: Mapping[str, Source], parse: Callable[..., _T], describe: Callable[[_T], str]) -> None:
        self._files, self._parse, self._describe = dict(files), parse, describe
        self._problem = ""
        texts = self._read()
        self.value = parse(*texts)
        # None: what was there last could not be read.
        self._seen: list[bytes] | None = texts
        self._taken: list[bytes] | None = texts

    async def watch(self) -> None:
        """Follows the files until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.poll()

    async def poll(self) -> None:
        """Looks at the files once; a change counts from the second look that sees it."""
        if not self._files:
            return
        try:
            value = await asyncio.to_thread(self._changed)
        except ConfigError as error:
            if error.message != self._problem:
                _log.error("%s; until then it %s", error.message, self._describe(self.value))
            self._problem = error.message
            return
        if value is not None:
            self.value, self._problem = value, ""
            _log.info("%s: %s", ", ".join(map(str, self._files.values())), self._describe(value))

    def _changed(self) -> _T | None:
        try:
            texts = self._read()
        except ConfigError:
            self._seen = self._taken = None
            raise
        settled, self._seen = texts == self._seen, texts
        if not settled or texts == self._taken:
            return None
        self._taken = texts
        return self._parse(*texts)

    def _read(self) -> list[bytes]:
        return [_bytes_of(flag, path) for flag, path in self._files.items()]


def _bytes_of(flag: str, path: Source) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); put the file back, or name another with {flag}"
        ) from error
