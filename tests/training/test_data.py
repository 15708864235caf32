from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from marquee import features
from marquee.errors import ConfigError, DataError
from training.data import ColumnMap, Dataset, load_dataset, read_columns
from training.sample import SIMULATED_NOTICE, write_sample

HEADER = "userId,movieId,rating,timestamp"
MOVIES = """\
movieId,title,genres
1,Heat (1995),Action|Crime
30,"Matrix, The (1999)",Sci-Fi
7000000000000000001,Moonlight,(no genres listed)
"""
RATINGS = ("9,1,4.0,100", "9,30,3.5,100", "10,30,0.5,50", "10,7000000000000000001,5.0,60", "10,1,2.0,70")
Row = tuple[str, int, float, int]


def write(folder: Path, rows: tuple[str, ...] = RATINGS, movies: str = MOVIES, header: str = HEADER) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ratings.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    (folder / "movies.csv").write_text(movies, encoding="utf-8")
    return folder


def rows_of(data: Dataset) -> list[Row]:
    return [
        (data.user_ids[user], int(data.movie_ids[item]), float(value), int(time))
        for user, item, value, time in zip(data.users, data.items, data.values, data.times_ms, strict=True)
    ]


def refusal(folder: Path, columns: ColumnMap | None = None) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(folder, columns)
    return str(caught.value)


def reasons(data: Dataset) -> dict[str, tuple[str, ...]]:
    return {one.reason: one.examples for one in data.report.dropped}


def test_movielens_csv(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "tiny"))

    assert data.name == "tiny"
    assert data.user_ids == ["9", "10"]
    assert [(movie.movie_id, movie.title, movie.year, movie.genres) for movie in data.movies] == [
        (1, "Heat", 1995, ("Action", "Crime")),
        (30, "The Matrix", 1999, ("Sci-Fi",)),
        (7000000000000000001, "Moonlight", None, ()),
    ]
    assert sorted(rows_of(data)) == [
        ("10", 1, 2.0, 70_000),
        ("10", 30, 0.5, 50_000),
        ("10", 7000000000000000001, 5.0, 60_000),
        ("9", 1, 4.0, 100_000),
        ("9", 30, 3.5, 100_000),
    ]
    assert [(movie.mean_rating, movie.rating_count) for movie in data.movies] == [(3.0, 2), (2.0, 2), (5.0, 1)]
    assert set(data.kinds.tolist()) == {features.RATED}
    assert not data.simulated


def test_columns_have_the_promised_types(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path))
    columns: list[npt.NDArray[np.generic]] = [
        data.movie_ids,
        data.users,
        data.items,
        data.kinds,
        data.values,
        data.times_ms,
    ]
    assert [str(column.dtype) for column in columns] == ["int64", "int32", "int32", "uint8", "float32", "int64"]
    assert np.all(np.diff(data.users) >= 0)


