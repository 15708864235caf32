"""Probes: synthetic histories with the answers that the exporting machine gave, replayed before a replica serves.

A probe is never a real person's history. P probes, n events in all, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from marquee.bundle.format import PROBES, Bundle
from marquee.errors import BundleError
from marquee.features import Events, Floats, Int64s

PROBE_TOLERANCE = 1e-5
TOP = 10


class Probes(NamedTuple):
    """Holds P probes: raw events, flat with offsets, and the vector and top movies that each must give.

    `offsets` is [P + 1] into the event columns; `as_of_ms` [P]; `vectors` [P, D]; `top_ids` [P, 10], -1 where the
    catalogue is smaller.
    """

    movie_ids: Int64s
    kinds: Int64s
    values: Floats
    times_ms: Int64s
    offsets: Int64s
    as_of_ms: Int64s
    vectors: Floats
    top_ids: Int64s

    def events(self, probe: int) -> Events:
        """Selects the events of one probe."""
        of = slice(int(self.offsets[probe]), int(self.offsets[probe + 1]))
        return Events(self.movie_ids[of], self.kinds[of], self.values[of], self.times_ms[of])

    def cases(self) -> Iterator[tuple[Events, int, Floats]]:
        """Yields each probe's events, as_of and expected vector [D]."""
        for probe in range(len(self.as_of_ms)):
            yield self.events(probe), int(self.as_of_ms[probe]), self.vectors[probe]


def write_probes(path: Path, probes: Probes) -> None:
    """Writes probes as an .npz file with fixed bytes."""
    write_npz(path, probes._asdict())


def write_npz(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    """Writes arrays as an .npz file; equal arrays give equal bytes (numpy dates its zip entries 1980-01-01)."""
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_npz(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Reads every array of an .npz file; raises BundleError where it is not one."""
    try:
        # Opened here: np.load leaves open what is no zip file.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, EOFError, KeyError, BadZipFile) as error:
        raise BundleError(f"{path}: not a readable .npz file ({error}); publish the bundle again") from error


def read_probes(bundle: Bundle) -> Probes:
    """Reads the probes of a bundle; raises BundleError where they are not of its dimension."""
    path = bundle.file(PROBES)
    arrays = read_npz(path)
    missing = set(Probes._fields) - set(arrays)
    if missing:
        raise BundleError(f"{path}: has no {', '.join(sorted(missing))}; publish the bundle again")
    columns: list[Any] = [arrays[name] for name in Probes._fields]
    probes = Probes(*columns)
    if probes.vectors.shape != (len(probes.as_of_ms), bundle.features.dimension):
        raise BundleError(
            f"{path}: the vectors are {probes.vectors.shape}, the bundle has {bundle.features.dimension} dimensions; "
            "export the bundle again"
        )
    return probes


def synthetic_histories(history_ids: Int64s, max_history: int, seed: int) -> list[tuple[Events, int]]:
    """Makes up histories that reach every branch of the encoding, each with its as_of.

    None, one event, every kind, a full history, more than fits, movies that nobody knows, ages from none to years.
    """
    rng = np.random.default_rng(seed)
    as_of_ms = 1_600_000_000_000
    cases = [
        _synthetic(rng, history_ids, count, as_of_ms) for count in (0, 1, 2, 5, 12, 30, max_history, max_history + 7)
    ]
    some = _synthetic(rng, history_ids, 6, as_of_ms)
    every_other = np.arange(some.size) % 2 == 1
    unknown = some._replace(movie_ids=np.where(every_other, some.movie_ids + 2**60, some.movie_ids))
    return [(events, as_of_ms) for events in [*cases, unknown]] + [(cases[4], as_of_ms + 10 * 365 * 86_400_000)]


def _synthetic(rng: np.random.Generator, history_ids: Int64s, count: int, as_of_ms: int) -> Events:
    count = min(count, len(history_ids))
    kinds = rng.integers(1, 8, count) if count % 2 == 0 else np.ones(count, np.int64)
    values = np.where(kinds == 1, rng.integers(1, 11, count) / 2, 0).astype(np.float32)
    times = np.sort(as_of_ms - np.exp(rng.uniform(0, 26, count)).astype(np.int64))
    return Events(rng.choice(history_ids, count, replace=False), kinds.astype(np.int64), values, times)
