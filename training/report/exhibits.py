"""What the page shows of films and people: the map, nearest neighbours, sample lists.

N movies, D dimension, Q queries, K list length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from marquee.features import Floats, Int64s
from marquee.movies import MovieRecord
from training.report import atlas
from training.report.study import Film, MovieMap, Neighbours, Sample
from training.split import Queries

_FILMS, _NEAREST = 12, 8
_PEOPLE, _SHOWN, _NEWEST = 4, 10, 8


def film(movie: MovieRecord) -> Film:
    """Selects what the page says of a movie."""
    return Film(movie.title, movie.year, movie.genres, movie.rating_count)


def most_rated(movies: Sequence[MovieRecord], count: int) -> Int64s:
    """Lists the rows of the movies with the most ratings, most first; of equals the smaller id."""
    ratings_N = np.array([movie.rating_count for movie in movies])
    return np.argsort(-ratings_N, kind="stable")[:count].astype(np.int64)


def movie_map(tower: str, vectors_ND: Floats, movies: Sequence[MovieRecord]) -> MovieMap:
    """Lays the most rated movies on a plane."""
    rows = most_rated(movies, atlas.MOST)
    xy_N2, method = atlas.project(vectors_ND[rows])
    return MovieMap(tower, method, [film(movies[row]) for row in rows], xy_N2)


def neighbours(vectors_ND: Floats, movies: Sequence[MovieRecord]) -> list[Neighbours]:
    """Finds what lies nearest to the most rated movies, by cosine of unit vectors."""
    found = []
    for row in most_rated(movies, _FILMS):
        cosine_N = vectors_ND @ vectors_ND[row]
        cosine_N[row] = -np.inf
        nearest = np.argsort(-cosine_N, kind="stable")[: min(_NEAREST, len(movies) - 1)]
        found.append(Neighbours(film(movies[row]), [(film(movies[near]), float(cosine_N[near])) for near in nearest]))
    return found


def samples(
    queries: Queries,
    hashes_Q: npt.NDArray[np.uint64],
    lists: Mapping[str, Int64s],
    movies: Sequence[MovieRecord],
) -> list[Sample]:
    """Shows the lists [Q, K] of some systems for a few people, drawn by their hash.

    Half are people for whom a system but popularity found something, the others people for whom none did.
    """
    found_Q = np.zeros(queries.size, bool)
    for system, items_QK in lists.items():
        if system != "popularity":
            found_Q |= queries.hits(items_QK[:, :_SHOWN]).any(axis=1)
    order = np.argsort(hashes_Q, kind="stable")
    served, others = order[found_Q[order]], order[~found_Q[order]]
    drawn = [*served[: _PEOPLE // 2], *others[: _PEOPLE // 2]]
    return [_sample(queries, int(query), lists, movies) for query in drawn]


def _sample(queries: Queries, query: int, lists: Mapping[str, Int64s], movies: Sequence[MovieRecord]) -> Sample:
    history = queries.log.items[queries.starts[query] : queries.ends[query]][::-1]
    targets = queries.targets[queries.offsets[query] : queries.offsets[query + 1]]
    shown = {system: items_QK[query, :_SHOWN].tolist() for system, items_QK in lists.items()}
    return Sample(
        [film(movies[item]) for item in history[:_NEWEST]],
        max(0, len(history) - _NEWEST),
        [film(movies[item]) for item in targets],
        {
            system: [(film(movies[item]), bool(np.isin(item, targets))) for item in items if item >= 0]
            for system, items in shown.items()
        },
    )
