"""Prepared datasets: equal to what was loaded, made once, and never believed when damaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from marquee.errors import DataError
from training.data import Dataset, load_dataset, load_prepared
from training.generate import write_generated

ARRAYS = ("movie_ids", "users", "items", "kinds", "values", "times_ms")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_generated(tmp_path / "data", people=30, movies=400, events=900, seed=2)
    with (tmp_path / "data" / "ratings.csv").open("a") as file:
        file.write("1,1,nine,5\n")
    return tmp_path / "data"


def assert_equal(found: Dataset, wanted: Dataset) -> None:
    for field in dataclasses.fields(Dataset):
        one, other = getattr(found, field.name), getattr(wanted, field.name)
        if field.name in ARRAYS:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other, field.name


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_prepared_is_what_was_loaded(folder: Path, tmp_path: Path) -> None:
    wanted = load_dataset(folder)
    assert wanted.report.rows_bad == 1
    for _ in range(2):
        found = load_prepared(folder, tmp_path / "cache")
        assert_equal(found, wanted)
        assert found.describe() == wanted.describe()


def test_columns_are_read_only_maps(folder: Path, tmp_path: Path) -> None:
    data = load_prepared(folder, tmp_path / "cache")
    for name in ARRAYS:
        column = getattr(data, name)
        assert isinstance(column, np.memmap)
        assert not column.flags.writeable


def test_the_same_files_are_prepared_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_prepared(folder, tmp_path / "cache")
    monkeypatch.delattr("training.data.prepared.load_dataset")
    assert load_prepared(folder, tmp_path / "cache").report.rows_kept == 900
    assert len(entries(tmp_path / "cache")) == 1


def test_a_changed_file_makes_a_new_entry(folder: Path, tmp_path: Path) -> None:
    first = load_prepared(folder, tmp_path / "cache")
    for number, name in enumerate(("ratings.csv", "movies.csv"), 2):
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join(lines[:-1]) + "\n")
        again = load_prepared(folder, tmp_path / "cache")
        assert_equal(again, load_dataset(folder))
        assert len(entries(tmp_path / "cache")) == number
    assert len(first.movies) == 400
    (folder / "README.txt").unlink()
    assert not load_prepared(folder, tmp_path / "cache").simulated


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "checksums"])
def test_a_damaged_entry_is_made_anew(folder: Path, tmp_path: Path, damage: str) -> None:
    wanted = load_prepared(folder, tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    victim = entry / ("checksums.json" if damage == "checksums" else "items.npy")
    content = bytearray(victim.read_bytes())
    content[-4] ^= 1
    victim.unlink()
    if damage != "remove":
        victim.write_bytes(content[:-8] if damage == "cut" else content)
    assert_equal(load_prepared(folder, tmp_path / "cache"), load_dataset(folder))
    assert entries(tmp_path / "cache") == [entry], "nothing is left beside it"
    assert wanted.report.rows_kept == 900


def test_a_cache_that_cannot_be_written_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="name another cache folder"):
        load_prepared(folder, tmp_path / "cache")


def test_a_missing_folder_is_refused_as_ever(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_prepared(tmp_path / "none", tmp_path / "cache")
