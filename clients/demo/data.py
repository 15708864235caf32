"""What the demo has to know of a data set: that it is one, who is in it, and where what is made of it goes."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from marquee.errors import DataError

_CSV, _DAT = "ratings.csv", "ratings.dat"
_KEPT = Path(__file__).resolve().parents[2] / "data"
_PLAIN = (_KEPT / "sample", _KEPT / "ml-latest-small")


def check_folder(data: Path) -> None:
    """Raises DataError where the folder has no ratings that training and import-events both read."""
    if not any((data / name).is_file() for name in (_CSV, _DAT)):
        raise DataError(
            f"{data} holds neither {_CSV} nor {_DAT}; set DATA to a folder with ratings.csv and movies.csv, or with "
            "the ratings.dat and movies.dat of MovieLens 1M"
        )


def user_ids(data: Path) -> Iterator[str]:
    """Yields the ids of the people in the ratings, each once, in the file's order."""
    seen = {""}
    for user in _csv_users(data / _CSV) if (data / _CSV).exists() else _dat_users(data / _DAT):
        if user not in seen:
            seen.add(user)
            yield user


def _csv_users(path: Path) -> Iterator[str]:
    # An id that is no UTF-8 is not in the store; replaced, it is at least a string that a request may carry.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        for row in csv.DictReader(stream):
            yield row.get("userId") or ""


def _dat_users(path: Path) -> Iterator[str]:
    with path.open(encoding="latin-1") as stream:
        for line in stream:
            yield line.split("::")[0].strip()


def work_folder(root: Path, data: Path) -> Path:
    """Names the folder for what is made of a data set: ids of one mean nothing in another, so no two share it."""
    whole = data.resolve()
    if whole in _PLAIN:
        return root / whole.name
    return root / f"{whole.name or 'data'}-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]}"
