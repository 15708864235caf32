"""Runs the batch command, reads what it wrote, and writes events for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from clients.batch.app import run
from tests.rigs import ROOT

# A moment after every event of the tests.
AS_OF = "2020-01-01T00:00Z"


class Ended(NamedTuple):
    """Says how a run in this process ended."""

    code: int
    said: str


def batch(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """Runs the command to its end, in this process."""
    capsys.readouterr()
    code = 0
    try:
        code = run(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    return Ended(code, capsys.readouterr().err)


def start_batch(*arguments: str) -> subprocess.Popen[str]:
    """Starts the command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "clients.batch", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")},
        stderr=subprocess.PIPE,
        text=True,
    )


def read_lists(out: Path) -> pd.DataFrame:
    """Reads all parts as whoever uses them does."""
    return pd.read_parquet(out)


def write_ratings(folder: Path, people: int, movie_ids: Sequence[int]) -> Path:
    """Writes a MovieLens folder in which person n rated some of the movies, n of them at the most."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["userId,movieId,rating,timestamp"]
    for person in range(1, people + 1):
        for step in range(1 + person % 15):
            movie = movie_ids[(person * 7 + step * 3) % len(movie_ids)]
            rows.append(f"{person},{movie},{1 + (person + step) % 5},{1_500_000_000 + person * 1000 + step}")
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    return folder


def rows_of(frame: pd.DataFrame) -> list[tuple[object, ...]]:
    """Lists the rows without their scores."""
    return list(frame[["user_id", "rank", "movie_id"]].itertuples(index=False, name=None))
