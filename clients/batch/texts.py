"""Reads text files of ids, one a line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from marquee.errors import DataError

_MAX_ID = (1 << 63) - 1
# Of a filter's exclude_ids, from the contract.
_MAX_MOVIES = 100_000


def read_user_ids(path: Path) -> list[str]:
    """Reads user ids, each once; raises DataError where there are none, or the file cannot be read."""
    ids = list(dict.fromkeys(filter(None, _lines(path))))
    if not ids:
        raise DataError(f"{path}: has no user ids; give a text file with one id a line")
    return ids


def fingerprint(ids: Sequence[str]) -> str:
    """Hashes ids in their order."""
    return hashlib.blake2b("\n".join(ids).encode(), digest_size=16).hexdigest()


def read_movie_ids(path: Path) -> list[int]:
    """Reads movie ids, ascending; # begins a comment, as in a block list.

    Raises DataError for a line that is none, and for more ids than a filter may have.
    """
    ids = sorted(set(_movie_ids(path)))
    if len(ids) > _MAX_MOVIES:
        raise DataError(
            f"{path}: names {len(ids):,} movies, and at most {_MAX_MOVIES:,} can be left out; give the others to the "
            "retrievers as their block list, or take them out of the catalogue with training.refresh --remove"
        )
    return ids


def _movie_ids(path: Path) -> Iterator[int]:
    for number, line in enumerate(_lines(path), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        movie_id = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
        if not 1 <= movie_id <= _MAX_ID:
            raise DataError(
                f"{path}:{number}: {text[:40]!r} is no movie id; write one positive number a line, # begins a comment"
            )
        yield movie_id


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no text file of ids ({error}); give one with one id a line") from error
