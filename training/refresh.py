"""Adds and removes movies without retraining: `python -m training.refresh --movies new.csv --remove 1 2`.

Publishes a revision of the active bundle's space. Every vector of that space stays comparable: towers and trained
history rows are those of the old bundle, and a new movie's history row is computed from its content.
N movies, D dimension.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from marquee.bundle import format
from marquee.bundle.catalog import Catalog
from marquee.bundle.format import Bundle, BundleWriter
from marquee.bundle.gate import check_consistent
from marquee.bundle.registry import Pointer, Registry
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.encoder import ItemTower
from marquee.engine.kinds import read_spec, write_index
from marquee.errors import DataError, RegistryError
from marquee.features import Floats, HistoryIndex, Int64s, content_ids
from marquee.movies import MovieRecord
from training.command import run_command
from training.data import ColumnMap, load_movies
from training.export import write_catalogue_part, write_probe_part

_CARRIED = (format.USER_TOWER, format.ITEM_TOWER, format.EVALUATION)


def refresh(base: Bundle, changed: Sequence[MovieRecord], removed: Sequence[int], destination: Path) -> Bundle:
    """Writes a revision of `base` with movies added, changed and removed.

    A movie whose content stays keeps its vector to the bit. Raises DataError where a movie to remove is not there, or
    nothing would be left.
    """
    old = _movies_of(base)
    missing = sorted(set(removed) - old.keys())
    if missing:
        raise DataError(
            f"movie {missing[0]} cannot be removed: the catalogue of bundle {base.id[:12]} has no such movie"
        )
    movies = old | {movie.movie_id: _updated(old.get(movie.movie_id), movie) for movie in changed}
    for movie_id in removed:
        movies.pop(movie_id, None)
    if not movies:
        raise DataError("nothing would be left of the catalogue: remove fewer movies")
    with BundleWriter(destination) as writer:
        for name in _CARRIED:
            shutil.copyfile(base.file(name), writer.folder / name)
        _write_revision(base, old, [movies[movie_id] for movie_id in sorted(movies)], writer.folder)
        manifest = bundle_pb2.Manifest()
        manifest.CopyFrom(base.manifest)
        manifest.movies = len(movies)
        write_probe_part(Bundle(writer.folder, "", manifest), seed=manifest.seed)
        report = base.report()
        report.carried_from = report.carried_from or base.id
        return writer.finish(manifest, report)


def publish_refresh(
    registry: Registry, changed: Sequence[MovieRecord], removed: Sequence[int]
) -> tuple[Bundle, Pointer]:
    """Refreshes the registry's active bundle and publishes the revision.

    Its towers were judged when they were published and its evaluation is carried, so the gate asks only whether the
    revision is of one piece. Starts over where another refresh was faster, so that neither is lost.
    """
    while True:
        pointer = registry.read()
        if not pointer.active:
            raise RegistryError(f"{registry.root}: no bundle is active; activate one first")
        base = registry.open(pointer.active)
        with tempfile.TemporaryDirectory(prefix="marquee-refresh-") as scratch:
            revision = refresh(base, changed, removed, Path(scratch) / "bundle")
            try:
                pointer = registry.publish(revision.path, check=partial(_check_revision, base))
            except _BaseMovedError:
                continue
            return registry.open(revision.id), pointer


class _BaseMovedError(RegistryError):
    """Says that the active bundle is no longer the one that was revised."""


def _check_revision(base: Bundle, candidate: Bundle, active: Bundle | None) -> None:
    if active is None or active.id != base.id:
        raise _BaseMovedError(f"the active bundle is no longer {base.id[:12]}; refresh again")
    check_consistent(candidate)


def _updated(old: MovieRecord | None, movie: MovieRecord) -> MovieRecord:
    """Changes what the new record says; what it leaves empty stays as it was, ratings too, which training counts."""
    if old is None:
        return movie
    said = {name: value for name, value in movie._asdict().items() if value not in (None, "", (), 0)}
    return old._replace(**said)


def _movies_of(bundle: Bundle) -> dict[int, MovieRecord]:
    catalog = Catalog(bundle.file(format.CATALOG))
    try:
        return {movie.movie_id: movie for movie in catalog.all()}
    finally:
        catalog.close()


def _write_revision(base: Bundle, old: dict[int, MovieRecord], movies: list[MovieRecord], folder: Path) -> None:
    history_ids = np.asarray(base.array(format.HISTORY_IDS), np.int64)
    table_ND = np.asarray(base.array(format.HISTORY_TABLE), np.float32)
    content_NT = content_ids(movies, base.features)
    movie_ids = np.array([movie.movie_id for movie in movies], np.int64)
    towers = ItemTower(base)
    fresh_N = HistoryIndex(history_ids).rows(movie_ids) < 0
    if np.any(fresh_N):
        history_ids = np.concatenate([history_ids, movie_ids[fresh_N]])
        table_ND = np.concatenate([table_ND, towers.content_rows(content_NT[fresh_N], table_ND.shape[1])])
    rows_ND = table_ND[HistoryIndex(history_ids).rows(movie_ids)]
    np.save(folder / format.HISTORY_IDS, history_ids)
    np.save(folder / format.HISTORY_TABLE, table_ND)
    vectors_ND = _vectors(base, old, movies, towers, rows_ND, content_NT)
    write_catalogue_part(folder, movies, vectors_ND)
    write_index(folder / format.INDEX, vectors_ND, read_spec(base.manifest.index, base.file(format.INDEX)))


def _vectors(
    base: Bundle,
    old: dict[int, MovieRecord],
    movies: list[MovieRecord],
    towers: ItemTower,
    rows_ND: Floats,
    content_NT: Int64s,
) -> Floats:
    """Copies the vectors of movies whose content stays, and computes the others."""
    place = {int(movie_id): row for row, movie_id in enumerate(base.array(format.MOVIE_IDS))}
    same_N = np.array([movie.movie_id in old for movie in movies], bool)
    before = [old[movie.movie_id] for movie in movies if movie.movie_id in old]
    same_N[same_N] = np.all(content_ids(before, base.features) == content_NT[same_N], axis=1)
    vectors_ND = np.empty_like(rows_ND)
    kept = [place[movie.movie_id] for movie, same in zip(movies, same_N, strict=True) if same]
    vectors_ND[same_N] = base.array(format.ITEM_VECTORS)[kept]
    if not np.all(same_N):
        vectors_ND[~same_N] = towers.embed(rows_ND[~same_N], content_NT[~same_N])
    return vectors_ND


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.refresh", description=__doc__)
    parser.add_argument(
        "--movies",
        type=Path,
        help="CSV of movies to add or change: movieId,title,genres; a metadata.csv "
        "and links.csv beside it are read too",
    )
    parser.add_argument("--remove", type=int, nargs="*", default=[], metavar="ID", help="movies to remove")
    default = os.environ.get("MARQUEE_REGISTRY") or ".marquee/registry"
    parser.add_argument("--registry", type=Path, default=Path(default), help="the registry (%(default)s)")
    options = parser.parse_args(arguments)
    if options.movies is None and not options.remove:
        parser.error("nothing to do: give --movies, --remove or both")
    return run_command("refresh", lambda: _refresh(options), interrupted="; nothing was published")


def _refresh(options: argparse.Namespace) -> None:
    started = time.perf_counter()
    changed = _read(options.movies) if options.movies else []
    bundle, pointer = publish_refresh(Registry(options.registry), changed, options.remove)
    print(
        f"{len(changed)} added or changed, {len(options.remove)} removed: bundle {bundle.id[:12]} of space "
        f"{bundle.space[:12]} is published, generation {pointer.generation} "
        f"({time.perf_counter() - started:.1f} s)"
    )


def _read(path: Path) -> list[MovieRecord]:
    if not path.is_file():
        raise DataError(f"{path} is not a file: name a CSV with movieId,title,genres")
    movies = load_movies(path.parent, ColumnMap(movies_file=path.name))
    for rejects in movies.rejects:
        for dropped in rejects.dropped():
            print(f"refresh: {path}: {dropped}", file=sys.stderr)
    return movies.records


if __name__ == "__main__":
    sys.exit(main())
