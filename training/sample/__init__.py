"""The embedded sample: real films, simulated viewers, written as a MovieLens folder.

`films.csv` holds facts about well-known films and the one planted taste of each. The viewers are made
from those tastes by `training.sample.simulate`, so the right recommendation is known.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.sample.folder import new_folder
from training.sample.simulate import Rating, simulate

__all__ = ["SIMULATED_NOTICE", "load_tastes", "new_folder", "write_sample"]

SIMULATED_NOTICE = "The viewers and ratings of this data are simulated: no person gave them."

FILMS = Path(__file__).with_name("films.csv")
METADATA_HEADER = (
    "movieId",
    "language",
    "release_date",
    "runtime_minutes",
    "vote_average",
    "vote_count",
    "directors",
    "cast",
)

README = """\
Marquee sample data

{notice}

The films in movies.csv and metadata.csv (titles, years, genres, languages, directors) are real facts,
written down for Marquee from general knowledge; movieId is Marquee's own numbering. Cells that are not
known are empty.

The {viewers} viewers in ratings.csv do not exist. Each was given a main taste, some a second one, out of:
{tastes}.
They were drawn with seed {seed}; the same seed, count of viewers and NumPy give the same files.

A model's scores on this data show that the code works. They say nothing about real people.
"""


class Film(NamedTuple):
    """One row of films.csv; genres and directors are separated by `|`."""

    movie_id: int
    title: str
    genres: str
    language: str
    directors: str
    taste: str


def write_sample(folder: Path, *, seed: int = 7, viewers: int = 400) -> None:
    """Writes the films and simulated viewers to `folder`, which appears whole or not at all.

    The folder holds movies.csv, metadata.csv, ratings.csv and README.txt in MovieLens format. Raises
    FileExistsError where `folder` already holds something, ValueError where `viewers` is below 1.
    """
    with new_folder(folder) as staged:
        _write_files(staged, seed=seed, viewers=viewers)


def load_tastes() -> dict[int, str]:
    """Returns the planted taste of every film by movie id."""
    return {film.movie_id: film.taste for film in _load_films()}


def _load_films() -> list[Film]:
    with FILMS.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [Film(int(movie_id), *rest) for movie_id, *rest in rows]


def _write_files(folder: Path, *, seed: int, viewers: int) -> None:
    films = _load_films()
    tastes, taste_N = np.unique([film.taste for film in films], return_inverse=True)
    ratings = simulate(taste_N, viewers=viewers, seed=seed)
    _write_movies(folder, films)
    _write_ratings(folder, films, ratings)
    readme = README.format(notice=SIMULATED_NOTICE, viewers=viewers, seed=seed, tastes=", ".join(tastes))
    (folder / "README.txt").write_text(readme, encoding="utf-8", newline="\n")


def _write_movies(folder: Path, films: Sequence[Film]) -> None:
    movies = ((film.movie_id, film.title, film.genres) for film in films)
    _write_csv(folder / "movies.csv", ("movieId", "title", "genres"), movies)
    metadata = ((film.movie_id, film.language, "", "", "", "", film.directors, "") for film in films)
    _write_csv(folder / "metadata.csv", METADATA_HEADER, metadata)


def _write_ratings(folder: Path, films: Sequence[Film], ratings: Sequence[Rating]) -> None:
    rows = ((seen.user_id, films[seen.film].movie_id, seen.stars, seen.timestamp) for seen in ratings)
    _write_csv(folder / "ratings.csv", ("userId", "movieId", "rating", "timestamp"), rows)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
