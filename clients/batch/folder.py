"""The folder of a run: parts as Parquet, and a manifest that says what they are and which are there.

While it is made its name ends in `.unfinished`, so that who reads DIR reads all lists or none. A part counts
once it is in the manifest; one that a killed process wrote and did not note is written again, under the same name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clients.batch.lists import Lists, Origin
from marquee.bundle.format import sync_folder
from marquee.errors import DataError
from marquee.whole_files import read_json, write_json, write_whole

FORMAT = 1
# Readers of folders of Parquet pass over names that begin so.
MANIFEST, PEOPLE = "_manifest.json", "_people.parquet"

_USER_IDS = pa.schema({"user_id": pa.string()})


class RunFolder:
    """Holds what a run has made so far; `made` counts its parts, and `people` is everybody it is for."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self._folder = folder
        self._manifest = manifest
        self.people: list[str] = _read_people(folder / PEOPLE)

    @property
    def origin(self) -> Origin:
        """Says what the lists are made with."""
        return Origin(self._manifest["bundle_id"], self._manifest["space"])

    @property
    def as_of_ms(self) -> int:
        """Says the moment that the lists are for, UTC milliseconds."""
        return int(self._manifest["as_of_ms"])

    @property
    def made(self) -> int:
        """Counts the parts that are there."""
        return len(self._manifest["parts"])

    def total(self, name: str) -> int:
        """Adds up a figure of the parts: people or rows."""
        return sum(part[name] for part in self._manifest["parts"])

    def add(self, lists: Lists) -> None:
        """Writes the next part and notes it."""
        name = f"part-{self.made:05}.parquet"
        table = self._table(lists)
        write_whole(self._folder / name, lambda path: parquet.write_table(table, path, compression="zstd"))
        part = {"name": name, "people": len(lists.user_ids), "rows": table.num_rows}
        self._manifest = {**self._manifest, "parts": [*self._manifest["parts"], part]}
        write_json(self._folder / MANIFEST, self._manifest)

    def _table(self, lists: Lists) -> pa.Table:
        owners = np.repeat(np.arange(len(lists.user_ids), dtype=np.int32), lists.counts_B)
        starts = np.cumsum(lists.counts_B) - lists.counts_B
        ranks = 1 + np.arange(len(owners)) - np.repeat(starts, lists.counts_B)
        user_ids = pa.array(lists.user_ids, pa.string())
        table = pa.table(
            {
                "user_id": pa.DictionaryArray.from_arrays(owners, user_ids).dictionary_decode(),
                "rank": ranks.astype(np.int32),
                "movie_id": lists.movie_ids_n,
                "score": lists.scores_n,
            }
        )
        facts = {**self.origin._asdict(), "as_of_ms": str(self.as_of_ms)}
        return table.replace_schema_metadata({f"marquee.{name}": value for name, value in facts.items()})


def _read_people(path: Path) -> list[str]:
    try:
        ids: list[str] = parquet.read_table(path)["user_id"].to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove the folder, and begin anew") from error
    return ids


def unfinished(out: Path) -> Path:
    """Names the folder that a run is made in."""
    return out.with_name(f"{out.name}.unfinished")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Reads a run's manifest; None where none was begun."""
    manifest = read_json(folder / MANIFEST)
    if manifest is not None and manifest.get("format") != FORMAT:
        raise DataError(f"{folder / MANIFEST} is of another version of this command; name another folder with --out")
    return manifest


def check_same(manifest: Mapping[str, Any], asked: Mapping[str, object], folder: Path) -> None:
    """Raises DataError where a run was begun with other settings."""
    begun: Mapping[str, object] = manifest["asked"]
    for name in asked:
        if begun.get(name) != asked[name]:
            raise DataError(
                f"{folder} was begun with {name} {begun.get(name)!r}, and this is {asked[name]!r}: go on with what it "
                "was, or name another folder with --out"
            )


def begin(folder: Path, asked: Mapping[str, object], origin: Origin, as_of_ms: int, people: list[str]) -> None:
    """Writes down whom a run is for and what it is made with; from then on it can be gone on with."""
    table = pa.table({"user_id": people}, schema=_USER_IDS)
    write_whole(folder / PEOPLE, lambda path: parquet.write_table(table, path, compression="zstd"))
    manifest = {"format": FORMAT, "asked": dict(asked), **origin._asdict(), "as_of_ms": as_of_ms, "parts": []}
    write_json(folder / MANIFEST, manifest)


def finish(out: Path) -> None:
    """Gives the folder its name."""
    folder = unfinished(out)
    for left in folder.glob("*.writing"):
        left.unlink()
    os.replace(folder, out)
    sync_folder(out.parent, [])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it for this process alone, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise DataError(f"{folder}: another process makes lists there; wait for it, or name another folder") from error
    finally:
        os.close(handle)
