import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee.bundle.catalog import Catalog, write_catalog
from marquee.bundle.columns import NO_YEAR, TABLE, Columns, Listed, make_columns
from marquee.errors import BundleError, DataError
from marquee.movies import MovieRecord
from tests.bundles import movie_record

ALIEN = MovieRecord(
    movie_id=1214,
    title="Alien",
    year=1979,
    genres=("Horror", "Sci-Fi"),
    language="en",
    release_date="1979-05-25",
    runtime_minutes=117,
    directors=("Ridley Scott",),
    cast=("Sigourney Weaver", "Tom Skerritt"),
    external_id="imdb:tt0078748",
    mean_rating=3.97,
    rating_count=146,
    links=("https://www.imdb.com/title/tt0078748/", "https://www.themoviedb.org/movie/348"),
)

# Each has an id, a title, a year and a number of ratings.
FILMS = [
    (1, "The Matrix", 1999, 278),
    (2, "The Matrix Reloaded", 2003, 96),
    (3, "Matrix of Evil", 2003, 1),
    (4, "Making The Matrix", 1999, 2),
    (5, "Amélie", 2001, 120),
    (6, "2012", 2009, 21),
    (7, "Skyfall", 2012, 50),
    (8, "The Avengers", 2012, 69),
    (9, "The Avengers", 1998, 30),
    (10, "1917", 2019, 12),
    (11, "2001: A Space Odyssey", 1968, 109),
    (12, "Wall", 2010, 0),
    (13, "The Wall", 2010, 0),
    (14, "WALL·E", 2008, 104),
    (15, "Spider-Man", 2002, 122),
    (16, "Schindler's List", 1993, 220),
    (17, "M*A*S*H (a.k.a. MASH)", 1970, 46),
    (18, "The City of Lost Children (La Cité des enfants perdus)", 1995, 38),
    (19, "Thelma & Louise", 1991, 60),
    (20, "Not Near Enough", 2000, 5),
    (21, "Or Else", 2000, 5),
    (22, "Star Wars: Episode IV - A New Hope", 1977, 251),
    (23, "Star Wars: The Clone Wars", 2008, 7),
    (24, "千と千尋の神隠し", 2001, 80),
    (25, "$", 1971, 1),
    (26, "Twins", None, 9),
    (27, "Twins", None, 9),
    (28, "A.I. Artificial Intelligence", 2001, 56),
    (29, "हिन्दी मीडियम", 2017, 3),
    (30, "Smørgåsbord", 1983, 1),
]


def film(movie_id: int, title: str, year: int | None, ratings: int) -> MovieRecord:
    return MovieRecord(movie_id, title, year, rating_count=ratings)


def numbered(count: int) -> list[MovieRecord]:
    return [MovieRecord(number, f"Part {number}", 1900 + number % 100) for number in range(1, count + 1)]


@pytest.fixture
def films(tmp_path: Path) -> Iterator[Catalog]:
    write_catalog(tmp_path / "catalog.sqlite", [film(*row) for row in FILMS])
    with Catalog(tmp_path / "catalog.sqlite") as catalog:
        yield catalog


def found(catalog: Catalog, text: str, limit: int = 10) -> list[int]:
    return [movie.movie_id for movie in catalog.search(text, limit=limit)]


def test_a_movie_comes_back_as_it_was_written(tmp_path: Path) -> None:
    unknown = MovieRecord(7, "Nothing is known")
    write_catalog(tmp_path / "c", [ALIEN, unknown])
    with Catalog(tmp_path / "c") as catalog:
        assert catalog.get(1214) == ALIEN
        assert catalog.get(7) == unknown
        assert catalog.get(8) is None
        assert catalog.count == 2


def test_many_come_in_the_order_asked_with_gaps_and_repeats(tmp_path: Path) -> None:
    movies = numbered(2500)
    write_catalog(tmp_path / "c", movies)
    with Catalog(tmp_path / "c") as catalog:
        asked = np.array([2500, 9999, 1, 1, *range(2, 2400)])
        assert catalog.get_many(asked) == [movies[2499], None, movies[0], movies[0], *movies[1:2399]]
        assert catalog.get_many([]) == []
        assert list(catalog.all()) == movies