def test_movielens_1m(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::100\n2::3::4::50\n2:1::1::5::100\n2::1\n1::3::3::90\n")
    movies = '1::Heat: A "Los Angeles" Story (1995)::Action|Crime\n3::Cité, La (1995)::Drama\n'
    (tmp_path / "movies.dat").write_text(movies, encoding="latin-1")
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")

    data = load_dataset(tmp_path)

    assert [movie.title for movie in data.movies] == ['Heat: A "Los Angeles" Story', "La Cité"]
    assert rows_of(data) == [
        ("1", 3, 3.0, 90_000),
        ("1", 1, 5.0, 100_000),
        ("2", 3, 4.0, 50_000),
        ("2:1", 1, 5.0, 100_000),
    ]
    assert reasons(data) == {"wrong number of fields": ("ratings.dat:4: 2::1",)}


def test_parquet_and_mapped_csv_equal_movielens(tmp_path: Path) -> None:
    plain = load_dataset(write(tmp_path / "plain"))
    events = pd.DataFrame([row.split(",") for row in RATINGS], columns=["who", "film", "points", "at"])
    events = events.astype({"film": "int64", "points": "float64", "at": "int64"})
    events["points"] *= 2
    films = pd.DataFrame(
        {"film": plain.movie_ids, "name": ["Heat", "The Matrix", "Moonlight"], "made": [1995.0, 1999.0, np.nan]}
    ).assign(kinds=["Action;Crime", "Sci-Fi", ""])
    mapped = {"user": "who", "movie": "film", "value": "points", "time": "at", "rating_max": 10.0}
    mapped |= {"title": "name", "genres": "kinds", "year": "made", "genre_separator": ";"}
    folder = tmp_path / "other"
    folder.mkdir()
    events.assign(at=events["at"] * 1000).to_csv(folder / "log.csv", index=False, sep="\t")
    films.to_csv(folder / "films.csv", index=False, sep="\t")
    events.assign(at=pd.to_datetime(events["at"], unit="s")).to_parquet(folder / "log.parquet")
    films.to_parquet(folder / "films.parquet")

    text = ColumnMap("log.csv", "films.csv", time_unit="ms", delimiter="\t", **mapped)  # type: ignore[arg-type]
    stored = ColumnMap("log.parquet", "films.parquet", **mapped)  # type: ignore[arg-type]

    for columns in (text, stored):
        data = load_dataset(folder, columns)
        assert data.fingerprint == plain.fingerprint
        assert rows_of(data) == rows_of(plain)
        assert data.movies == plain.movies


def test_parquet_names_the_row_of_a_bad_one(tmp_path: Path) -> None:
    write(tmp_path)
    events = pd.DataFrame({"userId": ["a", "b", None], "movieId": [1, 30, 1], "rating": [4.0, np.nan, 3.0]})
    events["timestamp"] = 5
    pd.concat([events, events[:1].assign(userId="c")]).to_parquet(tmp_path / "ratings.parquet")
    data = load_dataset(tmp_path, ColumnMap(events_file="ratings.parquet"))
    assert data.user_ids == ["a", "c"]
    assert reasons(data)["userId is missing"] == ("ratings.parquet:3: userId=None, movieId=1, rating=3.0, timestamp=5",)
    assert reasons(data)["rating is not a number"][0].startswith("ratings.parquet:2: userId=b")


EXPORTED: dict[str, list[object]] = {
    "user_id": ["10", "10", "anna", "anna", "anna", "10"],
    "movie_id": [1, 30, 30, 1, 7000000000000000001, 1],
    "kind": [features.RATED, features.LIKED, features.WATCHED, features.RATED, features.RATED, features.RETRACTED],
    "value": [4.5, None, None, 0.5, None, None],
    "time_ms": [1_700_000_000_123, 1_700_000_000_000, 5, 6, 7, 1_600_000_000_000],
    "request_id": ["r1", None, None, None, None, None],
}
EXPORTED_TYPES = {"user_id": pa.string(), "movie_id": pa.int64(), "value": pa.float32(), "time_ms": pa.int64()}


def export(path: Path, columns: dict[str, list[object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    table = pa.table({name: pa.array(cells, EXPORTED_TYPES.get(name)) for name, cells in columns.items()})
    pyarrow.parquet.write_table(table, path)


def exported_folder(folder: Path, *shards: dict[str, list[object]], name: str = "events/part-{}.parquet") -> Path:
    folder.mkdir()
    (folder / "movies.csv").write_text(MOVIES, encoding="utf-8")
    for number, columns in enumerate(shards):
        export(folder / name.format(number), columns)
    return folder


def part_of(columns: dict[str, list[object]], rows: slice) -> dict[str, list[object]]:
    return {name: cells[rows] for name, cells in columns.items()}


def test_exported_events_are_recognised(tmp_path: Path) -> None:
    data = load_dataset(exported_folder(tmp_path / "live", EXPORTED, name="events.parquet"))
    assert rows_of(data) == [
        ("10", 30, 0.0, 1_700_000_000_000),
        ("10", 1, 4.5, 1_700_000_000_123),
        ("anna", 30, 0.0, 5),
        ("anna", 1, 0.5, 6),
    ]
    assert data.kinds.tolist() == [features.LIKED, features.RATED, features.WATCHED, features.RATED]
    assert data.report.retracted == 1
    (quoted,) = reasons(data)["value is not a number"]
    assert quoted.startswith("events.parquet:5: user_id=anna, movie_id=7000000000000000001")


def test_exported_shards_equal_one_file(tmp_path: Path) -> None:
    whole = load_dataset(exported_folder(tmp_path / "a", EXPORTED, name="events.parquet"))
    shards = [part_of(EXPORTED, slice(0, 3)), part_of(EXPORTED, slice(3, 6))]
    data = load_dataset(exported_folder(tmp_path / "b", *shards))
    assert data.fingerprint == whole.fingerprint
    (dropped,) = data.report.dropped
    assert (dropped.file, dropped.examples[0][:17]) == ("events", "part-1.parquet:2:")


def test_exported_kinds_may_be_names_and_request_ids_may_be_missing(tmp_path: Path) -> None:
    names = {features.RATED: "RATED", features.LIKED: "EVENT_KIND_LIKED", features.WATCHED: "watched"}
    names |= {features.RETRACTED: "RETRACTED"}
    named = {name: cells for name, cells in EXPORTED.items() if name != "request_id"}
    named["kind"] = [names[kind] for kind in EXPORTED["kind"]]  # type: ignore[index]
    by_number = load_dataset(exported_folder(tmp_path / "a", EXPORTED))
    assert load_dataset(exported_folder(tmp_path / "b", named)).fingerprint == by_number.fingerprint


def test_exported_events_without_a_column_are_named(tmp_path: Path) -> None:
    fewer = {name: cells for name, cells in EXPORTED.items() if name != "time_ms"}
    text = refusal(exported_folder(tmp_path / "live", EXPORTED, fewer))
    assert "part-1.parquet: the header is" in text
    assert "'time_ms' is not in it" in text


def test_exported_events_need_their_movies(tmp_path: Path) -> None:
    folder = exported_folder(tmp_path / "live", EXPORTED)
    (folder / "movies.csv").unlink()
    assert "movies.csv is missing" in refusal(folder)


def test_two_kinds_of_events_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = exported_folder(tmp_path / "live", EXPORTED)
    write(folder)
    assert "holds ratings.csv and events/*.parquet: keep each in a folder of its own" in refusal(folder)
    assert load_dataset(folder, ColumnMap()).user_ids == ["9", "10"]


@pytest.mark.parametrize("bytes_at_once", [1, 64, 200])
def test_parts_of_a_file_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_at_once: int) -> None:
    rows = ("", "é,1,4,9", '1,"1,4,1', *RATINGS, "1,1,4", "", "9,1,2,50", "9,1,4.0,99", "9,77,4.0,99")
    whole = load_dataset(write(tmp_path / "a", rows))
    monkeypatch.setattr("training.data.tables.PART_BYTES", bytes_at_once)
    monkeypatch.setattr("training.data.events._CLEANED_AT_ONCE", 1)
    parts = load_dataset(write(tmp_path / "b", rows))
    assert parts.fingerprint == whole.fingerprint
    assert parts.report == whole.report
    assert parts.movies == whole.movies
    assert {line.split(": ")[0] for one in parts.report.dropped for line in one.examples} == {
        "ratings.csv:4",
        "ratings.csv:10",
        "ratings.csv:14",
    }


def test_parts_of_parquet_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = exported_folder(tmp_path / "live", EXPORTED)
    whole = load_dataset(folder)
    monkeypatch.setattr("training.data.tables.PART_ROWS", 2)
    parts = load_dataset(folder)
    assert parts.fingerprint == whole.fingerprint
    assert parts.report == whole.report


def test_text_of_a_later_part_that_is_not_utf8_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    with (tmp_path / "ratings.csv").open("ab") as file:
        file.write("1,1,4,é\n".encode("latin-1"))
    monkeypatch.setattr("training.data.tables.PART_BYTES", 20)
    assert "ratings.csv:7 is not UTF-8" in refusal(tmp_path)


def test_a_user_whose_events_were_all_taken_back_is_gone(tmp_path: Path) -> None:
    rows = ("b,1,RATED,4,1", "b,1,RETRACTED,,5", "10,1,RATED,3,1", "9,1,RATED,3,1", "9,30,LIKED,,0")
    write(tmp_path, rows, header="userId,movieId,kind,rating,timestamp")
    data = load_dataset(tmp_path, ColumnMap(kind="kind"))
    assert data.user_ids == ["9", "10"], "numbers again, so in their order"
    assert rows_of(data) == [("9", 30, 0.0, 0), ("9", 1, 3.0, 1000), ("10", 1, 3.0, 1000)]


def test_kinds_are_read_by_name_or_number(tmp_path: Path) -> None:
    rows = (
        "a,1,RATED,4,1",
        "a,1,liked,,2",
        "a,30,EVENT_KIND_WATCHED,9,3",
        "b,1,5,,4",
        "b,30,HATED,,5",
        "b,30,RATED,,6",
    )
    write(tmp_path, (*rows, "c,1,CLICKED,,7"), header="userId,movieId,kind,rating,timestamp")
    data = load_dataset(tmp_path, ColumnMap(kind="kind"))
    wanted = [features.RATED, features.LIKED, features.WATCHED, features.CLICKED, features.CLICKED]
    assert data.kinds.tolist() == wanted
    assert data.values.tolist() == [4, 0, 0, 0, 0]
    assert data.movies[0].rating_count == 1
    assert reasons(data) == {
        "kind is not a kind of event": ("ratings.csv:6: b,30,HATED,,5",),
        "rating is not a number": ("ratings.csv:7: b,30,RATED,,6",),
    }


def test_retraction_drops_what_it_takes_back(tmp_path: Path) -> None:
    rows = ("a,1,RATED,4,1", "a,1,RETRACTED,,5", "a,1,LIKED,,6", "a,30,RATED,3,1", "b,1,RATED,3,1")
    write(tmp_path, rows, header="userId,movieId,kind,rating,timestamp")
    data = load_dataset(tmp_path, ColumnMap(kind="kind"))
    assert rows_of(data) == [("a", 30, 3.0, 1000), ("a", 1, 0.0, 6000), ("b", 1, 3.0, 1000)]
    assert (data.report.rows_kept, data.report.retracted) == (3, 2)


def test_sample_is_simulated(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample", viewers=5)
    data = load_dataset(tmp_path / "sample")
    assert data.simulated
    assert SIMULATED_NOTICE in data.describe()
    assert data.report.rows_kept == data.report.rows_read
    assert not data.report.dropped


def test_metadata_gaps_stay_empty(tmp_path: Path) -> None:
    write(tmp_path)
    header = "movieId,language,release_date,runtime_minutes,vote_average,vote_count,directors,cast\n"
    rows = "1,en,1995-12-15,170,7.7,1886,Michael Mann,Al Pacino|Robert De Niro\n30,,,,,,,nan\n"
    (tmp_path / "metadata.csv").write_text(header + rows + "7000000000000000001,,2016-10-21,soon,,,,\n99,en,,,,,,\n")
    data = load_dataset(tmp_path)
    heat, matrix, moonlight = data.movies
    assert (heat.language, heat.release_date, heat.runtime_minutes) == ("en", "1995-12-15", 170)
    assert (heat.directors, heat.cast) == (("Michael Mann",), ("Al Pacino", "Robert De Niro"))
    assert matrix == matrix._replace(language="", release_date="", runtime_minutes=None, directors=(), cast=())
    assert (moonlight.year, moonlight.runtime_minutes) == (2016, None)
    assert data.report.movies_with_metadata == 3
    assert list(reasons(data)) == ["runtime_minutes is not a whole number; the cell was left out"]


def test_links_keep_leading_zeros(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "links.csv").write_text("movieId,imdbId,tmdbId\n1,0113277,949\n30,,603\n7000000000000000001,,\n")
    movies = load_dataset(tmp_path).movies
    assert [movie.external_id for movie in movies] == ["imdb:tt0113277", "tmdb:603", ""]
    imdb, tmdb = "https://www.imdb.com/title/tt0113277/", "https://www.themoviedb.org/movie/"
    assert [movie.links for movie in movies] == [(imdb, f"{tmdb}949"), (f"{tmdb}603",), ()]


def test_missing_genres_are_the_empty_tuple(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, movies="movieId,title,genres\n1,Heat (1995),\n30,,(no genres listed)\n"))
    assert [(movie.title, movie.genres) for movie in data.movies] == [("Heat", ()), ("", ())]
    assert data.report.movies_without_genres == 2


def test_bad_and_repeated_movies_are_counted(tmp_path: Path) -> None:
    movies = MOVIES + "-4,Negative,Drama\n5,Too,many,fields\n1,Heat again,Crime\n8,Never rated (2000),Drama\n"
    data = load_dataset(write(tmp_path, movies=movies))
    assert data.movie_ids.tolist() == [1, 8, 30, 7000000000000000001]
    assert data.movies[0].title == "Heat"
    assert data.report.movies_without_events == 1
    assert reasons(data) == {
        "movieId is not a whole number from 1 to 2^63 - 1": ("movies.csv:5: -4,Negative,Drama",),
        "wrong number of fields": ("movies.csv:6: 5,Too,many,fields",),
        "movieId occurs twice": ("movies.csv:7: 1,Heat again,Crime",),
    }


def test_title_with_a_line_break_keeps_line_numbers(tmp_path: Path) -> None:
    movies = 'movieId,title,genres\n1,"Heat\n(1995)",Crime\n30,X (1999),Drama\nx,Y,Drama\n'
    data = load_dataset(write(tmp_path, movies=movies))
    assert (data.movies[0].title, data.movies[0].year) == ("Heat", 1995)
    assert "movies.csv:5: x,Y,Drama" in str(data.report.dropped)


def test_unclosed_quote_among_movies_names_its_line(tmp_path: Path) -> None:
    text = refusal(write(tmp_path, movies=MOVIES + '5,"Alien (1979),Horror\n6,Aliens (1986),Horror\n'))
    assert "movies.csv:5: a quoted cell that starts here" in text


def test_text_ids_are_in_text_order(tmp_path: Path) -> None:
    rows = ("émile,1,4,1", "10,1,4,1", "9,1,4,1", '"a, b",1,4,1', "nan,1,4,1")
    data = load_dataset(write(tmp_path, rows))
    assert data.user_ids == ["10", "9", "a, b", "émile"]
    assert list(reasons(data)) == ["userId is missing"]


def test_user_with_one_event_is_kept(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, ("5,1,4,1",)))
    assert rows_of(data) == [("5", 1, 4.0, 1000)]
    assert "1 events of 1 users on 3 movies" in data.describe()


def test_largest_movie_id_is_exact(tmp_path: Path) -> None:
    largest = 2**63 - 1
    movies = f"movieId,title,genres\n{largest},A,\n{largest - 1},B,\n{largest + 1},C,\n"
    data = load_dataset(write(tmp_path, (f"1,{largest},4,1", f"1,{largest - 1},3,2", f"1,{largest + 1},3,2"), movies))
    assert [movie.title for movie in data.movies] == ["B", "A"]
    assert data.items.tolist() == [1, 0]


def test_duplicates_keep_the_latest(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, ("1,1,4,30", "1,1,2,50", "1,1,3,10", "2,1,3,7", "2,1,4,7")))
    assert rows_of(data) == [("1", 1, 2.0, 50_000), ("2", 1, 4.0, 7000)]
    assert (data.report.rows_read, data.report.rows_kept, data.report.duplicates) == (5, 2, 3)


def test_order_equals_merge(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    movie_ids = np.arange(1, 41) * 37
    movies = "movieId,title,genres\n" + "".join(f"{movie_id},Movie,Drama\n" for movie_id in movie_ids)
    count = 300
    users, chosen = rng.integers(1, 4, count), rng.choice(movie_ids, count)
    kinds = rng.choice(
        [features.RATED, features.LIKED, features.WATCHED, features.RETRACTED], count, p=[0.5, 0.2, 0.2, 0.1]
    )
    values, times = np.where(kinds == features.RATED, rng.integers(1, 11, count) / 2, 0), rng.integers(0, 8, count)
    # Where two events are equal in all but the value, merge takes the later arrival and the file the higher value.
    order = np.lexsort((values, times))
    rows = [f"{users[i]},{chosen[i]},{kinds[i]},{values[i]},{times[i]}" for i in order]
    folder = write(tmp_path, tuple(rows), movies, "userId,movieId,kind,rating,timestamp")
    data = load_dataset(folder, ColumnMap(kind="kind", time_unit="ms"))

    for code, user_id in enumerate(data.user_ids):
        own = order[users[order] == int(user_id)]
        raw = features.Events(chosen[own], kinds[own], values[own].astype(np.float32), times[own])
        merged = features.merge(raw, features.NO_EVENTS, features.user_hash(user_id))
        mine = data.users == code
        loaded = features.Events(
            data.movie_ids[data.items[mine]], data.kinds[mine], data.values[mine], data.times_ms[mine]
        )
        for got, wanted in zip(loaded, merged, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_fingerprint_ignores_order_and_names(tmp_path: Path) -> None:
    rows = (*RATINGS, "9,1,1.0,100", "10,1,4.5,20")
    head, *movies = MOVIES.splitlines()
    first = load_dataset(write(tmp_path / "a", rows))
    again = load_dataset(write(tmp_path / "b", rows[::-1], "\n".join([head, *movies[::-1]])))
    assert first.fingerprint == again.fingerprint
    assert rows_of(first) == rows_of(again)


@pytest.mark.parametrize(
    ("old", "new"), [("9,1,4.0,100", "9,1,4.5,100"), ("9,1,4.0,100", "9,1,4.0,101"), ("9,1,4.0,100", "8,1,4.0,100")]
)
def test_fingerprint_sees_a_changed_event(tmp_path: Path, old: str, new: str) -> None:
    rows = tuple(new if row == old else row for row in RATINGS)
    assert load_dataset(write(tmp_path / "a")).fingerprint != load_dataset(write(tmp_path / "b", rows)).fingerprint


def test_fingerprint_sees_a_changed_movie(tmp_path: Path) -> None:
    changed = write(tmp_path / "b", movies=MOVIES.replace("Sci-Fi", "Drama"))
    assert load_dataset(write(tmp_path / "a")).fingerprint != load_dataset(changed).fingerprint


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",1,4,1", "userId is missing"),
        ("u" * 257 + ",1,4,1", "userId is longer than 256 bytes"),
        ("1,0,4,1", "movieId is not a whole number from 1 to 2^63 - 1"),
        ("1,-1,4,1", "movieId is not a whole number from 1 to 2^63 - 1"),
        ("1,1.5,4,1", "movieId is not a whole number from 1 to 2^63 - 1"),
        ("1,,4,1", "movieId is not a whole number from 1 to 2^63 - 1"),
        ("1,2,4,1", "movieId is not in movies.csv"),
        ("1,1,NaN,1", "rating is not a number"),
        ("1,1,,1", "rating is not a number"),
        ("1,1,four,1", "rating is not a number"),
        ("1,1,inf,1", "rating is not a number"),
        ("1,1,0,1", "rating is not from 0.5 to 5"),
        ("1,1,5.5,1", "rating is not from 0.5 to 5"),
        ("1,1,4,", "timestamp is not a number"),
        ("1,1,4,yesterday", "timestamp is not a number"),
        ("1,1,4,-1", "timestamp, read as s, is not from 1970 to 2099"),
        ("1,1,4,1400000000000", "timestamp, read as s, is not from 1970 to 2099"),
        ("1,1,4", "wrong number of fields"),
        ("1,1,4,1,1", "wrong number of fields"),
        ('1,1,"4,1', "quotes that do not pair around a field"),
        ('1,1,4"",1', "quotes that do not pair around a field"),
    ],
)
def test_bad_row_is_dropped_counted_and_quoted(tmp_path: Path, row: str, reason: str) -> None:
    data = load_dataset(write(tmp_path, (*RATINGS[:2], row, *RATINGS[2:])))
    (dropped,) = data.report.dropped
    assert (dropped.file, dropped.reason, dropped.count) == ("ratings.csv", reason, 1)
    assert dropped.examples[0].startswith(f"ratings.csv:4: {row[:100]}")
    assert (data.report.rows_read, data.report.rows_kept, data.report.rows_bad) == (6, 5, 1)
    assert f"1 × {reason}" in data.describe()
    assert rows_of(data) == rows_of(load_dataset(write(tmp_path / "good")))


