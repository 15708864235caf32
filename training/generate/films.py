"""Invents what generated movies are called: titles, years and genres that go with their topics.

Letters in array names: K topics, N movies.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.generate.process import World

_FILMS = 3
GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
# First and second words of titles, a line each.
_FIRST, _SECOND = (
    line.split() for line in Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines()
)
_EARLIEST, _LATEST = 1930, 2018
_OWN_GENRES, _OWN_WORDS = 3, 6
_GENRE_CHANCES = (0.85, 0.45, 0.2)
_FOREIGN_GENRE = 0.1
_YEARS_SPREAD = 12.0


class Films(NamedTuple):
    """Holds one entry a movie, by ascending id; `slots` [N] say which movie of the world each is."""

    movie_ids: npt.NDArray[np.int64]
    titles: list[str]
    genres: list[str]
    slots: npt.NDArray[np.int64]


def invent_films(world: World, seed: int) -> Films:
    """Invents the films of a world; ids are spread and say nothing of topic or popularity."""
    rng = np.random.default_rng((seed, _FILMS))
    slots_N = rng.permutation(world.slots)
    topic_N = slots_N // world.weight_KM.shape[1]
    movie_ids = 1 + np.sort(rng.choice(3 * len(slots_N), len(slots_N), replace=False)).astype(np.int64)
    return Films(movie_ids, _titles(rng, topic_N), _genres(rng, topic_N), slots_N)


def _titles(rng: np.random.Generator, topic_N: npt.NDArray[np.int64]) -> list[str]:
    """Writes "Silent Harbour 17 (1994)": the noun and the year lean to the topic, the number tells namesakes apart."""
    topics, count = int(topic_N.max()) + 1, len(topic_N)
    word_KW = rng.integers(0, len(_SECOND), (topics, _OWN_WORDS))
    second_N = word_KW[topic_N, rng.integers(0, _OWN_WORDS, count)]
    first_N = rng.integers(0, len(_FIRST), count)
    centre_K = rng.uniform(_EARLIEST + 30, _LATEST, topics)
    year_N = np.clip(rng.normal(centre_K[topic_N], _YEARS_SPREAD), _EARLIEST, _LATEST).astype(np.int64)
    seen: dict[tuple[int, int], int] = {}
    titles = []
    for first, second, year in zip(first_N.tolist(), second_N.tolist(), year_N.tolist(), strict=True):
        number = seen[first, second] = seen.get((first, second), 0) + 1
        suffix = f" {number}" if number > 1 else ""
        titles.append(f"{_FIRST[first]} {_SECOND[second]}{suffix} ({year})")
    return titles


def _genres(rng: np.random.Generator, topic_N: npt.NDArray[np.int64]) -> list[str]:
    """Gives each topic three genres, and each movie some of its topic's, rarely another one."""
    topics = int(topic_N.max()) + 1
    own_KG = np.stack([rng.choice(len(GENRES), _OWN_GENRES, replace=False) for _ in range(topics)])
    has_NG = np.zeros((len(topic_N), len(GENRES)), bool)
    rows = np.arange(len(topic_N))
    for place, chance in enumerate(_GENRE_CHANCES):
        has_NG[rows, own_KG[topic_N, place]] = rng.random(len(rows)) < chance
    foreign = rng.random(len(rows)) < _FOREIGN_GENRE
    has_NG[rows[foreign], rng.integers(0, len(GENRES), int(foreign.sum()))] = True
    has_NG[rows, own_KG[topic_N, 0]] |= ~has_NG.any(axis=1)
    return ["|".join(GENRES[genre] for genre in np.flatnonzero(row)) for row in has_NG]
