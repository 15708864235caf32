"""A run's result on disk: per-query records, item vectors where the page shows them, and what is told of the run.

Written under a temporary name and renamed, so that a folder with a run's name is whole.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marquee.bundle.format import sha256_of, sync_folder
from marquee.bundle.v1 import bundle_pb2
from marquee.errors import DataError
from marquee.features import Floats
from training.records import PerQuery, read_records, write_records
from training.report.crew import TEMPORARY
from training.report.plan import Order
from training.report.study import Pass, as_json

_RECORDS, _ABOUT, _VECTORS = "results.npz", "results.json", "vectors.npy"


class About(NamedTuple):
    """Tells of a run.

    `settings` are the effective ones by system; `passes` and `best` are a tower's way; `notes` are for people.
    """

    order: Order
    fingerprint: str
    code: str
    finished_at: str
    machine: str
    versions: dict[str, str]
    settings: dict[str, dict[str, Any]]
    validation: dict[str, float]
    passes: list[Pass]
    best: int
    timings_s: dict[str, float]
    notes: list[str]
    ann: list[bundle_pb2.Metric]


class Result(NamedTuple):
    """Holds what a run came to; `vectors_ND` are kept of the runs that the page shows films of."""

    about: About
    record: PerQuery
    vectors_ND: Floats | None


def write_result(result: Result, place: Path) -> None:
    """Writes a result to `place`, whole or not at all; a result that is there already stays."""
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=place.parent))
    try:
        write_records(folder / _RECORDS, result.record)
        if result.vectors_ND is not None:
            np.save(folder / _VECTORS, result.vectors_ND)
        sums = {path.name: sha256_of(path) for path in folder.iterdir()}
        told = {"sha256": sums, "about": as_json(result.about)}
        (folder / _ABOUT).write_text(json.dumps(told, indent=1) + "\n", "utf-8")
        folder.chmod(0o755)  # a temporary folder is its maker's alone
        sync_folder(folder, [path.name for path in folder.iterdir()])
        if not place.exists():
            os.rename(folder, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_result(place: Path) -> Result:
    """Reads a result; raises DataError where it is not one, or not what was written."""
    about, sums = _told(place)
    for name, sha256 in sums.items():
        if not (place / name).is_file() or sha256_of(place / name) != sha256:
            raise DataError(f"{place / name} is not what the run wrote; remove {place}, and run the command again")
    vectors_ND = np.load(place / _VECTORS) if _VECTORS in sums else None
    return Result(about, read_records(place / _RECORDS), vectors_ND)


def read_about(place: Path) -> About:
    """Reads what is told of a run; raises DataError where nothing is."""
    return _told(place)[0]


def _told(place: Path) -> tuple[About, dict[str, str]]:
    try:
        stored = json.loads((place / _ABOUT).read_text("utf-8"))
        about = stored["about"]
        about["order"] = Order(**about["order"])
        about["passes"] = [Pass(**{name: _number(value) for name, value in one.items()}) for one in about["passes"]]
        about["validation"] = {system: _number(value) for system, value in about["validation"].items()}
        about["ann"] = [bundle_pb2.Metric(**one) for one in about["ann"]]
        return About(**about), stored["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place / _ABOUT} tells of no run ({error}); remove {place}, and run the command again"
        ) from error


def _number(value: float | None) -> float:
    return math.nan if value is None else value