def test_blank_lines_and_windows_line_ends_are_no_rows(tmp_path: Path) -> None:
    write(tmp_path)
    text = "\ufeff" + "\r\n".join([HEADER, RATINGS[0], "", *RATINGS[1:], "1,1,9,1", "", ""])
    (tmp_path / "ratings.csv").write_bytes(text.encode())
    data = load_dataset(tmp_path)
    assert (data.report.rows_read, data.report.rows_kept) == (6, 5)
    assert data.report.dropped[0].examples == ("ratings.csv:8: 1,1,9,1",)


def test_all_cells_may_be_quoted_and_spaced(tmp_path: Path) -> None:
    rows = tuple(",".join(f'" {cell}"' for cell in row.split(",")) for row in RATINGS)
    assert rows_of(load_dataset(write(tmp_path / "a", rows))) == rows_of(load_dataset(write(tmp_path / "b")))


def test_five_examples_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    good = tuple(f"{user},1,4,1" for user in range(20))
    data = load_dataset(write(tmp_path, good + ("1,1,9,1",) * 9))
    assert data.report.dropped[0].count == 9
    assert data.report.dropped[0].examples == tuple(f"ratings.csv:{line}: 1,1,9,1" for line in range(22, 27))


def test_mostly_bad_file_is_refused_with_its_first_five_lines(tmp_path: Path) -> None:
    bad = ("1,1,4", "1,1,x,1", "2,99,4,1", "1,1,9,1", "1,1,4,-1", "1,1,8,1")
    text = refusal(write(tmp_path, RATINGS + bad))
    lines = text.splitlines()
    assert lines[0] == f"{tmp_path / 'ratings.csv'}: 6 of 11 rows cannot be used, the first of them:"
    assert lines[1:6] == [
        "  ratings.csv:7: 1,1,4 (wrong number of fields)",
        "  ratings.csv:8: 1,1,x,1 (rating is not a number)",
        "  ratings.csv:9: 2,99,4,1 (movieId is not in movies.csv)",
        "  ratings.csv:10: 1,1,9,1 (rating is not from 0.5 to 5)",
        "  ratings.csv:11: 1,1,4,-1 (timestamp, read as s, is not from 1970 to 2099)",
    ]
    assert "ColumnMap" in lines[6]


