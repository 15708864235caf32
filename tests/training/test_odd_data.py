"""Odd data, loaded and split by all protocols: a defined result, or one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from marquee import features
from marquee.errors import DataError
from training.data import ColumnMap, Dataset, load_dataset
from training.split import Split, splits

SPEC = features.feature_spec(max_history=10, dimension=8, content_buckets=64, max_content_tokens=8)
PEOPLE, MOVIES, WATCHED = 10, 12, 6
Rating = tuple[int, int, float, int]


def usual() -> list[Rating]:
    """Each of ten people rates six of twelve movies, a day apart; movie ids are 1 to 12."""
    return [
        (person + 1, (person + step) % MOVIES + 1, 0.5 + (person + step) % 10 / 2, 86_400 * step + person)
        for person in range(PEOPLE)
        for step in range(WATCHED)
    ]


def write(
    folder: Path, ratings: Sequence[Rating], ids: Sequence[int] = range(1, MOVIES + 1), genres: str = "A|B"
) -> Path:
    folder.mkdir(exist_ok=True)
    rows = "".join(f"{user},{movie},{stars},{time}\n" for user, movie, stars, time in ratings)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    films = "".join(f"{movie},Film {movie} (1999),{genres}\n" for movie in ids)
    (folder / "movies.csv").write_text("movieId,title,genres\n" + films)
    return folder


def last(data: Dataset) -> Split:
    (split,) = splits(data, SPEC, "last")
    return split


def refusal(data: Dataset, protocol: str) -> str:
    with pytest.raises(DataError) as caught:
        splits(data, SPEC, protocol)
    return str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "problem"),
    [
        ("last", "nobody has two events, so there is nothing to learn from"),
        ("users", "10 people, of whom 0 have two movies, are too few for 5 folds"),
        ("time", "no cut in time leaves events before it and, of the same people, movies after it"),
    ],
)
def test_users_with_one_event_each_are_refused(tmp_path: Path, protocol: str, problem: str) -> None:
    data = load_dataset(write(tmp_path / "ones", [row for row in usual() if row[3] < 86_400]))
    assert len(data.users) == PEOPLE
    text = refusal(data, protocol)
    assert text.startswith(f"ones: {problem}")
    assert "; use " in text


@pytest.mark.parametrize("columns", [None, ColumnMap(genres="")])
def test_a_catalogue_without_genres_is_split_as_ever(tmp_path: Path, columns: ColumnMap | None) -> None:
    data = load_dataset(write(tmp_path, usual(), genres="(no genres listed)"), columns)
    assert data.report.movies_without_genres == MOVIES
    assert last(data).test.size == PEOPLE
    tokens = features.content_tokens(data.movies[0])
    assert tokens == ["year:1999", "decade:199", "title:film"]


def test_a_single_genre_says_nothing_and_does_no_harm(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, usual(), genres="Drama"))
    assert {movie.genres for movie in data.movies} == {("Drama",)}
    assert [len(splits(data, SPEC, protocol)) for protocol in ("last", "users", "time")] == [1, 5, 1]


def test_equal_timestamps_are_ordered_by_hash_and_cannot_be_cut(tmp_path: Path) -> None:
    at_once = [(user, movie, stars, 77) for user, movie, stars, _ in usual()]
    data = load_dataset(write(tmp_path / "a", at_once))
    backwards = load_dataset(write(tmp_path / "b", at_once[::-1]))
    np.testing.assert_array_equal(last(data).test.targets, last(backwards).test.targets)
    for person, target in enumerate(last(data).test.targets):
        own = data.movie_ids[data.items[data.users == person]]
        hashes = features.tie_hash(features.user_hash(data.user_ids[person]), own)
        assert data.movie_ids[target] == own[np.argmax(hashes)]
    assert "no cut in time leaves events before it" in refusal(data, "time")


@pytest.mark.parametrize("stars", [0.5, 3.0, 5.0])
def test_equal_ratings_are_all_liked_as_none_is_below_the_mean(tmp_path: Path, stars: float) -> None:
    data = load_dataset(write(tmp_path, [(user, movie, stars, time) for user, movie, _, time in usual()]))
    for protocol in ("last", "users", "time"):
        for split in splits(data, SPEC, protocol):
            assert split.test.liked_T.all()


def test_one_user_with_half_of_all_events_is_one_query(tmp_path: Path) -> None:
    few = [row for row in usual() if row[1] <= 3]
    half = [(99, movie, 3.0, 86_400 * movie) for movie in range(1, len(few) + 1)]
    data = load_dataset(write(tmp_path, few + half, ids=range(1, len(few) + 1)))
    heavy = data.user_ids.index("99")
    assert 2 * np.count_nonzero(data.users == heavy) == len(data.users)
    split = last(data)
    assert np.count_nonzero(split.test.users == heavy) == 1
    inputs = split.test.take(np.flatnonzero(split.test.users == heavy)).tower_input(SPEC)
    assert inputs.rows[0].tolist() == [len(few) - 2 - age for age in range(SPEC.max_history)], "the newest ten"
    tested = [query for fold in splits(data, SPEC, "users") for query in fold.test.users.tolist()]
    assert tested.count(heavy) == 1


def test_huge_ids_with_gaps_are_told_apart(tmp_path: Path) -> None:
    largest = 2**63 - 1
    ids = [largest - 2 * place for place in range(MOVIES)][::-1]  # as floats, all of them are equal
    wide = [(user * 10**17, ids[movie - 1], stars, time) for user, movie, stars, time in usual()]
    data = load_dataset(write(tmp_path / "wide", wide, ids))
    plain = load_dataset(write(tmp_path / "plain", usual()))
    assert data.movie_ids.tolist() == ids
    assert data.user_ids == [str(number * 10**17) for number in range(1, PEOPLE + 1)]
    np.testing.assert_array_equal(data.items, plain.items)
    np.testing.assert_array_equal(last(data).test.targets, last(plain).test.targets)
    hashes = last(data).test.hashes(data.user_ids, data.movie_ids)
    assert len(set(hashes.tolist())) == PEOPLE
