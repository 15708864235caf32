"""How well titles are found in spite of typing errors, and what a typing error may be."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from benchmarks.titles import one_edit, recombined
from marquee.bundle.catalog import Catalog, write_catalog
from marquee.movies import MovieRecord
from training.data import ColumnMap, load_movies
from training.sample import write_sample


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> list[MovieRecord]:
    folder = tmp_path_factory.mktemp("titles") / "sample"
    write_sample(folder, viewers=5)
    return recombined(load_movies(folder, ColumnMap()).records, 3000, seed=1)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, movies: list[MovieRecord]) -> Iterator[Catalog]:
    path = tmp_path_factory.mktemp("titles") / "catalog.sqlite"
    write_catalog(path, movies)
    with Catalog(path) as catalog:
        yield catalog


def is_found(catalog: Catalog, movie: MovieRecord, query: str) -> bool:
    return movie.movie_id in [found.movie_id for found in catalog.search(query, limit=5)]


def test_a_title_with_one_edit_is_found_nine_times_of_ten(catalog: Catalog, movies: list[MovieRecord]) -> None:
    rng = random.Random(2)
    chosen = rng.sample(movies, 500)
    assert sum(is_found(catalog, movie, one_edit(movie.title, rng)) for movie in chosen) >= 450


def test_a_title_without_an_error_is_found(catalog: Catalog, movies: list[MovieRecord]) -> None:
    assert [
        movie.title for movie in random.Random(3).sample(movies, 500) if not is_found(catalog, movie, movie.title)
    ] == []


FILMS = [
    (1, "The Matrix", 1999, 278),
    (2, "The Matrix Reloaded", 2003, 96),
    (3, "Star Wars: Episode IV - A New Hope", 1977, 251),
    (4, "Amélie (Le Fabuleux Destin d'Amélie Poulain)", 2001, 120),
    (5, "Ted", 2012, 20),
    (6, "Seven (a.k.a. Se7en)", 1995, 203),
    (7, "The Lord of the Rings: The Return of the King", 2003, 185),
    (8, "Les Misérables", 2012, 14),
    (9, "Heat", 1995, 102),
    (10, "Beat", 2000, 3),
]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    path = tmp_path_factory.mktemp("titles") / "films.sqlite"
    write_catalog(path, [MovieRecord(number, title, year, rating_count=n) for number, title, year, n in FILMS])
    with Catalog(path) as catalog:
        yield catalog


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Matrx", [1]),  # a letter too few
        ("The Mattrix", [1]),  # one too many
        ("The Natrix", [1]),  # another one
        ("The Martix", [1]),  # two swapped
        ("TheMatrix", [1, 2]),  # no space: this is no error at all
        ("Th eMatrix", [1, 2]),
        ("The Matrix (1989)", [1]),
        ("Matirx, The (1999)", [1]),
        ("matirx reload", [2]),  # still being typed
        ("satr wars", [3]),
        ("amelei", [4]),
        ("les miserabels", [8]),
        ("misrables", [8]),
        ("the lord of teh rings", [7]),
        ("lord of the rigns return", []),
        ("the retrun of the king", []),
        ("tef", [5]),
        ("se7fen", [6]),
        ("qeat", [9, 10]),  # as near to both: the one that is watched more
        ("heat", [9]),  # right as it is
        ("xqzt", []),
        ("zz", []),
    ],
)
def test_one_typing_error_is_forgiven(films: Catalog, text: str, expected: list[int]) -> None:
    assert [movie.movie_id for movie in films.search(text, limit=10)] == expected


def test_hidden_movies_make_room_for_others(films: Catalog) -> None:
    assert [movie.movie_id for movie in films.search("the", limit=2)] == [1, 7]
    assert [movie.movie_id for movie in films.search("the", limit=2, hidden=lambda movie_id: movie_id == 1)] == [7, 2]
    assert [movie.movie_id for movie in films.search("the", limit=2, offset=1, hidden={7, 1}.__contains__)] == []
    assert films.search("heat", limit=5, hidden={9}.__contains__) == []
