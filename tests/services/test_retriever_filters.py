"""Filters over five movies, with answers that can be read off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee.bundle.columns import make_columns
from marquee.engine.index import Index
from marquee.movies import MovieRecord
from marquee.v1 import types_pb2
from services.retriever.block_list import BlockList
from services.retriever.filters import Filters
from tests.bundles import draft_of

NO_IDS = np.zeros(0, np.int64)
# Not in the order of the index, and one that the index has not.
MOVIES = [
    MovieRecord(5, "Cléo", 1962, ("Drama",), "fr", directors=("Agnès Varda",), mean_rating=3.9, rating_count=10),
    MovieRecord(1, "Faces", 2017, ("Documentary",), "fr", directors=("AGNES VARDA", "JR"), cast=("Agnès Varda", "JR")),
    MovieRecord(9, "Nowhere", 2000, ("Drama",), "en", cast=("Nobody",), mean_rating=5.0, rating_count=1),
    MovieRecord(2, "Untold", None, (), "", mean_rating=3.8, rating_count=11),
    MovieRecord(4, "Alien", 1979, ("Horror", "Sci-Fi"), "EN", cast=("Sigourney Weaver",), rating_count=0),
    MovieRecord(3, "Aliens", 1986, ("Horror", "sci-fi"), "en", cast=("Sigourney Weaver",), mean_rating=4.5),
]
ROWS = [4, 1, 3, 5, 2]


@pytest.fixture
def filters(tmp_path: Path) -> Filters:
    return filters_of(tmp_path, ROWS)


def filters_of(folder: Path, ids: list[int]) -> Filters:
    index = Index(draft_of(folder, np.array(ids, np.int64), np.eye(len(ids), dtype=np.float32)))
    return Filters(index, make_columns(MOVIES), BlockList())


PASSING: list[tuple[dict[str, Any], set[int]]] = [
    ({}, {1, 2, 3, 4, 5}),
    ({"people_any": ["agnes varda"]}, {1, 5}),
    ({"people_any": ["Agnès VARDA"]}, {1, 5}),
    ({"people_any": ["Sigourney Weaver", "JR"]}, {1, 3, 4}),
    # Whole names only, and of nobody but who is in the index.
    ({"people_any": ["Varda"]}, set()),
    ({"people_any": ["Nobody"]}, set()),
    ({"people_any": [""]}, set()),
    ({"people_any": ["JR"], "year_max": 2000}, set()),
    # What a screen shows as 3.9 is 3.9.
    ({"rating_min": 3.9}, {3, 5}),
    ({"rating_min": 3.8}, {2, 3, 5}),
    ({"rating_min": 0.0}, {2, 3, 5}),
    ({"rating_min": 5.5}, set()),
    ({"rating_count_min": 11}, {2}),
    ({"rating_count_max": 0}, {1, 3, 4}),
    ({"rating_count_min": 1, "rating_count_max": 10}, {5}),
    ({"rating_count_max": -1}, set()),
    ({"year_min": -(2**31)}, {1, 3, 4, 5}),
    ({"year_max": 2**31 - 1}, {1, 3, 4, 5}),
    ({"year_min": 1979, "year_max": 1979}, {4}),
    ({"languages": ["en"]}, {3, 4}),
    ({"languages": ["FR", "en"]}, {1, 3, 4, 5}),
    ({"languages": [""]}, set()),
    ({"genres_all": ["horror", "SCI-FI"]}, {3, 4}),
    ({"genres_any": ["drama", "Opera"]}, {5}),
    ({"genres_none": ["Horror"]}, {1, 2, 5}),
    ({"include_ids": [1, 9, 4, 77, 1]}, {1, 4}),
]


@pytest.mark.parametrize(("fields", "expected"), PASSING)
def test_these_pass(filters: Filters, fields: dict[str, Any], expected: set[int]) -> None:
    mask = filters.passing(types_pb2.MovieFilter(**fields))
    assert {movie_id for movie_id, passes in zip(ROWS, mask, strict=True) if passes} == expected


def test_what_is_left_out_does_not_match(filters: Filters) -> None:
    assert filters.matching(None, NO_IDS) is None
    excluding = filters.matching(None, np.array([1, 3, 99]))
    assert excluding is not None
    assert excluding.tolist() == [True, False, False, True, True]
    both = filters.matching(types_pb2.MovieFilter(genres_any=["Horror"], exclude_ids=[4, 99]), np.array([5]))
    assert both is not None
    assert both.tolist() == [False, False, True, False, False]


def test_a_movie_of_the_index_without_details_is_missing(tmp_path: Path, filters: Filters) -> None:
    assert filters.missing.tolist() == []
    (tmp_path / "other").mkdir()
    assert filters_of(tmp_path / "other", [7, 1, 8]).missing.tolist() == [7, 8]


def test_directors_are_known_by_any_spelling_and_counted_once(filters: Filters) -> None:
    assert sorted(ROWS[row] for row in filters.directors.rows("agnes varda")) == [1, 5]
    assert [ROWS[row] for row in filters.directors.rows("jr")] == [1]
    assert filters.directors.rows("sigourney weaver").tolist() == []
