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

from marquee.bundle.format import sync_folder
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
        (folder / _ABOUT).write_text(json.dumps(as_json(result.about), indent=1) + "\n", "utf-8")
        if result.vectors_ND is not None:
            np.save(folder / _VECTORS, result.vectors_ND)
        sync_folder(folder, [path.name for path in folder.iterdir()])
        if not place.exists():
            os.rename(folder, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_result(place: Path) -> Result:
    """Reads a result; raises DataError where it is not one."""
    try:
        vectors = place / _VECTORS
        vectors_ND = np.load(vectors) if vectors.exists() else None
        return Result(read_about(place), read_records(place / _RECORDS), vectors_ND)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place}: cannot be read as a run's result ({error}); remove it, and run the command again"
        ) from error


def read_about(place: Path) -> About:
    """Reads what is told of a run."""
    told = json.loads((place / _ABOUT).read_text("utf-8"))
    told["order"] = Order(**told["order"])
    told["passes"] = [Pass(**{name: _number(value) for name, value in one.items()}) for one in told["passes"]]
    told["validation"] = {system: _number(value) for system, value in told["validation"].items()}
    told["ann"] = [bundle_pb2.Metric(**one) for one in told["ann"]]
    return About(**told)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