def test_external_ids_find_their_movie_and_empty_ones_none(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", [ALIEN, MovieRecord(1, "One"), MovieRecord(2, "Two")])
    with Catalog(tmp_path / "c") as catalog:
        assert catalog.by_external_id("imdb:tt0078748") == ALIEN
        assert catalog.by_external_id("IMDB:tt0078748") is None
        assert catalog.by_external_id("") is None


def test_equal_movies_give_equal_bytes_whatever_their_order(tmp_path: Path) -> None:
    movies = [*numbered(3000), ALIEN._replace(movie_id=9000)]
    write_catalog(tmp_path / "one", movies)
    (tmp_path / "two").write_bytes(b"something older that is replaced")
    write_catalog(tmp_path / "two", movies[::-1])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    ("movies", "text"),
    [
        ([MovieRecord(1, "One"), MovieRecord(1, "Other")], "'One' and 'Other' share the id 1"),
        (
            [MovieRecord(1, "One", external_id="x:1"), MovieRecord(2, "Other", external_id="x:1")],
            "'One' and 'Other' share the id x:1",
        ),
        ([MovieRecord(0, "Zero")], "movie 0"),
        ([MovieRecord(1, "One", genres=("Drama", ""))], "movie 1"),
        ([MovieRecord(1, "One", cast=("two\nlines",))], "must be one line"),
        ([MovieRecord(1, "One", language="en\nUS")], "must be one line"),
        ([MovieRecord(1, "One", year=np.int64(1999))], r"movie\.year.*give plain int"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(tmp_path: Path, movies: list[MovieRecord], text: str) -> None:
    with pytest.raises(DataError, match=text):
        write_catalog(tmp_path / "c", movies)


def test_an_empty_catalogue_answers(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", [])
    with Catalog(tmp_path / "c") as catalog:
        assert (catalog.count, list(catalog.all()), catalog.search("alien", limit=5)) == (0, [], [])


@pytest.mark.parametrize("name", ["plain", "a b", "what?", "#1", "50%41", "é"])
def test_a_path_may_hold_what_a_uri_gives_a_meaning_to(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    write_catalog(tmp_path / name / name, [ALIEN])
    with Catalog(tmp_path / name / name) as catalog:
        assert catalog.get(1214) == ALIEN
    assert [path.name for path in (tmp_path / name).iterdir()] == [name]


def test_what_is_not_a_catalogue_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not a database, but long enough to look like one " * 50)
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE movie (movie_id INTEGER)")
    other.close()
    for name in ("missing", "empty", "text", "other"):
        with pytest.raises(BundleError, match=name):
            Catalog(tmp_path / name)


def test_a_newer_schema_is_refused_by_number(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", [ALIEN])
    newer = sqlite3.connect(tmp_path / "c")
    newer.execute("PRAGMA user_version = 3")
    newer.close()
    with pytest.raises(BundleError, match="schema version 3 is not read here"):
        Catalog(tmp_path / "c")


def make_older(path: Path) -> None:
    """Turns a catalogue into one of schema version 1, as far as anybody reads it."""
    older = sqlite3.connect(path)
    for table in ("title", "title_search", "title_trigrams", "short_name"):
        older.execute(f"DROP TABLE {table}")
    older.executescript("""
        ALTER TABLE movie DROP COLUMN links;
        ALTER TABLE movie ADD COLUMN names TEXT;
        ALTER TABLE movie ADD COLUMN fame REAL;
        CREATE VIRTUAL TABLE title_words USING fts5 (words, content = '', tokenize = 'ascii', prefix = '1 2 3');
        PRAGMA user_version = 1;
    """)
    older.close()


def test_a_catalogue_of_the_first_version_is_read_and_searched(tmp_path: Path) -> None:
    movies = [film(*row) for row in FILMS]
    write_catalog(tmp_path / "new", movies)
    write_catalog(tmp_path / "old", [movies[0]._replace(links=("https://example.org/",)), *movies[1:]])
    make_older(tmp_path / "old")
    before = (tmp_path / "old").read_bytes()
    with Catalog(tmp_path / "old") as old, Catalog(tmp_path / "new") as new:
        assert list(old.all()) == movies
        for text in ("matrix", "the", "2012", "matirx", "m*a*s*h"):
            assert old.search(text, limit=5) == new.search(text, limit=5) != []
    assert (tmp_path / "old").read_bytes() == before


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write_catalog(path, numbered(3000))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(BundleError, match=f"{path}: cannot be read"):
        Catalog(path)


def test_a_further_table_does_not_disturb_readers(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", [ALIEN])
    later = sqlite3.connect(tmp_path / "c")
    later.executescript("CREATE TABLE poster (movie_id INTEGER); ALTER TABLE movie ADD COLUMN tagline TEXT")
    later.close()
    with Catalog(tmp_path / "c") as catalog:
        assert catalog.search("alie", limit=1) == [ALIEN]


def flat(columns: Columns) -> dict[str, Any]:
    fields = columns._asdict()
    return {
        f"{name}.{part}": np.asarray(value).tolist()
        for name, field in fields.items()
        for part, value in (field._asdict() if isinstance(field, Listed) else {"": field}).items()
    }


def assert_same(one: Columns, other: Columns) -> None:
    np.testing.assert_equal(flat(one), flat(other))


def test_columns_are_those_of_the_movies(tmp_path: Path) -> None:
    movies = [movie_record(number) for number in range(200)]
    write_catalog(tmp_path / "c", movies[::-1])
    with Catalog(tmp_path / "c") as catalog:
        found = catalog.columns()
    assert_same(found, make_columns(movies))
    assert found.years[:6].tolist() == [movie.year or NO_YEAR for movie in movies[:6]]
    directors = found.directors
    of = [directors.codes[start:end].tolist() for start, end in itertools.pairwise(directors.starts)]
    assert [[directors.names[code] for code in codes] for codes in of] == [
        [name.lower() for name in movie.directors] for movie in movies
    ]


@pytest.mark.parametrize("movies", [[], [movie_record(0)], [MovieRecord(1, "No more is known")]])
def test_columns_of_few_movies(tmp_path: Path, movies: list[MovieRecord]) -> None:
    write_catalog(tmp_path / "c", movies)
    with Catalog(tmp_path / "c") as catalog:
        assert_same(catalog.columns(), make_columns(movies))


def test_a_catalogue_from_before_there_were_columns_has_the_same(tmp_path: Path) -> None:
    movies = [movie_record(number) for number in range(50)]
    write_catalog(tmp_path / "c", movies)
    edit(tmp_path / "c", f"DROP TABLE {TABLE}")
    with Catalog(tmp_path / "c") as catalog:
        assert_same(catalog.columns(), make_columns(movies))


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM {table} WHERE name = 'years'",
        "UPDATE {table} SET value = substr(value, 5) WHERE name = 'ratings'",
        "UPDATE {table} SET value = x'00' WHERE name = 'ids'",
        "UPDATE {table} SET value = substr(value, 9) WHERE name = 'people.starts'",
        "UPDATE {table} SET value = substr(value, 5) WHERE name = 'genres.codes'",
        "UPDATE {table} SET value = x'' WHERE name = 'directors.names'",
        "UPDATE {table} SET value = x'ff0a' WHERE name = 'spellings'",
    ],
)
def test_columns_that_do_not_fit_together_are_refused(tmp_path: Path, damage: str) -> None:
    write_catalog(tmp_path / "c", [movie_record(number) for number in range(50)])
    edit(tmp_path / "c", damage.format(table=TABLE))
    with Catalog(tmp_path / "c") as catalog, pytest.raises(BundleError, match=r"columns are no good .*; export the"):
        catalog.columns()


def edit(path: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def test_threads_share_a_catalogue(tmp_path: Path) -> None:
    movies = numbered(300)
    write_catalog(tmp_path / "c", movies)
    wrong: list[object] = []

    def read(catalog: Catalog, start: int) -> None:
        for number in range(start, 300, 4):
            answers = (catalog.get(number + 1), *catalog.search(f"part {number + 1}", limit=1))
            wrong.extend(answer for answer in answers if answer != movies[number])

    with Catalog(tmp_path / "c") as catalog:
        threads = [threading.Thread(target=read, args=(catalog, start)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_closed_catalogue_says_that_it_is_closed(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", [ALIEN])
    catalog = Catalog(tmp_path / "c")
    catalog.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        catalog.get(1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("matrix", [1, 2, 3, 4]),  # exact but for the article, two that begin so, one that holds it
        ("the matrix", [1, 2, 3, 4]),
        ("the matrix of evil", [3]),
        ("matr", [1, 2, 3, 4]),
        ("THE MATRIX REL", [2]),
        ("matrix, the (1999)", [1, 4]),
        ("amelie", [5]),
        ("AMÉL", [5]),
        ("wall", [12, 13, 14]),  # the shorter title where both are exact; WALL·E only begins so
        ("the wall", [13, 12, 14]),
        ("wall e", [14]),
        ("wall-e", [14]),
        ("walle", [14]),
        ("spiderman", [15]),
        ("spider man", [15]),
        ("Spider-M", [15]),
        ("schindlers list", [16]),
        ("schindler's li", [16]),
        ("schindler list", [16]),
        ("mash", [17]),
        ("M*A*S*H", [17]),
        ("la cite des enf", [18]),
        ("thelma and louise", [19]),
        ("thelma louise", [19]),
        ("star wars", [22, 23]),  # everybody means the one that everybody rated
        ("千と千尋", [24]),
        ("a.i.", [28]),
        ("हिन्दी", [29]),
        ("smorgas", [30]),
        ("twins", [26, 27]),  # equal in everything: by id
        ("matrix amelie", []),
    ],
)
def test_titles_are_found_best_first(films: Catalog, text: str, expected: list[int]) -> None:
    assert found(films, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("avengers", [8, 9]),
        ("avengers 2012", [8]),
        ("avengers (1998)", [9]),
        ("1998 avengers", [9]),
        ("avengers 199", [9]),  # a year that is being typed
        ("2012", [6, 8, 7]),  # the title, then the year's films by ratings
        ("2012 2009", [6]),
        ("1917", [10]),
        ("1917 2019", [10]),
        ("2001 a space odyssey", [11]),
        ("2001 space odyssey 1968", [11]),
        ("2001 amelie", [5]),
        ("avengers 1977", []),
        ("1066", []),
    ],
)
def test_a_year_narrows_and_is_a_word_of_titles(films: Catalog, text: str, expected: list[int]) -> None:
    assert found(films, text) == expected


@pytest.mark.parametrize("text", ["", " ", "\n\t", '"', "*", "***", "-", ":", "()", "&", "$", "'", "\0", "🎬"])
def test_a_query_without_a_word_finds_nothing(films: Catalog, text: str) -> None:
    assert found(films, text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"matrix', [1, 2, 3, 4]),
        ("matrix*", [1, 2, 3, 4]),
        ("^matrix", [1, 2, 3, 4]),
        ("-matrix", [1, 2, 3, 4]),
        ("words:matrix", []),
        ("NEAR(matrix evil)", []),
        ("NEAR(", [20]),
        ("near enough not", [20]),
        ("NOT", [20]),
        ("or", [21]),
        ("matrix OR amelie", []),
        ("matrix AND evil", []),
        ('matrix" OR "amelie', []),
        ("'; DROP TABLE movie; --", []),
        ("{matrix} + evil", [3]),
        ("matrix\0reloaded", [2]),
        ("x" * 1024, []),
        ("a " * 512, [22, 11, 28, 17]),
        ("a-" * 512, []),
        ("1999 " * 200, []),
    ],
)
def test_syntax_in_a_query_is_plain_text(films: Catalog, text: str, expected: list[int]) -> None:
    assert found(films, text) == expected


def test_pages_join_without_gap_or_repeat(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", [*numbered(250), MovieRecord(999, "1950", 1900)])
    with Catalog(tmp_path / "c") as catalog:
        for text in ("part", "p", "1950", "195"):
            whole = catalog.search(text, limit=1000)
            pages = [catalog.search(text, limit=7, offset=offset) for offset in range(0, len(whole) + 7, 7)]
            assert [movie for page in pages for movie in page] == whole
            assert len(set(whole)) == len(whole) > 2
