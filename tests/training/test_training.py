"""Training end to end on real files: what is written, that it repeats, and what bad input does."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import json_format

from marquee.bundle.format import HISTORY_TABLE, ITEM_VECTORS, Bundle, open_bundle
from marquee.bundle.gate import check_gate
from marquee.errors import BundleError, ConfigError, MarqueeError
from marquee.features import content_ids, feature_spec
from marquee.movies import MovieRecord
from tests.conftest import Planted
from tests.planted import write_planted
from training.__main__ import main
from training.model import ContentBags, TowerConfig, TwoTower
from training.train import TrainConfig

ROOT = Path(__file__).parents[2]
QUICK = ("--dimension", "16", "--epochs", "2")


def figure(bundle: Bundle, system: str, name: str) -> float:
    return next(
        metric.value
        for metric in bundle.report().metrics
        if (metric.system, metric.name, metric.targets) == (system, name, "all")
    )


def test_the_bundle_of_a_training_run_passes_the_gate(planted: Planted) -> None:
    check_gate(planted.bundle, None)
    check_gate(planted.bundle, planted.bundle)


def test_the_model_beats_popularity_where_tastes_are_planted(planted: Planted) -> None:
    assert figure(planted.bundle, "model", "recall@10") > 2 * figure(planted.bundle, "popularity", "recall@10")


def test_the_manifest_says_how_it_was_made(planted: Planted) -> None:
    manifest = planted.bundle.manifest
    assert manifest.tower.kind == "pooled"
    training = json_format.MessageToDict(manifest.tower.config)["training"]
    assert training["logq"] == "expected"
    assert training["batch"] >= 64, "the effective batch, not 0"
    assert manifest.dataset.events == 4 * 60 * 21
    assert not manifest.dataset.simulated


def copy_of_the_code(folder: Path) -> Path:
    for package in ("marquee", "training"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_two_clones_in_two_folders_make_the_same_space_and_vectors(tmp_path: Path) -> None:
    data = write_planted(tmp_path / "data")
    bundles = []
    for name in ("one", "a/deeper/two"):
        clone = copy_of_the_code(tmp_path / name)
        command = [sys.executable, "-P", "-m", "training", "--data", str(data), "--out", str(clone / "bundle"), *QUICK]
        environment = os.environ | {"PYTHONPATH": str(clone), "PYTHONHASHSEED": str(len(name))}
        subprocess.run(command, cwd=clone, env=environment, check=True, timeout=300)
        bundles.append(open_bundle(clone / "bundle"))
    one, two = bundles
    assert one.space == two.space
    for name in (ITEM_VECTORS, HISTORY_TABLE):
        assert one.file(name).read_bytes() == two.file(name).read_bytes()
    assert one.id == two.id


def test_another_seed_makes_another_space(planted: Planted, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        assert main(["--data", str(planted.data), "--out", str(tmp_path / seed), "--seed", seed, *QUICK]) == 0
    assert open_bundle(tmp_path / "1").space != open_bundle(tmp_path / "2").space


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_training_leaves_the_old_bundle_whole(planted: Planted, tmp_path: Path, ending: int) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(planted.bundle.path, place)
    command = [sys.executable, "-m", "training", "--data", str(planted.data), "--out", str(place), "--epochs", "500"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    deadline = time.monotonic() + 60
    while "epoch" not in process.stderr.readline():
        assert time.monotonic() < deadline
    process.send_signal(ending)
    _, messages = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in messages
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert "nothing was written" in messages
    assert open_bundle(place).id == planted.bundle.id
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def write_ratings(folder: Path, rows: list[tuple[object, ...]], movies: int = 3) -> Path:
    folder.mkdir()
    with (folder / "movies.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("movieId", "title", "genres"), *((n, f"Film {n} (1999)", "Drama") for n in range(1, movies + 1))]
        )
    with (folder / "ratings.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("userId", "movieId", "rating", "timestamp"), *rows])
    return folder


def test_data_in_which_nobody_has_two_events_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_ratings(tmp_path / "lonely", [(user, 1, 4, 1000) for user in range(5)])
    assert main(["--data", str(folder), "--out", str(tmp_path / "bundle")]) == 1
    assert "nobody has two events" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("rows", [[(1, 1, 4, 10), (1, 2, 3, 20)], [(u, m, 4, 10) for u in range(3) for m in (1, 2)]])
def test_very_little_data_trains_or_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[tuple[object, ...]]
) -> None:
    folder = write_ratings(tmp_path / "little", rows)
    code = main(["--data", str(folder), "--out", str(tmp_path / "bundle"), *QUICK])
    messages = capsys.readouterr().err
    assert code == 0 or "use data with more events" in messages
    assert (tmp_path / "bundle").exists() == (code == 0)


def test_a_missing_folder_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "bundle")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: TowerConfig(kind="tall"), "tower is 'tall'"),
        (lambda: TowerConfig(dimension=1), "dimension is 1"),
        (lambda: TowerConfig(half_lives=()), "half_lives"),
        (lambda: TrainConfig(epochs=0), "epochs"),
        (lambda: TrainConfig(batch=1), "batch is 1"),
        (lambda: TrainConfig(temperature=0), "temperature"),
        (lambda: TrainConfig(logq="never"), "logq is 'never'"),
        (lambda: TrainConfig(id_dropout=1.0), "id_dropout"),
    ],
)
def test_a_wrong_knob_is_named(make: object, problem: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=problem):
        make()


def test_the_batch_is_chosen_from_the_number_of_events() -> None:
    sizes = [TrainConfig().for_events(events).batch for events in (3, 100, 13_000, 100_000, 10_000_000)]
    assert sizes == [3, 64, 256, 1024, 1024]
    assert TrainConfig(batch=512).for_events(100_000).batch == 512


def test_bags_and_padding_give_the_same_content_rows() -> None:
    spec = feature_spec(max_history=4, dimension=8, content_buckets=50, max_content_tokens=6)
    movies = [
        MovieRecord(1, "One Two Three", 1999, ("Drama",)),
        MovieRecord(2, "", None, ()),
        MovieRecord(3, "Four", 2001, ("Comedy", "War"), "fr"),
    ]
    content = torch.from_numpy(content_ids(movies, spec))
    config = TowerConfig(dimension=8, content_buckets=50, max_content_tokens=6)
    towers = TwoTower(config, torch.ones(3)).item_tower
    torch.testing.assert_close(towers.bagged_content_rows(ContentBags(content)), towers.content_rows(content))


def test_a_movie_without_training_events_has_no_id_half() -> None:
    towers = TwoTower(TowerConfig(dimension=8), torch.tensor([1.0, 0.0]))
    content = torch.tensor([[1, 2], [1, 2]])
    rows, content_rows = towers.table(ContentBags(content))
    torch.testing.assert_close(rows[1], content_rows[1])
    assert not torch.equal(rows[0], content_rows[0])


def test_every_error_of_training_is_one_of_ours() -> None:
    assert issubclass(ConfigError, MarqueeError)
    assert issubclass(BundleError, MarqueeError)


def test_item_vectors_and_rows_are_of_unit_length_and_finite(planted: Planted) -> None:
    vectors = np.asarray(planted.bundle.array(ITEM_VECTORS))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert np.isfinite(planted.bundle.array(HISTORY_TABLE)).all()
