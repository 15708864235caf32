"""Generated data: the planted order is there, as the constants say, and the loader takes what is written.

U people, E events, K topics, M places in a topic.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from marquee.errors import ConfigError
from training.data import Dataset, load_dataset
from training.generate import Process, World, build_world, write_generated
from training.generate.__main__ import main
from training.generate.films import invent_films
from training.generate.process import blocks, generate, history_lengths, next_chances, walk

Int64s = npt.NDArray[np.int64]
PEOPLE, MOVIES, EVENTS = 300, 800, 18_000


def walks(process: Process, people: int, length: int, movies: int = 1000, seed: int = 1) -> tuple[World, Int64s]:
    """Walks of equal length: slots [U, E / U]."""
    world, rng = build_world(process, movies, seed), np.random.default_rng(seed)
    favourites = rng.integers(0, len(world.chance_K), (people, process.favourites))
    slots = walk(process, world, favourites, np.full(people, length), rng)
    return world, slots.reshape(people, length).astype(np.int64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "small"
    write_generated(folder, people=PEOPLE, movies=MOVIES, events=EVENTS, seed=3)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load_dataset(folder)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, file_format: Any) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_generated(tmp_path / name, people=30, movies=400, events=900, seed=seed, file_format=file_format)
    first, again, other = (digest(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_topics_follow_the_graph() -> None:
    process = Process(follow=(0.0, 0.0), stay=0.5, wander=0.0, neighbours=(0.6, 0.3, 0.1))
    world, slots = walks(process, people=2000, length=21)
    topics = slots // world.weight_KM.shape[1]
    before, after = topics[:, :-1].ravel(), topics[:, 1:].ravel()
    assert np.mean(before == after) == pytest.approx(0.5, abs=0.01)
    for place, share in enumerate((0.3, 0.15, 0.05)):
        assert np.mean(world.neighbour_KD[before, place] == after) == pytest.approx(share, abs=0.01)
    known = (before == after) | (world.neighbour_KD[before] == after[:, None]).any(axis=1)
    assert known.all(), "a topic has no other way out than its neighbours"


def test_a_person_wanders_to_favourites_only() -> None:
    process = Process(follow=(0.0, 0.0), stay=0.0, wander=1.0, favourites=2)
    world, slots = walks(process, people=100, length=20, seed=4)
    topics = slots // world.weight_KM.shape[1]
    assert max(len(set(row.tolist())) for row in topics) <= 2


def test_the_successor_of_the_last_movie_comes_next_until_the_chain_closes() -> None:
    world, slots = walks(Process(follow=(1.0, 0.0)), people=20, length=101)
    places = world.weight_KM.shape[1]
    successors = slots // places * places + world.successor_KM.ravel()[slots]
    assert (slots[:, 1:100] == successors[:, :99]).all(), "100 movies make one chain"
    assert (slots[:, 100] != slots[:, 0]).all(), "nobody watches a movie twice"


def test_the_successor_of_the_movie_before_the_last_comes_next() -> None:
    world, slots = walks(Process(follow=(0.0, 1.0)), people=200, length=12)
    places = world.weight_KM.shape[1]
    successors = slots // places * places + world.successor_KM.ravel()[slots]
    watched = np.array(
        [[successor in row[:8] for successor in follow[:6]] for row, follow in zip(slots, successors, strict=True)]
    )
    follows = slots[:, 2:8] == successors[:, :6]
    assert (follows | watched).all()
    assert follows.mean() > 0.9


def test_chances_are_those_that_are_drawn() -> None:
    process = Process(wander=0.0)
    world, slots = walks(process, people=2500, length=15)
    expected, found = [], []
    for row in slots:
        chances = next_chances(process, world, row[:-1])
        ten = np.argsort(-chances)[:10]
        expected.append(chances[ten].sum())
        found.append(row[-1] in ten)
        assert chances.sum() == pytest.approx(1.0)
        assert not chances[row[:-1]].any()
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=0.02)  # standard error 0.01


def test_chances_by_hand() -> None:
    process = Process(movies_per_topic=10, follow=(0.2, 0.1), stay=0.5, wander=0.0, neighbours=(1.0,), movie_slope=0.0)
    world = build_world(process, 20, seed=0)  # two topics of ten equal movies, each the other's neighbour
    last = 3
    chances = next_chances(process, world, np.array([last]))
    successor = int(world.successor_KM[0, last])
    assert chances[successor] == pytest.approx(0.2 + 0.8 * 0.5 / 9)
    assert chances[10:].tolist() == pytest.approx([0.8 * 0.5 / 10] * 10)


def ease(watched: npt.NDArray[np.float32], penalty: float) -> npt.NDArray[np.float64]:
    inverse = np.linalg.inv(watched.T.astype(np.float64) @ watched + penalty * np.eye(watched.shape[1]))
    scores: npt.NDArray[np.float64] = watched @ (-inverse / np.diag(inverse))
    return scores


def test_what_comes_next_is_in_the_last_movies_not_in_the_bag(data: Dataset) -> None:
    process, people, movies = Process(), len(data.user_ids), len(data.movies)
    world = build_world(process, MOVIES, seed=3)
    slots = invent_films(world, seed=3).slots
    last = np.searchsorted(data.users, np.arange(people), side="right") - 1
    watched = np.zeros((people, movies), np.float32)
    watched[data.users, data.items] = 1
    watched[data.users[last], data.items[last]] = 0
    known = np.full((people, movies), -1.0)
    for person, end in enumerate(last):
        row = slots[data.items[(data.users == person) & (np.arange(len(data.users)) < end)]]
        known[person] = next_chances(process, world, row)[slots]
    hits = {}
    for name, scores in (("ease", ease(watched, 100.0)), ("order", known)):
        scores = np.where(watched > 0, -np.inf, scores)
        target = scores[np.arange(people), data.items[last]]
        hits[name] = np.mean((scores > target[:, None]).sum(axis=1) < 10)
    assert 0.4 <= hits["order"] <= 0.65
    assert 2.5 * hits["ease"] <= hits["order"]


def test_the_loader_takes_all_of_it(data: Dataset) -> None:
    assert data.simulated
    assert (data.report.rows_read, data.report.rows_kept, data.report.dropped) == (EVENTS, EVENTS, ())
    assert (len(data.user_ids), len(data.movies)) == (PEOPLE, MOVIES)
    assert data.user_ids == [str(number + 1) for number in range(PEOPLE)]
    assert all(movie.genres and movie.year and 1930 <= movie.year <= 2018 for movie in data.movies)
    assert len({(movie.title, movie.year) for movie in data.movies}) == MOVIES


def test_nobody_watches_a_movie_twice(data: Dataset) -> None:
    pairs = data.users.astype(np.int64) * MOVIES + data.items
    assert len(np.unique(pairs)) == EVENTS


def test_history_lengths_are_movielens_like() -> None:
    lengths = history_lengths(Process(), 6040, 3700, 1_000_000, seed=0)
    assert (lengths.sum(), lengths.min()) == (1_000_000, 20)
    assert 90 <= np.median(lengths) <= 110
    assert lengths.max() == 1850


def test_small_histories_are_shared_out_exactly() -> None:
    assert sorted(history_lengths(Process(), 3, 100, 6, seed=0).tolist()) == [2, 2, 2]
    assert history_lengths(Process(), 7, 100, 350, seed=0).tolist() == [50] * 7


def test_popularity_is_a_power_law() -> None:
    process = Process(movie_slope=1.0, topic_slope=0.5, follow=(0.0, 0.0))
    world, slots = walks(process, people=4000, length=2, movies=1000)
    counts = np.bincount(slots[:, 0], minlength=world.weight_KM.size).reshape(world.weight_KM.shape).sum(axis=0)
    slope, _ = np.polyfit(np.log(np.arange(1, 31)), np.log(counts[:30]), 1)
    assert slope == pytest.approx(-1.0, abs=0.1)
    assert np.sort(world.chance_K)[::-1] / world.chance_K.max() == pytest.approx(np.arange(1, 11) ** -0.5)


def test_a_few_movies_hold_many_of_the_events(data: Dataset) -> None:
    counts = np.sort(np.bincount(data.items, minlength=MOVIES))[::-1]
    assert 0.3 <= counts[: MOVIES // 10].sum() / EVENTS <= 0.6


def test_ratings_are_half_stars_that_depend_on_person_and_movie(data: Dataset) -> None:
    assert set((data.values * 2).tolist()) <= set(range(1, 11))
    for codes in (data.users, data.items):
        counts = np.bincount(codes)
        means = np.bincount(codes, data.values) / np.maximum(counts, 1)
        # Chance alone spreads the means of 30 ratings by less than 0.2.
        assert np.std(means[counts >= 30]) > 0.25


def test_time_runs_in_sessions(data: Dataset) -> None:
    gaps_s = np.diff(data.times_ms)[data.users[1:] == data.users[:-1]] / 1000
    assert 10 <= np.median(gaps_s) <= 20
    assert gaps_s.min() >= 1
    long = gaps_s[gaps_s > 3600]
    assert long.min() >= 86_400
    assert 0.01 < len(long) / len(gaps_s) < 0.1


def test_genres_go_with_topics(data: Dataset) -> None:
    world = build_world(Process(), MOVIES, seed=3)
    topics = invent_films(world, seed=3).slots // world.weight_KM.shape[1]
    for topic in range(len(world.chance_K)):
        own = [movie.genres for movie, at in zip(data.movies, topics, strict=True) if at == topic]
        names = {genre for genres in own for genre in genres}
        assert max(sum(name in genres for genres in own) for name in names) > 0.75 * len(own)


def test_blocks_cover_everybody_once_longest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.generate.process._BLOCK_CELLS", 400 * 4)
    process = Process()
    world, lengths = build_world(process, 400, 0), history_lengths(process, 10, 400, 300, 0)
    parts = blocks(lengths, world)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(np.concatenate(parts).tolist()) == list(range(10))
    assert np.all(np.diff(lengths[np.concatenate(parts)]) <= 0)
    for part in parts:
        made = generate(process, world, part, lengths[part], 0)
        assert np.bincount(made.people, minlength=10)[part].tolist() == lengths[part].tolist()


def test_a_topic_that_is_used_up_is_left() -> None:
    process = Process(movies_per_topic=10, stay=1.0, wander=0.0, follow=(0.0, 0.0), neighbours=(1.0,))
    _, slots = walks(process, people=5, length=20, movies=20)
    assert all(sorted(row.tolist()) == list(range(20)) for row in slots)


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        (("--movies", "300"), "--movies is 300: the process needs at least 400"),
        (("--people", "0"), "there must be a person"),
        (("--events", "10"), "--events is 10: 50 people on 400 movies have from 100 to 10,000"),
        (("--events", "10001"), "--events is 10,001"),
        (("--seed", "-1"), "--seed is -1"),
    ],
)
def test_sizes_that_do_not_go_together_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sizes: tuple[str, ...], problem: str
) -> None:
    usual = ("--people", "50", "--movies", "400", "--events", "1500")
    assert main(["--out", str(tmp_path / "out"), *usual, *sizes]) == 1
    assert problem in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    sizes = ["--people", "50", "--movies", "400", "--events", "1500"]
    assert main(["--out", str(tmp_path), *sizes]) == 1
    assert "remove it or name another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("constants", "field"),
    [
        ({"follow": (0.9, 0.2)}, "follow"),
        ({"neighbours": (-0.1, 0.5)}, "neighbours"),
        ({"stay": 0.9, "wander": 0.2}, "stay"),
        ({"movies_per_topic": 5}, "movies_per_topic"),
    ],
)
def test_a_wrong_constant_is_named(constants: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        Process(**constants)


def test_shards_hold_the_same_events_as_the_csv(tmp_path: Path, data: Dataset) -> None:
    write_generated(tmp_path / "shards", people=PEOPLE, movies=MOVIES, events=EVENTS, seed=3, file_format="parquet")
    assert load_dataset(tmp_path / "shards").fingerprint == data.fingerprint
