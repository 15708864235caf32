import csv
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from training.sample import SIMULATED_NOTICE, load_tastes, write_sample

VOCABULARY = (
    "Action|Adventure|Animation|Children|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
)
LANGUAGES = {"bn", "da", "de", "en", "es", "fa", "fr", "hi", "it", "ja", "ko", "pl", "pt", "ru", "sv", "zh"}
FILES = {"README.txt", "metadata.csv", "movies.csv", "ratings.csv"}
DAY = 86_400

Row = dict[str, str]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    write_sample(folder)
    return folder


@pytest.fixture(scope="module")
def movies(sample: Path) -> list[Row]:
    return read(sample / "movies.csv")


@pytest.fixture(scope="module")
def histories(sample: Path) -> dict[str, list[Row]]:
    by_viewer = defaultdict(list)
    for row in read(sample / "ratings.csv"):
        by_viewer[row["userId"]].append(row)
    return by_viewer


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tastes_of(rows: list[Row]) -> Counter[str]:
    tastes = load_tastes()
    return Counter(tastes[int(row["movieId"])] for row in rows)


def test_same_seed_gives_equal_bytes(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", seed=7, viewers=400)
    assert contents(tmp_path / "again") == contents(sample)
    assert set(contents(sample)) == FILES


def test_another_seed_gives_other_viewers_and_the_same_films(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "other", seed=8)
    other, first = contents(tmp_path / "other"), contents(sample)
    assert other["ratings.csv"] != first["ratings.csv"]
    assert other["movies.csv"] == first["movies.csv"]


def test_headers_are_those_of_movielens(sample: Path) -> None:
    headers = {path.stem: path.read_text("utf-8").splitlines()[0] for path in sample.glob("*.csv")}
    assert headers == {
        "movies": "movieId,title,genres",
        "metadata": "movieId,language,release_date,runtime_minutes,vote_average,vote_count,directors,cast",
        "ratings": "userId,movieId,rating,timestamp",
    }


def test_films_are_many_and_titles_unique(movies: list[Row]) -> None:
    assert len(movies) >= 240
    assert len({row["title"] for row in movies}) == len(movies)
    assert [int(row["movieId"]) for row in movies] == list(range(1, len(movies) + 1))


def test_every_title_ends_in_a_year_and_none_starts_with_an_article(movies: list[Row]) -> None:
    for row in movies:
        year = re.fullmatch(r"(?!The |A |An )\S.* \((\d{4})\)", row["title"])
        assert year, row["title"]
        assert 1900 <= int(year[1]) <= 2024, row["title"]


def test_every_film_has_known_genres_in_order(movies: list[Row]) -> None:
    for row in movies:
        genres = row["genres"].split("|")
        assert set(genres) <= set(VOCABULARY.split("|")), row["title"]
        assert genres == sorted(set(genres)), row["title"]


def test_every_film_has_a_language_and_directors_and_no_invented_metadata(sample: Path, movies: list[Row]) -> None:
    metadata = read(sample / "metadata.csv")
    assert [row["movieId"] for row in metadata] == [row["movieId"] for row in movies]
    for row in metadata:
        assert row["language"] in LANGUAGES, row
        assert all(name and name == name.strip() for name in row["directors"].split("|")), row
        assert {row[unknown] for unknown in ("release_date", "runtime_minutes", "vote_average")} == {""}
        assert {row[unknown] for unknown in ("vote_count", "cast")} == {""}


def test_tastes_cover_the_films_and_are_large_enough(movies: list[Row]) -> None:
    sizes = tastes_of(movies)
    assert sizes.total() == len(movies) == len(load_tastes())
    assert 6 <= len(sizes) <= 8
    assert min(sizes.values()) >= 28


def test_films_of_a_taste_come_from_several_decades(movies: list[Row]) -> None:
    tastes, decades = load_tastes(), defaultdict(set)
    for row in movies:
        decades[tastes[int(row["movieId"])]].add(row["title"][-5:-2])
    assert min(len(found) for found in decades.values()) >= 6


def test_viewers_rate_20_to_70_films_once_each(histories: dict[str, list[Row]]) -> None:
    assert list(histories) == [str(viewer) for viewer in range(1, 401)]
    for rows in histories.values():
        assert 20 <= len(rows) <= 70
        ids = [int(row["movieId"]) for row in rows]
        assert ids == sorted(set(ids))


def test_ratings_are_half_stars(histories: dict[str, list[Row]]) -> None:
    halves = {f"{stars / 2:.1f}" for stars in range(1, 11)}
    assert {row["rating"] for rows in histories.values() for row in rows} <= halves


def test_a_main_taste_dominates_each_viewers_likes(histories: dict[str, list[Row]]) -> None:
    shares = []
    for rows in histories.values():
        likes = tastes_of([row for row in rows if float(row["rating"]) >= 4])
        (_, most), *others = likes.most_common()
        second = others[0][1] if others else 0
        assert most > second
        assert most + second >= 0.8 * likes.total()
        shares.append(most / likes.total())
    assert min(shares) >= 0.45
    assert np.mean(shares) >= 0.7


def test_viewers_like_their_own_tastes_better(histories: dict[str, list[Row]]) -> None:
    tastes = load_tastes()
    inside: list[float] = []
    outside: list[float] = []
    for rows in histories.values():
        main = tastes_of(rows).most_common(1)[0][0]
        for row in rows:
            (inside if tastes[int(row["movieId"])] == main else outside).append(float(row["rating"]))
    assert min(inside) >= 3.5
    assert np.mean(inside) - np.mean(outside) >= 0.5


def test_a_few_films_hold_many_of_the_ratings(histories: dict[str, list[Row]]) -> None:
    counts = Counter(row["movieId"] for rows in histories.values() for row in rows)
    head = sum(count for _, count in counts.most_common(len(load_tastes()) // 10))
    assert 0.2 <= head / counts.total() <= 0.5


def test_sessions_are_of_one_taste_and_days_apart(histories: dict[str, list[Row]]) -> None:
    tastes, gaps = load_tastes(), []
    for rows in histories.values():
        for before, after in pairwise(sorted(rows, key=lambda row: int(row["timestamp"]))):
            gap = int(after["timestamp"]) - int(before["timestamp"])
            gaps.append(gap)
            assert 5 <= gap <= 600 or DAY <= gap <= 60 * DAY
            assert gap >= DAY or tastes[int(after["movieId"])] == tastes[int(before["movieId"])]
    assert np.median(gaps) <= 600


def test_timestamps_lie_in_the_seven_years(histories: dict[str, list[Row]]) -> None:
    times = [int(row["timestamp"]) for rows in histories.values() for row in rows]
    assert min(times) >= datetime(2018, 1, 1, tzinfo=UTC).timestamp()
    assert max(times) <= datetime(2024, 12, 31, tzinfo=UTC).timestamp()


def test_readme_says_that_the_viewers_are_simulated(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", seed=31, viewers=12)
    readme = (tmp_path / "data" / "README.txt").read_text("utf-8")
    assert SIMULATED_NOTICE in readme
    assert "simulated" in SIMULATED_NOTICE
    assert "seed 31" in readme
    assert "The 12 viewers" in readme


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="remove it or name another folder"):
        write_sample(tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="viewers is 0"):
        write_sample(tmp_path / "data", viewers=0)
    assert list(tmp_path.iterdir()) == []
