"""A whole bundle of a million movies: `python -m benchmarks.millionth MADE BUNDLE`, out of what `million` made.

Every movie has a director, a cast of five, a language and ratings: what a retriever reads of it when it starts.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.million import draft_of, films, read_chosen
from marquee.bundle import format
from marquee.bundle.catalog import write_catalog
from marquee.bundle.format import Bundle, BundleWriter
from marquee.bundle.gate import Evaluation
from marquee.bundle.probes import write_npz
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.kinds import IVF_FP16
from marquee.movies import MovieRecord
from training.export import write_probe_part
from training.model import TowerConfig
from training.train import spec_of

_DIRECTORS, _ACTORS, _CAST = 60_000, 400_000, 5
_LANGUAGES = ("en", "en", "en", "fr", "ja", "ko", "hi", "es")
_SEED = 7


def with_people(movies: Sequence[MovieRecord], *, seed: int = _SEED) -> Iterator[MovieRecord]:
    """Adds people, languages and ratings; the fewer the later a movie's number."""
    rng = random.Random(seed)
    for place, movie in enumerate(movies, start=1):
        cast = {f"Actor {int(_ACTORS * rng.random() ** 2)} of the Stage" for _ in range(_CAST)}
        # The index counts them from 1.
        yield movie._replace(
            movie_id=place,
            language=rng.choice(_LANGUAGES),
            directors=(f"Director {int(_DIRECTORS * rng.random() ** 2)}",),
            cast=tuple(sorted(cast)),
            external_id=f"imdb:tt{place:07d}",
            mean_rating=rng.randrange(5, 51) / 10,
            rating_count=3_000_000 // place,
        )


def write_bundle(made: Path, draft: Bundle, movies: Sequence[MovieRecord], destination: Path) -> Bundle:
    """Writes a bundle around the towers that were made and the vectors and the index of a draft."""
    tower = TowerConfig(dimension=draft.manifest.features.dimension)
    with BundleWriter(destination) as writer:
        for name in (format.USER_TOWER, format.ITEM_TOWER, format.HISTORY_IDS, format.HISTORY_TABLE):
            shutil.copy(made / name, writer.folder / name)
        for name in (format.MOVIE_IDS, format.ITEM_VECTORS, format.INDEX):
            shutil.copy(draft.file(name), writer.folder / name)
        write_catalog(writer.folder / format.CATALOG, movies)
        manifest = bundle_pb2.Manifest(
            features=spec_of(tower),
            tower=bundle_pb2.TowerSpec(kind=tower.kind),
            index=draft.manifest.index,
            dataset=bundle_pb2.Dataset(name=f"{len(movies):,} invented films", movies=len(movies), simulated=True),
            trained_history_rows=len(np.load(writer.folder / format.HISTORY_IDS)),
            movies=len(movies),
        )
        write_probe_part(Bundle(writer.folder, "", manifest), seed=_SEED)
        nobody = Evaluation(np.zeros(0, np.uint64), np.zeros(0, np.float32), np.zeros(0, np.float32))
        write_npz(writer.folder / format.EVALUATION, nobody._asdict())
        return writer.finish(manifest, bundle_pb2.Report())


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.millionth", description=__doc__)
    parser.add_argument("made", type=Path, help="folder that `benchmarks.million` filled")
    parser.add_argument("bundle", type=Path, help="folder to write the bundle to")
    options = parser.parse_args(arguments)
    draft = draft_of(options.made / IVF_FP16, read_chosen(options.made / IVF_FP16))
    print(write_bundle(options.made, draft, list(with_people(films())), options.bundle).id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
