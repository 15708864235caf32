"""Reads everybody's events, of an export or of MovieLens, into memory: about 25 bytes an event.

Letters in array names: n events.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from marquee.errors import DataError
from marquee.features import (
    MAX_EVENTS,
    MAX_FUTURE_MS,
    MAX_RATING,
    MIN_RATING,
    NO_EVENTS,
    RATED,
    Events,
    union,
    user_hash,
)
from marquee.v1 import types_pb2

RATINGS = "ratings.csv"
_TEXTS = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = {"user_id": _TEXTS, "movie_id": pa.int64(), "kind": _TEXTS, "value": pa.float32(), "time_ms": pa.int64()}
_RATINGS_COLUMNS = {"userId": _TEXTS, "movieId": pa.int64(), "rating": pa.float32(), "timestamp": pa.int64()}
_MAX_USER_ID_BYTES = 256


class People(NamedTuple):
    """Holds people's events, one person's after another's: person i's are those from bounds[i] to bounds[i + 1]."""

    user_ids: list[str]
    bounds: list[int]
    events: Events

    def history(self, person: int) -> Events:
        """Selects a person's events: of more than MAX_EVENTS those that a store would keep."""
        events = self.events.take(slice(*self.bounds[person : person + 2]))
        if events.size <= MAX_EVENTS:
            return events
        return union(NO_EVENTS, events, user_hash(self.user_ids[person])).take(slice(-MAX_EVENTS, None))

    def fingerprint(self) -> str:
        """Hashes people and events."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update("\n".join(self.user_ids).encode())
        for column in (np.array(self.bounds), *self.events):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


def read_people(path: Path) -> People:
    """Reads events of a folder or a Parquet file; raises DataError where they are none, or not as they must be."""
    try:
        return _grouped(path, *_read(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: its events cannot be read ({_first_line(error)}); export or download it again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _read(path: Path) -> tuple[pa.DictionaryArray, Events]:
    files = _shards(path)
    if files:
        return _of_export(parquet.ParquetDataset(files), path)
    if (path / RATINGS).is_file():
        return _of_ratings(path / RATINGS)
    raise DataError(
        f"{path}: there are no events here; name a folder of `python -m services.user_encoder export-events`, a "
        f"Parquet file like its, or a folder with MovieLens' {RATINGS}"
    )


def _shards(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    folder = path / "events" if (path / "events").is_dir() else path
    return sorted(folder.glob("*.parquet"))


def _of_export(shards: parquet.ParquetDataset, path: Path) -> tuple[pa.DictionaryArray, Events]:
    missing = [name for name in _COLUMNS if name not in shards.schema.names]
    if missing:
        raise DataError(f"{path}: has no column {missing[0]}; an export has {', '.join(_COLUMNS)}")
    table = shards.read(columns=list(_COLUMNS))
    users, movie_ids, kinds, values, times_ms = _columns(table, _COLUMNS, path)
    return users, Events(_numbers(movie_ids), _kinds(kinds, path), _numbers(values), _numbers(times_ms))


def _of_ratings(file: Path) -> tuple[pa.DictionaryArray, Events]:
    table = csv.read_csv(
        file,
        read_options=csv.ReadOptions(use_threads=False),
        convert_options=csv.ConvertOptions(column_types=_RATINGS_COLUMNS, include_columns=list(_RATINGS_COLUMNS)),
    )
    users, movie_ids, stars, seconds = _columns(table, _RATINGS_COLUMNS, file)
    kinds = np.full(len(users), RATED, np.int64)
    return users, Events(_numbers(movie_ids), kinds, _numbers(stars), _numbers(seconds) * 1000)


def _columns(table: pa.Table, wanted: dict[str, pa.DataType], path: Path) -> Iterator[Any]:
    for name, kind in wanted.items():
        column = table[name].cast(kind).unify_dictionaries().combine_chunks()
        if column.null_count:
            raise DataError(f"{path}: {name} is missing in {column.null_count} rows; correct them or leave them out")
        # Of no rows at all there is a column of no chunks.
        yield column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column


def _numbers(column: pa.Array) -> npt.NDArray[Any]:
    numbers: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return numbers


def _kinds(column: pa.DictionaryArray, path: Path) -> npt.NDArray[np.int64]:
    known = {name.removeprefix("EVENT_KIND_"): number for name, number in types_pb2.EventKind.items() if number}
    for name in column.dictionary.to_pylist():
        if name not in known:
            raise DataError(f"{path}: {name!r} is no kind of event; kinds are {', '.join(known)}")
    numbers = np.array([known[name] for name in column.dictionary.to_pylist()], np.int64)
    of_each: npt.NDArray[np.int64] = numbers[_numbers(column.indices)]
    return of_each


def _grouped(path: Path, users: pa.DictionaryArray, events: Events) -> People:
    """Puts each person's events together, in the order of the file, and people in the order of their first event."""
    _check(path, users, events)
    codes = _numbers(users.indices)
    if (codes[1:] < codes[:-1]).any():
        order = np.argsort(codes, kind="stable")
        codes, events = codes[order], events.take(order)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ids = users.dictionary.take(pa.array(codes[starts])).to_pylist()
    return People(ids, [*starts.tolist(), len(codes)], events)


def _check(path: Path, users: pa.DictionaryArray, events: Events) -> None:
    latest_ms = time.time_ns() // 1_000_000 + MAX_FUTURE_MS
    stars = events.values[events.kinds == RATED]
    for name, good in (
        ("user_id", _good_ids(users)),
        ("movie_id", events.movie_ids > 0),
        ("value", (stars >= MIN_RATING) & (stars <= MAX_RATING)),
        ("time_ms", (events.times_ms > 0) & (events.times_ms <= latest_ms)),
    ):
        if not good.all():
            raise DataError(
                f"{path}: {name} is out of range in {np.count_nonzero(~good)} rows; correct them, or leave them out: "
                "`python -m services.user_encoder import-events` skips them, and export-events writes the rest"
            )


def _good_ids(users: pa.DictionaryArray) -> npt.NDArray[np.bool_]:
    ids = users.dictionary
    sizes = _numbers(pc.binary_length(ids))
    controls = _numbers(pc.match_substring_regex(ids, r"\p{Cc}"))
    good: npt.NDArray[np.bool_] = (sizes >= 1) & (sizes <= _MAX_USER_ID_BYTES) & ~controls
    return good
