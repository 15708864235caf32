"""Writes generated data as a folder: MovieLens' CSV, or the Parquet shards that the live services export."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from marquee.errors import ConfigError
from marquee.features import MAX_RATING, RATED
from training.generate.films import Films, invent_films
from training.generate.process import Int64s, Process, Walks, World, blocks, build_world, generate, history_lengths
from training.sample import SIMULATED_NOTICE, new_folder

Format = Literal["csv", "parquet"]

README = """\
Marquee generated data

{notice}

The movies are invented as well: titles, years and genres are drawn from lists of words. Made by
`python -m training.generate --people {people} --movies {movies} --events {events} --seed {seed}`;
the same seed, sizes and NumPy give the same files. What comes next depends on the last two movies:
training/generate/__init__.py says how. The constants:

{constants}

A model's scores on this data show whether it learns order. They say nothing about real people.
"""
_STARS = [f"{half / 2:.1f}" for half in range(int(MAX_RATING * 2) + 1)]
_SHARD_EVENTS = 2_000_000


def write_generated(
    folder: Path,
    *,
    people: int,
    movies: int,
    events: int,
    seed: int = 0,
    process: Process | None = None,
    file_format: Format = "csv",
) -> None:
    """Writes movies.csv, README.txt and the events to `folder`, which appears whole or not at all.

    Events are ratings.csv, sorted as MovieLens' by person and movie, or events/part-*.parquet with the columns that
    the live services export. Raises FileExistsError where `folder` already holds something, ConfigError where the
    sizes do not go together.
    """
    if seed < 0:
        raise ConfigError(f"--seed is {seed}: name one from 0", field="seed")
    process = process or Process()
    world = build_world(process, movies, seed)
    lengths = history_lengths(process, people, movies, events, seed)
    films = invent_films(world, seed)
    walks = (generate(process, world, block, lengths[block], seed) for block in blocks(lengths, world))
    with new_folder(folder) as staged:
        _write_movies(staged / "movies.csv", films)
        constants = "\n".join(f"{name} = {value}" for name, value in dataclasses.asdict(process).items())
        sizes = {"people": people, "movies": movies, "events": events, "seed": seed}
        readme = README.format(notice=SIMULATED_NOTICE, constants=constants, **sizes)
        (staged / "README.txt").write_text(readme, encoding="utf-8", newline="\n")
        if file_format == "csv":
            _write_ratings(staged / "ratings.csv", walks, _ids_of_slots(films, world))
        else:
            _write_shards(staged / "events", walks, _ids_of_slots(films, world))


def _ids_of_slots(films: Films, world: World) -> Int64s:
    ids_S = np.zeros(world.weight_KM.size, np.int64)
    ids_S[films.slots] = films.movie_ids
    return ids_S


def _write_movies(path: Path, films: Films) -> None:
    _write_csv(path, {"movieId": films.movie_ids, "title": films.titles, "genres": films.genres})


def _write_csv(path: Path, columns: dict[str, Any]) -> None:
    # No cell holds a comma or a quote.
    plain = pyarrow.csv.WriteOptions(quoting_style="none", quoting_header="none")
    pyarrow.csv.write_csv(pa.table(columns), path, plain)


def _write_ratings(path: Path, walks: Iterator[Walks], ids_S: Int64s) -> None:
    parts = list(walks)
    people, slots, stars, times_s = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((ids_S[slots], people))
    words = pa.DictionaryArray.from_arrays((stars[order] * 2).astype(np.int8), _STARS).cast(pa.string())
    columns = {"userId": people[order] + 1, "movieId": ids_S[slots[order]], "rating": words}
    _write_csv(path, columns | {"timestamp": times_s[order]})


def _write_shards(folder: Path, walks: Iterator[Walks], ids_S: Int64s) -> None:
    folder.mkdir()
    for number, shard in enumerate(_shards(walks)):
        people, slots, stars, times_s = shard
        names, codes = np.unique(people, return_inverse=True)
        users = pa.DictionaryArray.from_arrays(codes.astype(np.int32), [str(name + 1) for name in names.tolist()])
        table = {
            "user_id": users.cast(pa.string()),
            "movie_id": ids_S[slots],
            "kind": np.full(len(slots), RATED, np.int32),
            "value": stars,
            "time_ms": times_s * 1000,
        }
        pa.parquet.write_table(pa.table(table), folder / f"part-{number:05}.parquet", compression="zstd")


def _shards(walks: Iterator[Walks]) -> Iterator[Walks]:
    """Gathers blocks until a shard is full; a block is never split."""
    gathered: list[Walks] = []
    for walk in walks:
        gathered.append(walk)
        if sum(len(one.slots) for one in gathered) >= _SHARD_EVENTS:
            yield _joined(gathered)
            gathered = []
    if gathered:
        yield _joined(gathered)


def _joined(walks: list[Walks]) -> Walks:
    return Walks(*(np.concatenate(column) for column in zip(*walks, strict=True)))
