"""The dataset: movies, users and events in one fixed order, whatever files they came from.

Letters in array names: E events, U users, N movies.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from marquee import features
from marquee.bundle.v1 import bundle_pb2
from marquee.errors import DataError
from marquee.movies import MovieRecord
from marquee.v1 import types_pb2
from training.data.columns import ColumnMap
from training.data.events import CleanEvents, EventColumns, load_events
from training.data.movies import Movies, load_movies
from training.data.report import LoadReport
from training.sample import SIMULATED_NOTICE

README_FILE = "README.txt"
_MOVIELENS = ColumnMap()
_MOVIELENS_1M = ColumnMap(events_file="ratings.dat", movies_file="movies.dat")
# What the live services export, in one file or in shards.
_EXPORTED = ColumnMap(
    events_file="events.parquet",
    user="user_id",
    movie="movie_id",
    time="time_ms",
    kind="kind",
    value="value",
    time_unit="ms",
    movies_key="movieId",
)
_EXPORTED_SHARDS = dataclasses.replace(_EXPORTED, events_file="events/*.parquet")
_KNOWN = (_MOVIELENS, _MOVIELENS_1M, _EXPORTED, _EXPORTED_SHARDS)
# Begins every fingerprint: raise it when cleaning changes what the same files make.
_FINGERPRINT_VERSION = b"marquee dataset 1\n"
_HASHED_FIELDS = MovieRecord._fields.index("links")
_HASHED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Holds cleaned events in parallel columns, with the movies and users that they index.

    `movies` and `movie_ids` [N] ascend by id; `user_ids` [U] are in numeric order where all are integers, else in
    text order. `users`, `items`, `kinds`, `values` (stars for RATED, else 0) and `times_ms` (UTC) are [E], sorted by
    (user, time, `features.tie_hash`, kind): each user's events are in the order of `features.merge`, oldest first.
    `fingerprint` identifies movies and events, whatever the files' names and order.

    A movie's `mean_rating` and `rating_count` are over all kept ratings, later test targets among them: for people
    to read, never a model's input.
    """

    name: str
    movies: list[MovieRecord]
    movie_ids: npt.NDArray[np.int64]
    user_ids: list[str]
    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.uint8]
    values: npt.NDArray[np.float32]
    times_ms: npt.NDArray[np.int64]
    report: LoadReport
    simulated: bool
    fingerprint: str

    def summary(self) -> bundle_pb2.Dataset:
        """Sums up what a bundle, or a report, says of the data."""
        return bundle_pb2.Dataset(
            name=self.name,
            fingerprint=self.fingerprint,
            events=len(self.items),
            users=len(self.user_ids),
            movies=len(self.movies),
            simulated=self.simulated,
        )

    def describe(self) -> str:
        """Says in a few lines how much there is, of what time, and what was dropped and why."""
        kinds = ", ".join(
            f"{count:,} {types_pb2.EventKind.Name(kind).removeprefix('EVENT_KIND_')}"
            for kind, count in enumerate(np.bincount(self.kinds))
            if count
        )
        per_user = np.bincount(self.users)
        lines = [
            f"{self.name}: {len(self.users):,} events of {len(self.user_ids):,} users on {len(self.movies):,} movies",
            f"events: {kinds}; {_date(self.times_ms.min())} to {_date(self.times_ms.max())}; "
            f"{per_user.min():,} to {per_user.max():,} a user, median {np.median(per_user):,.0f}",
            *self.report.lines(),
            f"fingerprint: {self.fingerprint}",
        ]
        return "\n".join([*lines, SIMULATED_NOTICE] if self.simulated else lines)


def load_dataset(folder: Path, columns: ColumnMap | None = None) -> Dataset:
    """Reads and cleans the dataset of a folder: MovieLens' or exported events without `columns`, any other by them.

    metadata.csv and links.csv are read where they lie in the folder. Raises DataError, with file, line and cure,
    where the data cannot be used.
    """
    check_folder(folder)
    columns = columns or recognise(folder)
    _check_files(folder, columns)
    movies = load_movies(folder, columns)
    movie_ids = np.array([movie.movie_id for movie in movies.records], np.int64)
    events = load_events(event_files(folder, columns), columns, movie_ids)
    records = _with_ratings(movies.records, events.columns)
    return Dataset(
        folder.resolve().name,
        records,
        movie_ids,
        events.user_ids,
        *events.columns,
        report=_report(movies, records, events),
        simulated=_is_simulated(folder),
        fingerprint=_fingerprint(movies.records, movie_ids, events),
    )