def test_half_bad_is_still_read(tmp_path: Path) -> None:
    assert load_dataset(write(tmp_path, (*RATINGS, *(("1,1,9,1",) * 5)))).report.rows_bad == 5


def test_missing_folder(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none")


def test_archive_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "ml.zip").write_bytes(b"PK")
    assert "unpack it" in refusal(tmp_path / "ml.zip")


def test_empty_folder(tmp_path: Path) -> None:
    assert f"{tmp_path} is empty" in refusal(tmp_path)


def test_unrecognised_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    text = refusal(tmp_path)
    assert "ratings.csv" in text
    assert "ratings.dat" in text
    assert "found notes.txt" in text


def test_folder_too_high_names_the_one_below(tmp_path: Path) -> None:
    write(tmp_path / "ml-latest")
    assert f"did you mean {tmp_path / 'ml-latest'}?" in refusal(tmp_path)


def test_missing_movies_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "movies.csv").unlink()
    assert "movies.csv is missing" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "\n\n"])
@pytest.mark.parametrize("file", ["ratings.csv", "movies.csv"])
def test_empty_file(tmp_path: Path, file: str, content: str) -> None:
    write(tmp_path)
    (tmp_path / file).write_text(content)
    assert f"{file} is empty" in refusal(tmp_path)


