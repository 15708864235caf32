"""Times searches one by one while one parameter is turned; needs NumPy alone, so that peers' environments can run it.

Letters in array names: Q queries, D dimension, K movies found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

K = 100
# The first as a bundle names it.
VECTORS, QUERIES = "item_vectors.npy", "queries.npy"
_ROUNDS = 3

Rows = npt.NDArray[np.int64]
# Finds the rows of the K nearest vectors to a query.
Search = Callable[[npt.NDArray[np.float32]], Rows]


def sweep(turn: Callable[[int], Search], values: Sequence[int], folder: Path, name: str) -> list[dict[str, Any]]:
    """Searches all queries at each value; keeps what was found as `found_file` names it.

    Milliseconds are the median over queries of the best of three rounds: a disturbed round does not count.
    """
    queries_QD = np.load(folder / QUERIES)
    points = []
    for value in values:
        search = turn(value)
        found, seconds = zip(*(_rounds(search, query_D) for query_D in queries_QD), strict=True)
        np.save(found_file(folder, name, value), np.stack(found))
        points.append({"value": value, "ms": 1e3 * float(np.median(seconds))})
    return points


def found_file(folder: Path, name: str, value: int) -> Path:
    """Names the file of the rows that a system found at a value, [Q, K], -1 where it found fewer."""
    return folder / f"found-{name.replace(' ', '-')}-{value}.npy"


def _rounds(search: Search, query_D: npt.NDArray[np.float32]) -> tuple[Rows, float]:
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        rows = search(query_D)
        seconds.append(time.perf_counter() - started)
    return padded(rows), min(seconds)


def padded(rows: Rows) -> Rows:
    """Makes a list K long with -1."""
    return np.pad(rows, (0, K - len(rows)), constant_values=-1)


def resident() -> int:
    """Reads the bytes that this process has resident; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def opened(open_it: Callable[[], Callable[[int], Search]], value: int, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Opens an index and searches every query once; returns how to turn it, and seconds and memory that it took."""
    queries_QD = np.load(folder / QUERIES)
    before, started = resident(), time.perf_counter()
    turn = open_it()
    seconds = time.perf_counter() - started
    search = turn(value)
    for query_D in queries_QD:
        search(query_D)
    return turn, {"open_s": seconds, "resident": resident() - before}