def check_folder(folder: Path) -> None:
    """Raises DataError unless it is a folder with something in it."""
    if not folder.exists():
        raise DataError(f"{folder} does not exist: name the folder that holds the data")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file: unpack it if it is an archive, and name the folder that holds the data")
    if not any(folder.iterdir()):
        raise DataError(f"{folder} is empty: put ratings.csv and movies.csv there, or name another folder")


def recognise(folder: Path) -> ColumnMap:
    """Finds out what kind of folder it is; raises DataError where it is none that is known, or two at once."""
    found = [known for known in _KNOWN if event_files(folder, known)]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(known.events_file for known in found)
        raise DataError(f"{folder} holds {names}: keep each in a folder of its own, or name one with a ColumnMap")
    inner = sorted(path.parent for path in folder.glob("*/ratings.*"))
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
    cure = f"did you mean {inner[0]}?" if inner else "name another folder, or describe your files with a ColumnMap"
    raise DataError(
        f"{folder}: looked for ratings.csv with movies.csv (MovieLens), ratings.dat with movies.dat (MovieLens 1M) and "
        f"events.parquet or events/*.parquet with movies.csv (exported events), found {there}; {cure}"
    )


def event_files(folder: Path, columns: ColumnMap) -> list[Path]:
    """Lists the events files that are there, shards in the order of their names."""
    return sorted(path for path in folder.glob(columns.events_file) if path.is_file())


def _check_files(folder: Path, columns: ColumnMap) -> None:
    there = {"events_file": bool(event_files(folder, columns)), "movies_file": (folder / columns.movies_file).is_file()}
    for field, found in there.items():
        path = folder / getattr(columns, field)
        if not found:
            raise DataError(f"{path} is missing: put it there, or name the file that is there as ColumnMap.{field}")


def _with_ratings(movies: Sequence[MovieRecord], events: EventColumns) -> list[MovieRecord]:
    count_N = np.bincount(events.items[events.kinds == features.RATED], minlength=len(movies))
    # Events of other kinds have the value 0.
    mean_N = np.bincount(events.items, events.values, len(movies)) / np.maximum(count_N, 1)
    return [
        movie._replace(mean_rating=mean if count else None, rating_count=count)
        for movie, mean, count in zip(movies, mean_N.tolist(), count_N.tolist(), strict=True)
    ]


def _report(movies: Movies, records: Sequence[MovieRecord], events: CleanEvents) -> LoadReport:
    kept = len(events.columns.users)
    return LoadReport(
        rows_read=events.rows_read,
        rows_kept=kept,
        rows_bad=events.rejects.total,
        duplicates=events.duplicates,
        retracted=events.retracted,
        dropped=tuple(one for rejects in (events.rejects, *movies.rejects) for one in rejects.dropped()),
        movies=len(records),
        movies_without_genres=sum(not movie.genres for movie in records),
        movies_without_year=sum(movie.year is None for movie in records),
        movies_without_events=len(records) - len(np.unique(events.columns.items)),
        movies_with_metadata=movies.with_metadata,
    )


def _is_simulated(folder: Path) -> bool:
    readme = folder / README_FILE
    if not readme.is_file():
        return False
    text = readme.read_text(encoding="utf-8", errors="replace")
    return " ".join(SIMULATED_NOTICE.split()) in " ".join(text.split())


def _fingerprint(movies: Sequence[MovieRecord], movie_ids: npt.NDArray[np.int64], events: CleanEvents) -> str:
    """Hashes movies and events in their fixed order; ratings' means follow from the events, and links teach nothing."""
    digest = hashlib.sha256(_FINGERPRINT_VERSION)
    digest.update(json.dumps([[movie[:_HASHED_FIELDS] for movie in movies], events.user_ids]).encode())
    columns = events.columns
    for values, stored in (
        (columns.users, "<i4"),
        (columns.items, "<i8"),
        (columns.kinds, "<i8"),
        (columns.values, "<f4"),
        (columns.times_ms, "<i8"),
    ):
        for start in range(0, len(values), _HASHED_AT_ONCE):
            part = values[start : start + _HASHED_AT_ONCE]
            digest.update(np.ascontiguousarray(movie_ids[part] if values is columns.items else part, stored).data)
    return digest.hexdigest()


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()