@pytest.mark.parametrize("content", [HEADER, HEADER + "\n", HEADER + "\n\n\n"])
def test_header_without_rows(tmp_path: Path, content: str) -> None:
    write(tmp_path)
    (tmp_path / "ratings.csv").write_text(content)
    assert "has a header and no rows" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("header", "cure"),
    [
        ("user,movieId,rating,timestamp", "ColumnMap"),
        ("userId;movieId;rating;timestamp", "ColumnMap.delimiter"),
        ("1,1,4.0,100", "put the header above it"),
    ],
)
def test_wrong_header_names_both(tmp_path: Path, header: str, cure: str) -> None:
    text = refusal(write(tmp_path, header=header))
    assert str(tmp_path / "ratings.csv") in text
    assert f"the header is '{header}'" in text
    assert f"'{HEADER}' is wanted" in text
    assert cure in text


def test_wrong_header_of_movies(tmp_path: Path) -> None:
    text = refusal(write(tmp_path, movies=MOVIES.replace("title", "name")))
    assert "'movieId,title,genres' is wanted and 'title' is not in it" in text


def test_other_columns_and_their_order_do_not_matter(tmp_path: Path) -> None:
    rows = tuple(",".join(["x", *reversed(row.split(","))]) for row in RATINGS)
    data = load_dataset(write(tmp_path / "a", rows, header="tag,timestamp,rating,movieId,userId"))
    assert rows_of(data) == rows_of(load_dataset(write(tmp_path / "b")))


