"""What the files about movies do not say is absent on the wire, however a tool writes "nothing" into a cell."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marquee.bundle.catalog import Catalog, write_catalog
from marquee.movies import MovieRecord
from marquee.v1 import types_pb2
from services.retriever.retrieval import to_proto
from training.data import ColumnMap, load_movies

NOTHING = ["", " ", "nan", "NaN", "NAN", "None", "none", "null", "NULL", "N/A", "<NA>", "\\N", " nan "]

COLUMNS = {
    "movies.csv": {"title": "Heat (1995)", "genres": "Action|Crime"},
    "links.csv": {"imdbId": "0113277", "tmdbId": "949"},
    "metadata.csv": {
        "language": "en",
        "release_date": "1995-12-15",
        "runtime_minutes": "170",
        "directors": "Michael Mann",
        "cast": "Al Pacino|Robert De Niro",
    },
}
CELLS = [column for cells in COLUMNS.values() for column in cells]

WHOLE = types_pb2.Movie(
    movie_id=7,
    external_id="imdb:tt0113277",
    title="Heat",
    year=1995,
    genres=["Action", "Crime"],
    language="en",
    release_date="1995-12-15",
    runtime_minutes=170,
    directors=["Michael Mann"],
    cast=["Al Pacino", "Robert De Niro"],
    links=["https://www.imdb.com/title/tt0113277/", "https://www.themoviedb.org/movie/949"],
)


def on_the_wire(folder: Path, changed: dict[str, str]) -> types_pb2.Movie:
    """Writes the files of one movie with changed cells, and takes the movie from the loader to a message's bytes."""
    for name, cells in COLUMNS.items():
        row = {column: changed.get(column, value) for column, value in cells.items()}
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["movieId", *row], [7, *row.values()]])
    write_catalog(folder / "catalog.sqlite", load_movies(folder, ColumnMap()).records)
    with Catalog(folder / "catalog.sqlite") as catalog:
        record = catalog.get(7)
    assert record is not None
    return types_pb2.Movie.FromString(to_proto(record).SerializeToString())


def without(cells: set[str]) -> types_pb2.Movie:
    """Says what is left of the movie where cells hold nothing."""
    left = types_pb2.Movie()
    left.CopyFrom(WHOLE)
    for cell in cells - {"imdbId", "tmdbId"}:
        left.ClearField(cell)
    if "title" in cells and "release_date" in cells:
        left.ClearField("year")
    pages = {"imdbId": ("imdb:tt0113277", WHOLE.links[0]), "tmdbId": ("tmdb:949", WHOLE.links[1])}
    there = [page for cell, page in pages.items() if cell not in cells]
    left.external_id = there[0][0] if there else ""
    left.links[:] = [link for _, link in there]
    return left


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(st.dictionaries(st.sampled_from(CELLS), st.sampled_from(NOTHING)))
def test_what_is_not_known_is_absent(tmp_path: Path, empty: dict[str, str]) -> None:
    assert on_the_wire(tmp_path, empty) == without(set(empty))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"title": "Heat (nan)"}, {"title": "Heat", "year": 1995}),  # the year of the release
        ({"title": "Nan (1995)"}, {"title": "Nan"}),  # a film may be called so
        ({"title": "Heat (199?)", "release_date": "NaT"}, {"title": "Heat (199?)", "year": None, "release_date": ""}),
        ({"genres": "nan|Crime|None"}, {"genres": ["Crime"]}),
        ({"genres": "(no genres listed)"}, {"genres": []}),
        ({"directors": "nan|Michael Mann|NULL"}, {}),
        ({"runtime_minutes": "170.0"}, {}),
        ({"runtime_minutes": "0"}, {"runtime_minutes": None}),
        ({"runtime_minutes": "inf"}, {"runtime_minutes": None}),
        ({"release_date": "0000-00-00", "title": "Heat"}, {"release_date": "", "year": None}),
        ({"imdbId": "tt0113277", "tmdbId": "949.0"}, {}),
        ({"imdbId": "0", "tmdbId": "0"}, {"external_id": "", "links": []}),
    ],
)
def test_a_cell_that_holds_half_a_value(tmp_path: Path, changed: dict[str, str], expected: dict[str, Any]) -> None:
    fields = {field.name: getattr(WHOLE, field.name) for field, _ in WHOLE.ListFields()} | expected
    assert on_the_wire(tmp_path, changed) == types_pb2.Movie(**fields)


def test_a_mean_that_is_no_number_is_absent(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", [MovieRecord(1, "Heat", mean_rating=math.nan)])
    with Catalog(tmp_path / "c") as catalog:
        (record,) = catalog.all()
    assert not to_proto(record).HasField("mean_rating")
