"""Keeps prepared datasets: columns in `.npy` files that are mapped into memory, not read, at the next start.

A dataset is found again by a key over the contents of all files that it was made of and the column map, so that a
changed file makes a new entry. An entry appears whole or not at all; what does not match its checksums is made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from marquee.errors import DataError
from marquee.movies import MovieRecord
from training.data.columns import ColumnMap
from training.data.dataset import README_FILE, Dataset, check_folder, event_files, load_dataset, recognise
from training.data.movies import LINKS_FILE, METADATA_FILE
from training.data.report import Dropped, LoadReport

# Begins every key: raise it when preparing or the entries' format changes.
_VERSION = "marquee prepared 2"
_ARRAYS = ("movie_ids", "users", "items", "kinds", "values", "times_ms")
_FACTS, _SUMS = "dataset.json", "checksums.json"


def load_prepared(folder: Path, cache: Path, columns: ColumnMap | None = None) -> Dataset:
    """Loads the dataset of a folder as `load_dataset` does, but prepares the same files only once.

    The arrays of events are read-only maps of files under `cache`, which nobody may change while they are in use.
    Raises DataError where the data cannot be used, or `cache` cannot be written.
    """
    check_folder(folder)
    columns = columns or recognise(folder)
    entry = cache / prepared_key(folder, columns)
    data = _open(entry)
    if data is None:
        _prepare(load_dataset(folder, columns), entry)
        data = _open(entry)
    if data is None:
        raise DataError(f"{entry} was changed while it was written: name a cache folder that only Marquee writes to")
    return data


def prepared_key(folder: Path, columns: ColumnMap) -> str:
    """Hashes all that a dataset depends on: the column map, and names and contents of the files."""
    digest = hashlib.sha256(f"{_VERSION}\n{folder.resolve().name}\n{columns}\n".encode())
    others = (folder / name for name in (columns.movies_file, METADATA_FILE, LINKS_FILE, README_FILE))
    for path in (*event_files(folder, columns), *others):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)} {_sum(path)}\n".encode())
    return digest.hexdigest()[:32]


def _sum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check that it is there and readable") from error


def _prepare(data: Dataset, entry: Path) -> None:
    """Writes an entry, in place of a damaged one where there is one."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".new-") as scratch:
            staged = Path(scratch) / entry.name
            staged.mkdir()
            _write(data, staged)
            if entry.exists():
                shutil.move(entry, Path(scratch) / "damaged")
            _place(staged, entry)
    except OSError as error:
        raise DataError(f"{entry} cannot be written ({error.strerror}): name another cache folder") from error


def _place(staged: Path, entry: Path) -> None:
    try:
        staged.rename(entry)
    except OSError:
        # Whoever was faster wrote the same.
        if not entry.is_dir():
            raise


def _write(data: Dataset, folder: Path) -> None:
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(data, name), allow_pickle=False)
    facts = {
        "name": data.name,
        "movies": data.movies,
        "user_ids": data.user_ids,
        "report": dataclasses.asdict(data.report),
        "simulated": data.simulated,
        "fingerprint": data.fingerprint,
    }
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    sums = {path.name: _sum(path) for path in sorted(folder.iterdir())}
    (folder / _SUMS).write_text(json.dumps(sums), encoding="utf-8")


def _open(entry: Path) -> Dataset | None:
    """Opens an entry; None where there is none, or it does not match its checksums."""
    if not (entry / _SUMS).is_file():
        return None
    try:
        sums = json.loads((entry / _SUMS).read_text(encoding="utf-8"))
    except ValueError:
        return None
    files = (*(f"{name}.npy" for name in _ARRAYS), _FACTS)
    if not isinstance(sums, dict) or not all(
        (entry / name).is_file() and _sum(entry / name) == sums.get(name) for name in files
    ):
        return None
    facts = json.loads((entry / _FACTS).read_text(encoding="utf-8"))
    arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
    return Dataset(
        name=facts["name"],
        movies=[_movie(fields) for fields in facts["movies"]],
        user_ids=facts["user_ids"],
        report=_report(facts["report"]),
        simulated=facts["simulated"],
        fingerprint=facts["fingerprint"],
        **arrays,
    )


def _movie(fields: list[Any]) -> MovieRecord:
    return MovieRecord._make(tuple(field) if isinstance(field, list) else field for field in fields)


def _report(fields: dict[str, Any]) -> LoadReport:
    dropped = tuple(Dropped(**one | {"examples": tuple(one["examples"])}) for one in fields.pop("dropped"))
    return LoadReport(**fields, dropped=dropped)