def test_text_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "movies.csv").write_bytes((MOVIES + "5,Cité (1995),Drama\n").encode("latin-1"))
    assert "movies.csv:5 is not UTF-8" in refusal(tmp_path)


def test_unreadable_parquet(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "ratings.parquet").write_bytes(b"PAR1 not really")
    assert "ratings.parquet cannot be read as Parquet" in refusal(tmp_path, ColumnMap(events_file="ratings.parquet"))


def test_parquet_without_a_column(tmp_path: Path) -> None:
    write(tmp_path)
    pd.DataFrame({"userId": [1], "movieId": [1]}).to_parquet(tmp_path / "ratings.parquet")
    assert "'rating', 'timestamp' is not in it" in refusal(tmp_path, ColumnMap(events_file="ratings.parquet"))


def test_parquet_column_of_lists(tmp_path: Path) -> None:
    write(tmp_path)
    events = pd.DataFrame({"userId": [1], "movieId": [[1]], "rating": [4.0], "timestamp": [1]})
    events.to_parquet(tmp_path / "ratings.parquet")
    assert "neither numbers nor text" in refusal(tmp_path, ColumnMap(events_file="ratings.parquet"))


@pytest.mark.parametrize(
    ("knobs", "field"),
    [
        ({"user": ""}, "user"),
        ({"value": ""}, "value"),
        ({"time_unit": "minutes"}, "time_unit"),
        ({"rating_max": 0.0}, "rating_max"),
        ({"rating_max": float("nan")}, "rating_max"),
        ({"rating_min": 5.0}, "rating_max"),
        ({"genre_separator": ""}, "genre_separator"),
        ({"delimiter": "::"}, "delimiter"),
        ({"events_file": "ratings.xlsx"}, "events_file"),
        ({"user": "movieId"}, "column 'movieId'"),
    ],
)
def test_wrong_knob_is_named_where_the_map_is_built(knobs: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        ColumnMap(**knobs)  # type: ignore[arg-type]


def test_scale_is_mapped_to_stars(tmp_path: Path) -> None:
    write(tmp_path, ("1,1,0,1", "2,1,50,1", "3,1,100,1"))
    data = load_dataset(tmp_path, ColumnMap(rating_min=0, rating_max=100))
    assert data.values.tolist() == [0.5, 0.5 + 4.5 * 50 / 100, 5.0]


def test_a_column_map_is_read_from_json(tmp_path: Path) -> None:
    (tmp_path / "columns.json").write_text('{"events_file": "log.csv", "user": "who", "rating_max": 10}')
    assert read_columns(tmp_path / "columns.json") == ColumnMap(events_file="log.csv", user="who", rating_max=10)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "columns.json: is not a JSON file"),
        ('{"users": "who"}', "'users' is not a field of a column map; there are events_file"),
        ("[]", "is not a field"),
        ('{"user": ""}', "user"),
        ('{"user": 5}', "user is 5; it must be a text"),
        ('{"rating_max": "10"}', "rating_max is '10'; it must be a number"),
    ],
)
def test_a_wrong_column_map_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "columns.json").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_columns(tmp_path / "columns.json")
