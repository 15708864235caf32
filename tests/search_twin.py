"""The plain twin of Search: every movie is looked at, filters are read word by word, lists are picked one by one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.format import ITEM_VECTORS, MOVIE_IDS, Bundle
from marquee.engine.kinds import Spec
from marquee.movies import MovieRecord
from marquee.v1 import retriever_pb2, types_pb2
from tests.bundles import EXACTLY, GENRES, make_bundle, movie_record
from tests.rigs import publish

Query = retriever_pb2.SearchRequest | retriever_pb2.BatchSearchQuery


class World(NamedTuple):
    """Is a bundle of `make_bundle` in a registry, and what is in it."""

    registry: Path
    bundle: Bundle
    movies: list[MovieRecord]
    vectors_ND: npt.NDArray[np.float32]


def make_world(folder: Path, *, movies: int, dimension: int, index: Spec = EXACTLY) -> World:
    """Makes a bundle and publishes it."""
    bundle = make_bundle(folder / "bundle", movies=movies, dimension=dimension, index=index)
    publish(folder / "registry", bundle)
    return world_of(folder / "registry", bundle)


def world_of(registry: Path, bundle: Bundle) -> World:
    """Reads what is in a bundle; a movie's number is in its id."""
    movies = [movie_record((movie_id - 1) // 3) for movie_id in bundle.array(MOVIE_IDS).tolist()]
    return World(registry, bundle, movies, np.asarray(bundle.array(ITEM_VECTORS)))


class Answer(NamedTuple):
    """Is what Search must answer."""

    movie_ids: list[int]
    scores: list[float]
    short_reason: int


def packed(ids: list[int]) -> bytes:
    """Packs ids as `exclude_packed` has them."""
    return np.array(sorted(ids), "<i8").tobytes()


def matches(movie: MovieRecord, wanted: types_pb2.MovieFilter) -> bool:
    """Says in plain words what the filter's comments say, but for `exclude_ids`."""
    genres = {genre.lower() for genre in movie.genres}
    people = {name.lower() for name in (*movie.directors, *movie.cast)}
    rating = np.float32(-1 if movie.mean_rating is None else movie.mean_rating)
    conditions = [
        not wanted.genres_any or any(genre.lower() in genres for genre in wanted.genres_any),
        all(genre.lower() in genres for genre in wanted.genres_all),
        not any(genre.lower() in genres for genre in wanted.genres_none),
        not wanted.HasField("year_min") or (movie.year is not None and movie.year >= wanted.year_min),
        not wanted.HasField("year_max") or (movie.year is not None and movie.year <= wanted.year_max),
        # What is not known is no language: "" keeps nothing.
        not wanted.languages or movie.language in [language.lower() for language in wanted.languages if language],
        not wanted.people_any or any(name.lower() in people for name in wanted.people_any),
        not wanted.HasField("rating_min") or (movie.mean_rating is not None and rating >= wanted.rating_min),
        not wanted.HasField("rating_count_min") or movie.rating_count >= wanted.rating_count_min,
        not wanted.HasField("rating_count_max") or movie.rating_count <= wanted.rating_count_max,
        not wanted.include_ids or movie.movie_id in wanted.include_ids,
    ]
    return all(conditions)


def twin(world: World, query: Query, *, blocked: frozenset[int] = frozenset()) -> Answer:
    """Answers a query."""
    passing = [row for row, movie in enumerate(world.movies) if matches(movie, query.filter)]
    left_out = {*np.frombuffer(query.exclude_packed, "<i8").tolist(), *query.filter.exclude_ids, *blocked}
    matching = [row for row in passing if world.movies[row].movie_id not in left_out]
    scores = _scores(world, query)
    ranked = sorted(matching, key=lambda row: (-scores[row], world.movies[row].movie_id))
    if query.options.HasField("min_score"):
        ranked = [row for row in ranked if scores[row] >= np.float32(query.options.min_score)]
    rows = _Picking(world, scores, query).pick(ranked)
    why_short = [
        (len(rows), retriever_pb2.SHORT_REASON_UNSPECIFIED, True),
        (len(world.movies), retriever_pb2.SHORT_REASON_CATALOG, False),
        (len(passing), retriever_pb2.SHORT_REASON_FILTER, False),
        (len(matching), retriever_pb2.SHORT_REASON_EXCLUDED, False),
        (len(ranked), retriever_pb2.SHORT_REASON_SCORE, False),
        (0, retriever_pb2.SHORT_REASON_CAPS, False),
    ]
    reason = next(reason for count, reason, enough in why_short if (count >= query.k) == enough)
    return Answer([world.movies[row].movie_id for row in rows], [float(scores[row]) for row in rows], reason)


def _scores(world: World, query: Query) -> npt.NDArray[np.float32]:
    vector = np.frombuffer(query.vector, "<f4").astype(np.float64)
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    scores: npt.NDArray[np.float32] = np.round(np.einsum("nd,d->n", world.vectors_ND, unit), 6).astype(np.float32)
    return scores


class _Picking:
    def __init__(self, world: World, scores: npt.NDArray[np.float32], query: Query) -> None:
        self._world = world
        self._k, self._options = query.k, query.options
        self._millionths = np.rint(scores.astype(np.float64) * 1e6)
        self._picked: list[int] = []
        self._groups: Counter[str] = Counter()

    def pick(self, ranked: list[int]) -> list[int]:
        """Picks from the nearest; where caps stop all of them, from the next nearest."""
        options = self._options
        if not (options.diversity or options.max_per_genre or options.max_per_director):
            return ranked[: self._k]
        left = ranked
        while left and len(self._picked) < self._k:
            size = max(4 * (self._k - len(self._picked)), 200)
            pool, left = left[:size], left[size:]
            while pool and len(self._picked) < self._k:
                self._take(self._best(pool))
                pool = self._allowed(pool)
            left = self._allowed(left)
        return self._picked

    def _best(self, pool: list[int]) -> int:
        diversity = self._options.diversity
        if not self._picked:
            return pool[0]
        vectors = self._world.vectors_ND.astype(np.float64)
        cosines = np.rint(vectors[pool] @ vectors[self._picked].T * 1e6)
        values = (1.0 - diversity) * self._millionths[pool] - diversity * cosines.max(axis=1)
        return pool[int(values.argmax())]

    def _take(self, row: int) -> None:
        self._picked.append(row)
        self._groups.update(self._groups_of(row))

    def _allowed(self, rows: list[int]) -> list[int]:
        picked = set(self._picked)
        return [row for row in rows if row not in picked and not any(map(self._full, self._groups_of(row)))]

    def _groups_of(self, row: int) -> list[str]:
        movie = self._world.movies[row]
        return [*(f"genre {name}" for name in movie.genres), *(f"director {name}" for name in movie.directors)]

    def _full(self, group: str) -> bool:
        cap = self._options.max_per_genre if group.startswith("genre") else self._options.max_per_director
        return 0 < cap <= self._groups[group]


def random_filter(rng: np.random.Generator) -> types_pb2.MovieFilter:
    """Makes up a filter, each condition set now and then."""

    def some(values: tuple[str, ...], most: int) -> list[str]:
        chosen = rng.choice(values, rng.integers(0, most + 1), replace=False).tolist()
        return [value.upper() if rng.random() < 0.3 else value for value in chosen]

    wanted = types_pb2.MovieFilter(
        genres_any=some((*GENRES, "Opera"), 3),
        genres_all=some(GENRES, 1),
        genres_none=some((*GENRES, "Opera"), 1),
        languages=some(("en", "fr", "ja", "xx"), 3) if rng.random() < 0.3 else [],
        people_any=some(_PEOPLE, 6) if rng.random() < 0.3 else [],
        include_ids=rng.integers(1, 400, 80).tolist() if rng.random() < 0.2 else [],
        exclude_ids=rng.integers(1, 400, rng.integers(0, 30)).tolist(),
    )
    ranges: dict[str, Any] = {
        "year_min": int(rng.integers(1945, 1985)),
        "year_max": int(rng.integers(1985, 2015)),
        "rating_min": float(rng.choice([0.5, 1.0, 3.2])),
        "rating_count_min": int(rng.integers(0, 40)),
        "rating_count_max": int(rng.integers(40, 110)),
    }
    for name, value in ranges.items():
        if rng.random() < 0.2:
            setattr(wanted, name, value)
    return wanted


_PEOPLE = ("Director 3", "Director 8", "Actor 2", "Actor 11", "Actor 5 Junior", "Actor 16 Junior", "Nobody")


def random_options(rng: np.random.Generator) -> retriever_pb2.SearchOptions:
    """Makes up options, each set now and then."""
    options = retriever_pb2.SearchOptions(
        quality=rng.choice(retriever_pb2.Quality.values()),
        diversity=float(rng.choice([0.0, 0.0, 0.2, 0.7, 1.0])),
        max_per_genre=int(rng.choice([0, 0, 1, 3, 20])),
        max_per_director=int(rng.choice([0, 0, 1, 4])),
    )
    if rng.random() < 0.3:
        options.min_score = float(rng.uniform(-0.3, 0.4))
    return options
