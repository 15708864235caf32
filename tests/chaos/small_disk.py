"""A disk of its own that can be filled: a small tmpfs."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_SIZE = "8m"
_BALLAST = "ballast"
# What a disk counts in.
PAGE = 4096


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mounts a disk of eight MiB; skips the test where this user may not."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a disk of its own takes a user who may mount one: run this test as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Fills a disk but for so many bytes."""
    free = os.statvfs(disk)
    with (disk / _BALLAST).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)


def make_room(disk: Path) -> None:
    """Takes away what filled it."""
    (disk / _BALLAST).unlink()
