"""What is wrong is said in a sentence, with what to do; nothing is made of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pandas as pd
import pytest

from tests.batch.conftest import World
from tests.batch.rigs import batch

Capsys = pytest.CaptureFixture[str]

_GOOD = {"user_id": ["a"], "movie_id": [1], "kind": ["LIKED"], "value": [0.0], "time_ms": [1_500_000_000_000]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--out"),
        (("--out=x", "-k0"), "'0' is no number from 1 to 1000"),
        (("--out=x", "--bundle=b"), "--events goes with --bundle or --registry"),
        (("--out=x", "--events=e"), "--events goes with --bundle or --registry"),
        (("--out=x", "--bundle=b", "--registry=r", "--events=e"), "not allowed with"),
        (("--out=x", "--as-of=yesterday"), "'yesterday' is no time"),
        (("--out=x", "--as-of=2026-11-01"), "has no time zone"),
        (("--out=x", "--deadline=0"), "give a number of seconds above 0"),
        (("--out=x", "--encoder=nowhere"), "encoder is 'nowhere', which is no address"),
    ],
)
def test_wrong_arguments(capsys: Capsys, arguments: tuple[str, ...], said: str) -> None:
    ended = batch(capsys, *arguments)
    assert (ended.code, said in ended.said) == (2, True), ended.said


def refused(world: World, tmp_path: Path, capsys: Capsys, events: Path, *flags: str) -> str:
    """Runs in process; returns the one sentence that it must end with."""
    out = tmp_path / "out"
    ended = batch(capsys, f"--out={out}", f"--bundle={world.bundle.path}", f"--events={events}", *flags)
    assert ended.code == 1
    assert ended.said.startswith("python -m clients.batch: error: ")
    assert ended.said.count("\n") == 1
    assert not out.exists()
    return ended.said


def test_a_folder_without_events(world: World, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert "there are no events here" in refused(world, tmp_path, capsys, tmp_path / "empty")
    assert "there are no events here" in refused(world, tmp_path, capsys, tmp_path / "missing")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("user_id", "", "user_id is out of range in 1 rows"),
        ("user_id", "x" * 300, "user_id is out of range in 1 rows"),
        ("user_id", "a\x07", "user_id is out of range in 1 rows"),
        ("user_id", None, "user_id is missing in 1 rows"),
        ("movie_id", 0, "movie_id is out of range in 1 rows"),
        ("kind", "ADORED", "'ADORED' is no kind of event"),
        ("kind", "UNSPECIFIED", "'UNSPECIFIED' is no kind of event"),
        ("time_ms", 0, "time_ms is out of range in 1 rows"),
        ("time_ms", 9_000_000_000_000, "time_ms is out of range in 1 rows"),
    ],
)
def test_an_event_that_no_store_would_take(
    world: World, tmp_path: Path, capsys: Capsys, column: str, value: object, said: str
) -> None:
    rows = pd.concat([pd.DataFrame(_GOOD), pd.DataFrame({**_GOOD, column: [value]})])
    rows.to_parquet(tmp_path / "events.parquet")
    assert said in refused(world, tmp_path, capsys, tmp_path / "events.parquet")


def test_stars_out_of_range(world: World, tmp_path: Path, capsys: Capsys) -> None:
    pd.DataFrame({**_GOOD, "kind": ["RATED"], "value": [7.0]}).to_parquet(tmp_path / "events.parquet")
    assert "value is out of range in 1 rows" in refused(world, tmp_path, capsys, tmp_path / "events.parquet")


def test_a_parquet_file_of_something_else(world: World, tmp_path: Path, capsys: Capsys) -> None:
    pd.DataFrame({"user_id": ["a"], "item": [1]}).to_parquet(tmp_path / "events.parquet")
    assert "has no column movie_id" in refused(world, tmp_path, capsys, tmp_path / "events.parquet")
    (tmp_path / "events.parquet").write_bytes(b"PAR1 and no more")
    assert "cannot be read" in refused(world, tmp_path, capsys, tmp_path / "events.parquet")


def test_ratings_that_are_none(world: World, tmp_path: Path, capsys: Capsys) -> None:
    (world.events / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,two,3.5,1500000000\n")
    assert "cannot be read" in refused(world, tmp_path, capsys, world.events)
    (world.events / "ratings.csv").write_text("user,movie\n1,2\n")
    assert "cannot be read" in refused(world, tmp_path, capsys, world.events)


def test_events_of_nobody(world: World, tmp_path: Path, capsys: Capsys) -> None:
    (world.events / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    assert "there is nobody to recommend for" in refused(world, tmp_path, capsys, world.events)


def test_a_file_of_users_that_is_none(world: World, tmp_path: Path, capsys: Capsys) -> None:
    users = tmp_path / "users"
    assert "is no text file of ids" in refused(world, tmp_path, capsys, world.events, f"--users={users}")
    users.write_text("\n")
    assert "has no user ids" in refused(world, tmp_path, capsys, world.events, f"--users={users}")


def test_a_file_of_movies_that_is_none(world: World, tmp_path: Path, capsys: Capsys) -> None:
    movies = tmp_path / "movies"
    movies.write_text("7\nseven # not in digits\n")
    assert "movies:2: 'seven' is no movie id" in refused(world, tmp_path, capsys, world.events, f"--exclude={movies}")


def test_a_folder_that_is_no_bundle(world: World, tmp_path: Path, capsys: Capsys) -> None:
    ended = batch(capsys, f"--out={tmp_path / 'out'}", f"--bundle={tmp_path}", f"--events={world.events}")
    assert ended.code == 1
    assert "manifest.json" in ended.said
    registry = f"--registry={tmp_path / 'none'}"
    ended = batch(capsys, f"--out={tmp_path / 'out'}", registry, f"--events={world.events}")
    assert ended.code == 1
    assert "there is no registry here" in ended.said


def test_years_that_no_movie_can_be_of(world: World, tmp_path: Path, capsys: Capsys) -> None:
    said = refused(world, tmp_path, capsys, world.events, "--year=2000-1990")
    assert "filter.year_min is 2000, above filter.year_max, 1990" in said or "no movie can be of both" in said


def test_a_folder_that_is_something_else(world: World, tmp_path: Path, capsys: Capsys) -> None:
    for command in (world.events, world.bundle.path):
        ended = batch(capsys, f"--out={command}", f"--bundle={world.bundle.path}", f"--events={world.events}")
        assert ended.code == 1
        assert "is there already, and not of this command" in ended.said


def test_a_folder_that_cannot_be_made(world: World, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "file").write_text("")
    out = f"--out={tmp_path / 'file' / 'out'}"
    ended = batch(capsys, out, f"--bundle={world.bundle.path}", f"--events={world.events}")
    assert ended.code == 1
    assert "cannot be written" in ended.said


def test_a_manifest_that_is_none(world: World, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "out.unfinished").mkdir()
    manifest = tmp_path / "out.unfinished" / "_manifest.json"
    manifest.write_text("{")
    assert "is not JSON" in refused(world, tmp_path, capsys, world.events)
    manifest.write_text('{"format": 99}')
    assert "is of another version" in refused(world, tmp_path, capsys, world.events)


def test_services_that_are_away(tmp_path: Path, capsys: Capsys) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        there = f"127.0.0.1:{port}"
        ended = batch(capsys, f"--out={tmp_path / 'out'}", f"--encoder={there}", f"--retriever={there}")
    assert ended.code == 1
    assert f"no user_encoder answers at {there}" in ended.said
    assert not (tmp_path / "out").exists()
