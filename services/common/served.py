"""Keeps a sampled share of what was served in a folder, as shards of JSON lines, with an end to their age and size.

A request is sampled by a hash of its id alone, so that encoder and retriever keep the same ones without a word between
them, and a smaller share is a part of a larger one. Nothing here fails a call or waits for a disk in one: rows wait in
memory, up to a bound, for a thread that writes them. What cannot be written is lost and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from marquee.errors import ConfigError, DataError
from marquee.whole_files import write_whole
from services.common.settings import CommonSettings
from services.common.telemetry import Telemetry

_log = logging.getLogger(__name__)

# What the rows of a shard are: the retriever's lists, and the encoder's people.
LISTS, PEOPLE = "lists", "people"
_SUFFIX = ".jsonl"
# A shard is written when this much waits, or after this long; a process that is killed loses as much of the sample.
_SHARD_BYTES = 1 << 20
_SHARD_S = 300.0
# How much waits at most while the disk does not keep up.
_MOST_WAITING_BYTES = 4 << 20
# How long a disk that hangs holds up the end of a service.
_CLOSE_S = 5.0
_DAY_MS = 86_400_000
_MIB = 1 << 20


class Sample:
    """Takes a share of all requests, always the same ones."""

    def __init__(self, share: float) -> None:
        self._below = round(share * 2**64)

    def takes(self, request_id: str) -> bool:
        """Says whether a request is one of the share."""
        digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self._below


class ServedFolder:
    """Writes rows of one kind into a folder that other processes may write to as well.

    Shards are whole files that only this user may read. The old ones, and beyond so many MiB the oldest ones but for
    one, are removed, whoever wrote them. Raises ConfigError where the folder cannot be used at the start.
    """

    def __init__(self, folder: Path, kind: str, *, days: float, mb: int) -> None:
        self._folder, self._kind = folder, kind
        self._most_ms, self._most_bytes = round(days * _DAY_MS), mb * _MIB
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._enough = asyncio.Event()
        self._one_at_a_time = threading.Lock()
        self._problem = ""
        self.written = self.lost = 0
        _make_private(folder)

    def add(self, row: Mapping[str, object]) -> None:
        """Has a row written soon; where too many wait for the disk already, it is lost."""
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        if self._waiting_bytes + len(line) > _MOST_WAITING_BYTES:
            self.lost += 1
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        if self._waiting_bytes >= _SHARD_BYTES:
            self._enough.set()

    async def watch(self) -> None:
        """Writes what waits, and removes what is old, until cancelled."""
        while True:
            lines = self._take()
            self._note(len(lines), await asyncio.wrap_future(self._begin(lines)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHARD_S):
                    await self._enough.wait()

    def close(self) -> None:
        """Writes what waits; what a disk has not taken within seconds is lost."""
        lines = self._take()
        try:
            problem = self._begin(lines).result(_CLOSE_S)
        except TimeoutError:
            problem = f"the disk has not answered for {_CLOSE_S:g} s"
        self._note(len(lines), problem)

    def _take(self) -> list[bytes]:
        self._enough.clear()
        lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return lines

    def _begin(self, lines: Sequence[bytes]) -> Future[str]:
        """Stores in a thread that holds up no end of the process, unlike those of asyncio's pool."""
        stored: Future[str] = Future()
        # From here on it cannot be cancelled.
        stored.set_running_or_notify_cancel()
        threading.Thread(target=self._finish, args=(stored, lines), daemon=True).start()
        return stored

    def _finish(self, stored: Future[str], lines: Sequence[bytes]) -> None:
        try:
            stored.set_result(self._store(lines))
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            stored.set_exception(error)

    def _store(self, lines: Sequence[bytes]) -> str:
        """Writes a shard and tidies up; says what went wrong, "" where nothing did."""
        with self._one_at_a_time:
            try:
                # First: it may be what makes room.
                self._tidy()
                if lines:
                    name = f"{self._kind}-{time.time_ns() // 1_000_000:013}-{secrets.token_hex(4)}{_SUFFIX}"
                    write_whole(self._folder / name, lambda temporary: _write_private(temporary, lines))
            except OSError as error:
                return error.strerror or str(error)
        return ""

    def _note(self, rows: int, problem: str) -> None:
        if problem:
            self._note_lost(rows, problem)
            return
        self.written += rows
        # That nothing went wrong shows where something was written.
        if rows and self._problem:
            _log.info("%s: served lists are written again", self._folder)
            self._problem = ""

    def _note_lost(self, rows: int, problem: str) -> None:
        self.lost += rows
        if not self._problem:
            _log.error(
                "%s: served lists cannot be written (%s), and are lost until they can; calls are answered as always. "
                "See that the disk has room and this user may write there",
                self._folder,
                problem,
            )
        self._problem = problem

    def _tidy(self) -> None:
        oldest_ms = time.time_ns() // 1_000_000 - self._most_ms
        newer = 0
        for path in sorted(self._folder.glob(f"{self._kind}-*{_SUFFIX}*"), reverse=True):
            # Another process may be tidying up as well.
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                # The newest stays whatever its size: it may be more than all that there may be.
                if (newer and newer + size > self._most_bytes) or _written_ms(path) < oldest_ms:
                    path.unlink()
                newer += size


@contextlib.contextmanager
def open_folder(kind: str, settings: CommonSettings) -> Iterator[ServedFolder | None]:
    """Opens the folder that the settings name, None where they name none; in the end writes what waits."""
    if settings.served_folder is None:
        yield None
        return
    folder = ServedFolder(settings.served_folder, kind, days=settings.served_days, mb=settings.served_mb)
    try:
        yield folder
    finally:
        folder.close()


def watch_folder(telemetry: Telemetry, folder: ServedFolder) -> None:
    """Adds to a service's metrics what became of the rows."""
    telemetry.counter("served_rows_written", "Sampled rows that were written.", lambda: folder.written)
    telemetry.counter("served_rows_lost", "Sampled rows that could not be written.", lambda: folder.lost)


def read_rows(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Reads the rows of a kind, shard by shard, the oldest first; raises DataError where a shard is none.

    A shard that is removed meanwhile is passed over.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; name the one that --served-folder names")
    for path in sorted(folder.glob(f"{kind}-*{_SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):
            yield from _rows_of(path)


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: is no row ({error}); remove the file") from error
            yield row


def _written_ms(path: Path) -> int:
    """Reads from a shard's name when it was written; 0 where the name is of another make."""
    _, _, rest = path.name.partition("-")
    digits, _, _ = rest.partition("-")
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _write_private(path: Path, lines: Sequence[bytes]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.writelines(lines)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--served-folder: {folder} cannot be made ({error.strerror}); name a folder that this user may write to"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--served-folder: {folder} may not be written to; name a folder that this user may write to")
