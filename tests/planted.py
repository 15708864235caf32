"""Data with planted tastes, so that the right recommendation is known.

Each film and each person has one of four tastes. People watch and like films of their own taste, and try a few of
others that they do not like; every taste is as popular as the next, so popularity recommends the same mixture to all.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

TASTES = ("space", "love", "crime", "songs")
FILMS_OF_A_TASTE = 40
OWN, OTHERS = 18, 3
PEOPLE_OF_A_TASTE = 60
START = 1_500_000_000


def taste_of(movie_id: int) -> str:
    """Names the taste of a film."""
    return TASTES[(movie_id - 1) // FILMS_OF_A_TASTE]


def person(taste: str, number: int) -> str:
    """Names a person of a taste."""
    return f"{taste}-{number}"


def write_planted(folder: Path, seed: int = 11) -> Path:
    """Writes the data as a MovieLens folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    _write(folder / "movies.csv", ("movieId", "title", "genres"), _movies())
    _write(folder / "ratings.csv", ("userId", "movieId", "rating", "timestamp"), _ratings(rng))
    return folder


def _movies() -> Iterable[Sequence[object]]:
    # Titles and genres say nothing of the taste: only who watched what does.
    for movie_id in range(1, len(TASTES) * FILMS_OF_A_TASTE + 1):
        yield movie_id, f"Film {movie_id} ({1960 + movie_id % 60})", ("Drama", "Comedy")[movie_id % 2]


def _ratings(rng: np.random.Generator) -> Iterable[Sequence[object]]:
    films = np.arange(len(TASTES) * FILMS_OF_A_TASTE) + 1
    for place, taste in enumerate(TASTES):
        own = (films - 1) // FILMS_OF_A_TASTE == place
        for number in range(PEOPLE_OF_A_TASTE):
            watched = np.concatenate(
                [rng.choice(films[own], OWN, replace=False), rng.choice(films[~own], OTHERS, replace=False)]
            )
            for step, film in enumerate(rng.permutation(watched)):
                stars = rng.choice([4.0, 4.5, 5.0] if own[film - 1] else [1.5, 2.0, 2.5])
                yield person(taste, number), int(film), stars, START + number * 100_000 + step * 600


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
