"""Offline scoring in process beside bare ONNX Runtime and FAISS: `benchmarks.scoring` times both in one process."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.machine import shares
from benchmarks.report import Row
from benchmarks.work import Work, say

_GOAL = 80.0
_Round = Mapping[str, float]


def measure(work: Work) -> list[Row]:
    """Scores everybody of the data with the bundle that was trained."""
    say("scoring everybody in process")
    told = ("--bundle", work.bundle, "--events", work.data)
    measured = json.loads(work.processes.run("benchmarks.scoring", *told, cores=shares().servers).stdout)
    rounds: list[_Round] = measured["rounds"]
    written = statistics.median(one["written"] for one in rounds)
    return [
        _share("nearest of all movies", [one["onnx"] + one["nearest"] for one in rounds], rounds),
        _share(
            "nearest of those not seen",
            [one["onnx"] + min(one["by_ids"], one["by_bits"]) for one in rounds],
            rounds,
        ),
        Row(
            "batch",
            "offline scoring in process, with Parquet",
            1 / written,
            "people/s",
            None,
            f"{measured['people']} people, one thread",
        ),
    ]


def _share(what: str, bare: Sequence[float], rounds: Sequence[_Round]) -> Row:
    ratios = [100 * parts / one["whole"] for parts, one in zip(bare, rounds, strict=True)]
    beside = f"pairs {min(ratios):.0f} to {max(ratios):.0f} %"
    measured = f"offline scoring in process, of the rate of bare ONNX + FAISS ({what})"
    return Row("batch", measured, statistics.median(ratios), "%", _GOAL, beside, {"rounds": rounds}, at_least=True)
