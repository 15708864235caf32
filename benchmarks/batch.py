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
    rates = [1 / one["written"] for one in rounds]
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
            statistics.median(rates),
            "people/s",
            None,
            f"{measured['people']} people, one thread",
            at_least=True,
            readings=rates,
        ),
    ]


def _share(what: str, bare: Sequence[float], rounds: Sequence[_Round]) -> Row:
    ratios = [100 * parts / one["whole"] for parts, one in zip(bare, rounds, strict=True)]
    beside = f"pairs {min(ratios):.0f} to {max(ratios):.0f} %"
    measured = f"offline scoring in process, of the rate of bare ONNX + FAISS ({what})"
    details = {"rounds": rounds}
    return Row(
        "batch", measured, statistics.median(ratios), "%", _GOAL, beside, details, at_least=True, readings=ratios
    )
