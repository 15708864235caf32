"""Training end to end on real files: what is written, that it repeats, and what bad input does."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from google.protobuf import json_format
from rich.console import Console
from safetensors import safe_open

from marquee.bundle.format import EVALUATION, HISTORY_TABLE, ITEM_VECTORS, Bundle, open_bundle
from marquee.bundle.gate import check_consistent, check_gate
from marquee.errors import BundleError, ConfigError, DataError, MarqueeError
from marquee.features import content_ids, feature_spec
from marquee.movies import MovieRecord
from tests.conftest import Planted
from tests.planted import write_planted
from training.__main__ import build_parser, main
from training.checkpoint import Checkpoints
from training.choice import choose
from training.config import TrainConfig
from training.data import Dataset, load_dataset
from training.export import history_table
from training.model import TOWERS, ContentBags, TowerConfig, TwoTower
from training.split import PROTOCOLS, Split, splits
from training.train import Epoch, Trained, refit, spec_of, train, validate

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


def test_a_refitted_bundle_knows_everything_and_carries_its_siblings_evaluation(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert main(["--data", str(planted.data), "--out", str(out), "--refit", *QUICK]) == 0
    bundle, measured = open_bundle(out), open_bundle(tmp_path / "bundle-measured")
    assert bundle.report().carried_from == measured.id
    assert f"protocol, of bundle {measured.id[:12]}" in capsys.readouterr().err
    assert bundle.report().metrics == measured.report().metrics
    assert bundle.file(EVALUATION).read_bytes() == measured.file(EVALUATION).read_bytes()
    check_consistent(bundle)
    data, tower = load_dataset(planted.data), TowerConfig(dimension=16)
    split = splits(data, spec_of(tower), "last")[0]
    assert split.test.log.size == split.fit.size + split.test.size
    trained = train(data, split, tower, TrainConfig(epochs=2), silent())
    whole = refit(data, split._replace(fit=split.test.log), trained, silent())
    assert np.array_equal(bundle.array(HISTORY_TABLE), history_table(whole))
    assert not np.array_equal(bundle.array(HISTORY_TABLE), measured.array(HISTORY_TABLE))


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


def checkpoints_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def test_after_kill_9_the_same_command_ends_at_the_same_space(planted: Planted, tmp_path: Path) -> None:
    # The sequence tower draws from PyTorch's generator too, for its dropout.
    options = ("--data", str(planted.data), "--dimension", "16", "--epochs", "6", "--tower", "sequence")
    saved = ("--checkpoints", str(tmp_path / "saved"), "--out", str(tmp_path / "resumed"))
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *options, *saved], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while not checkpoints_in(tmp_path / "saved" / "sequence"):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.kill()
    _, messages = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "epoch  6" not in messages
    assert not (tmp_path / "resumed").exists()

    assert main([*options, *saved]) == 0
    assert main([*options, "--out", str(tmp_path / "whole")]) == 0
    assert open_bundle(tmp_path / "resumed").id == open_bundle(tmp_path / "whole").id


class Small(NamedTuple):
    """Is what `train` is given, but for its configuration."""

    data: Dataset
    split: Split
    tower: TowerConfig


@pytest.fixture(scope="module")
def small(planted: Planted) -> Small:
    tower, data = TowerConfig(dimension=8), load_dataset(planted.data)
    return Small(data, splits(data, spec_of(tower), "last")[0], tower)


def silent() -> Console:
    return Console(file=io.StringIO())


def test_a_run_that_has_finished_is_reused_and_another_needs_another_folder(small: Small, tmp_path: Path) -> None:
    config = TrainConfig(epochs=2, threads=1)
    first = train(*small, config, silent(), tmp_path)
    files = checkpoints_in(tmp_path)
    again = train(*small, config, silent(), tmp_path)
    assert checkpoints_in(tmp_path) == files
    assert again.epochs == first.epochs
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    with pytest.raises(ConfigError, match=r"training\.epochs was 2 and is 3"):
        train(*small, dataclasses.replace(config, epochs=3), silent(), tmp_path)


def test_a_loss_that_is_no_number_stops_names_the_step_and_keeps_the_last_checkpoint(
    small: Small, tmp_path: Path
) -> None:
    config = TrainConfig(epochs=2, threads=1)
    trained = train(*small, config, silent(), tmp_path)
    newest = checkpoints_in(tmp_path)[-1]
    with safe_open(newest, framework="pt") as stream:
        identity = json.loads(stream.metadata()["marquee.checkpoint"])["identity"]
    checkpoints = Checkpoints(tmp_path, identity)
    found = checkpoints.latest(pytest.fail)
    assert found is not None
    checkpoints.clear()
    # As if the temperature had been learned down to 0 in epoch 1.
    ran_away = found.tensors | {"model.log_temperature": torch.tensor(-1000.0)}
    file = checkpoints.save(1, 1, ran_away, found.state | {"epochs": [*trained.epochs[:1]], "best": 0})
    with pytest.raises(DataError, match=rf"^the loss became (nan|inf) in epoch 2, step 1: lower.*{file.name}"):
        train(*small, config, silent(), tmp_path)
    assert checkpoints_in(tmp_path) == [file]


@pytest.mark.parametrize("kind", TOWERS)
def test_training_stops_when_validation_has_not_risen_and_keeps_the_best_epoch(small: Small, kind: str) -> None:
    # So high a learning rate forgets what was learned.
    config = TrainConfig(epochs=30, patience=2, learning_rate=0.9, threads=1)
    split, tower = small.split, dataclasses.replace(small.tower, kind=kind)
    trained = train(small.data, split, tower, config, silent())
    figures = [epoch.ndcg_at_10 for epoch in trained.epochs]
    assert trained.best == int(np.argmax(figures))
    assert len(figures) == trained.best + 1 + config.patience < config.epochs
    measured = validate(
        trained.model, ContentBags(torch.from_numpy(trained.content_NT)), split.validation, trained.spec
    )
    assert measured.ndcg_Q.mean() == pytest.approx(figures[trained.best], rel=1e-6)


def test_without_validation_all_epochs_are_run_and_the_last_is_kept(small: Small) -> None:
    nobody = small.split.validation.take(np.zeros(0, np.int64))
    config = TrainConfig(epochs=3, patience=1, learning_rate=0.9, threads=1)
    trained = train(small.data, small.split._replace(validation=nobody), small.tower, config, silent())
    assert len(trained.epochs) == 3
    assert trained.best == 2
    assert np.isnan(trained.epochs[0].ndcg_at_10)


def test_towers_are_refitted_on_what_validation_held_out_as_long_as_the_best_epoch_took(small: Small) -> None:
    config = TrainConfig(epochs=3, threads=1, patience=3)
    trained = train(*small, config, silent())._replace(best=1)
    again = refit(small.data, small.split, trained, silent())
    held_out = small.split.validation.take(np.zeros(0, np.int64))
    whole = small.split._replace(train=small.split.fit, validation=held_out)
    expected = train(small.data, whole, small.tower, trained.config, silent(), stop_after=2)
    assert len(expected.epochs) == 2
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    assert again.epochs == trained.epochs


def test_what_is_learned_is_what_the_split_asks_for() -> None:
    by_protocol = {name: TrainConfig().for_data("pooled", 1000, 600, name).objective for name in PROTOCOLS}
    assert by_protocol == {"last": "next", "users": "hidden", "time": "next"}
    assert TrainConfig(objective="next").for_data("pooled", 1000, 600, "users").objective == "next"


@pytest.mark.parametrize("kind", TOWERS)
def test_more_people_are_read_more_but_each_less_often(kind: str) -> None:
    sizes = (3, 600, 1999, 2000, 6000, 600_000)
    read = [people * TrainConfig().for_data(kind, 1000, people, "users").epochs for people in sizes]
    assert read == sorted(read)
    epochs = [TrainConfig().for_data(kind, 1000, people, "users").epochs for people in (6000, 60_000, 600_000)]
    assert epochs == sorted(epochs, reverse=True)


def test_a_pooled_tower_of_hidden_histories_starts_at_its_teacher_and_goes_on_slowly() -> None:
    chosen = [
        (config.start, config.learning_rate)
        for kind, protocol in (("pooled", "users"), ("sequence", "users"), ("pooled", "last"))
        for config in [TrainConfig().for_data(kind, 1000, 600, protocol)]
    ]
    assert chosen == [("taught", 3e-4), ("linear", 3e-3), ("random", 3e-3)]
    # Who has many people to learn from goes far from there.
    assert TrainConfig().for_data("pooled", 1_000_000, 6000, "users").learning_rate == 3e-3
    assert TrainConfig(learning_rate=0.01).for_data("pooled", 1000, 600, "users").learning_rate == 0.01


@pytest.mark.parametrize(("kind", "protocol"), [("sequence", "users"), ("pooled", "last")])
def test_who_has_no_teacher_cannot_start_at_it(kind: str, protocol: str) -> None:
    with pytest.raises(
        ConfigError, match="start is 'taught', which is for a pooled tower that learns hidden histories"
    ):
        TrainConfig(start="taught").for_data(kind, 1000, 600, protocol)


@pytest.mark.parametrize("kind", TOWERS)
def test_hidden_histories_are_found_by_the_rest(planted: Planted, kind: str) -> None:
    data, tower = load_dataset(planted.data), TowerConfig(kind=kind, dimension=16)
    split = splits(data, spec_of(tower), "users")[0]
    trained = train(data, split, tower, TrainConfig(epochs=6, threads=1), silent())
    measured = validate(trained.model, ContentBags(torch.from_numpy(trained.content_NT)), split.test, trained.spec)
    # 6 of 7 hidden films are of the person's own taste, of which about 26 are unseen: no list of 10 is expected to hold
    # more than 0.33 of what is hidden, and one of films of all tastes 0.07.
    assert measured.recall_Q.mean() > 0.15


def test_where_hidden_histories_are_learned_the_schedule_is_run_to_its_end(small: Small) -> None:
    config = TrainConfig(objective="hidden", epochs=4, patience=1, learning_rate=0.9, threads=1)
    trained = train(*small, config, silent())
    assert (len(trained.epochs), trained.best) == (4, 3)


def test_validation_measures_each_query(small: Small) -> None:
    torch.manual_seed(3)
    queries, spec = small.split.validation, spec_of(small.tower)
    model = TwoTower(small.tower, torch.ones(len(small.data.movies))).eval()
    bags = ContentBags(torch.from_numpy(content_ids(small.data.movies, spec)))
    measured = validate(model, bags, queries, spec)
    with torch.no_grad():
        rows_ND, content_ND = model.table(bags)
        items_ND = model.item_tower.vectors(rows_ND, content_ND)
    places = []
    for query in range(queries.size):
        part = queries.take(np.array([query]))
        rows, *columns = (torch.from_numpy(column) for column in part.tower_input(spec))
        with torch.no_grad():
            scores_N = (items_ND @ model.user_tower(rows_ND[rows], *columns)[0]).numpy()
        seen, target = set(np.flatnonzero(part.seen(len(scores_N))[0]).tolist()), int(part.targets[0])
        places.append(
            1 + sum(scores_N[movie] > scores_N[target] for movie in range(len(scores_N)) if movie not in seen)
        )
    place_Q = np.array(places)
    assert 5 < np.count_nonzero(place_Q <= 10) < queries.size - 5
    np.testing.assert_array_equal(measured.recall_Q, place_Q <= 10)
    np.testing.assert_allclose(measured.ndcg_Q, (place_Q <= 10) / np.log2(1 + place_Q))
    assert 5 < np.count_nonzero(queries.liked_T) < queries.size - 5
    np.testing.assert_array_equal(measured.liked_ndcg_Q, np.where(queries.liked_T, measured.ndcg_Q, np.nan))


def trained_to(kind: str, *figures: tuple[float, float]) -> Trained:
    """Makes towers whose epochs came to (NDCG on all targets, NDCG on liked ones); the last epoch is the best."""
    tower = TowerConfig(kind=kind, dimension=8)
    epochs = [Epoch(1.0, 0.5, every, 1.0, liked) for every, liked in figures]
    content = np.ones((2, 4), np.int64)
    return Trained(TwoTower(tower, torch.ones(2)), TrainConfig(), spec_of(tower), content, epochs, len(epochs) - 1)


NAN = float("nan")


@pytest.mark.parametrize(
    ("pooled", "sequence", "kept", "why"),
    [
        ((0.10, 0.10), (0.12, 0.11), "sequence", "best on liked targets and on all"),
        ((0.100, 0.10), (0.099, 0.11), "sequence", "best on liked targets and loses only 1.0% on all"),
        ((0.098, 0.12), (0.099, 0.11), "pooled", "loses only 1.0% on all"),
        ((0.100, 0.10), (0.097, 0.11), "pooled", "on all targets the sequence tower loses 3.0% to it"),
        ((0.100, 0.10), (0.100, 0.10), "pooled", "best on liked targets and on all"),
        ((0.100, NAN), (0.110, NAN), "sequence", "none is liked"),
        ((NAN, NAN), (NAN, NAN), "pooled", "no validation queries"),
        ((0.0, 0.0), (0.0, 0.0), "pooled", "best on liked targets"),
    ],
)
def test_auto_keeps_the_better_on_liked_targets_that_loses_little_on_all(
    pooled: tuple[float, float], sequence: tuple[float, float], kept: str, why: str
) -> None:
    found = choose([trained_to("pooled", (0.9, 0.9), pooled), trained_to("sequence", (0.0, 0.0), sequence)])
    assert found.trained.model.config.kind == kept
    assert found.reason.startswith(f"kept the {kept} tower: ")
    assert why in found.reason


def test_auto_trains_both_towers_and_says_which_it_keeps(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a name that makes the line of the next command longer than eighty columns" / "bundle"
    saved = ("--checkpoints", str(tmp_path / "saved"), "--cache", str(tmp_path / "cache"))
    assert main(["--data", str(planted.data), "--out", str(out), "--tower", "auto", *saved, *QUICK]) == 0
    printed = capsys.readouterr().err
    figures = [line for line in printed.splitlines() if "validation NDCG@10" in line and "best epoch" in line]
    assert [line.split()[0] for line in figures] == ["pooled", "sequence"]
    assert all("on liked targets" in line for line in figures)
    kept = open_bundle(out).manifest.tower.kind
    assert f"kept the {kept} tower: " in printed
    assert f"{kept} tower, liked" in printed
    assert f"next: python -m marquee.bundle publish {out}" in printed.splitlines()
    assert sorted(folder.name for folder in (tmp_path / "saved").iterdir()) == ["pooled", "sequence"]


@pytest.mark.parametrize("flag", ["--tower", "--targets", "--negatives", "--logq", "--start", "--baselines", "--index"])
def test_an_unknown_value_of_a_flag_is_one_sentence(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--data", "nowhere", flag, "tall"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"python -m training: error: argument {flag}: invalid")


def test_the_flags_are_these() -> None:
    flags = {flag for action in build_parser()._actions for flag in action.option_strings if flag.startswith("--")}
    data = {"--data", "--columns", "--cache", "--out", "--checkpoints"}
    model = {"--tower", "--dimension", "--targets", "--negatives", "--logq", "--start", "--temperature"}
    run = {"--seed", "--epochs", "--batch", "--learning-rate", "--baselines", "--people", "--objective"}
    assert flags == data | model | run | {"--index", "--index-recall", "--refit", "--help"}


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
        (lambda: TrainConfig(epochs=-1), "epochs"),
        (lambda: TrainConfig(patience=0), "patience"),
        (lambda: TrainConfig(batch=1), "batch is 1"),
        (lambda: TrainConfig(temperature=0), "temperature"),
        (lambda: TrainConfig(learning_rate=1.0), "learning_rate"),
        (lambda: TrainConfig(logq="never"), "logq is 'never'; it must be one of none, expected"),
        (lambda: TrainConfig(negatives="some"), "negatives is 'some'"),
        (lambda: TrainConfig(start="late"), "start is 'late'"),
        (lambda: TrainConfig(targets="none"), "targets is 'none'"),
        (lambda: TrainConfig(uniform=-1), "uniform"),
        (lambda: TrainConfig(penalty=0.0), "penalty"),
        (lambda: TrainConfig(average=1.0), "average"),
        (lambda: TrainConfig(id_dropout=1.0), "id_dropout"),
    ],
)
def test_a_wrong_knob_is_named(make: object, problem: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=problem):
        make()


def test_the_batch_is_chosen_from_the_number_of_events() -> None:
    sizes = [
        TrainConfig().for_data("pooled", events, 600, "last").batch for events in (3, 100, 13_000, 100_000, 10_000_000)
    ]
    assert sizes[0] == 3, "no more than there are"
    assert sizes == sorted(sizes)
    assert all(size & (size - 1) == 0 for size in sizes[1:]), "powers of two"
    assert TrainConfig(batch=512).for_data("pooled", 100_000, 600, "last").batch == 512


@pytest.mark.parametrize("kind", TOWERS)
def test_small_data_are_read_more_often(kind: str) -> None:
    epochs = [TrainConfig().for_data(kind, events, 600, "last").epochs for events in (1000, 100_000, 100_000_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] > epochs[-1] > 0
    assert TrainConfig(epochs=7).for_data(kind, 1000, 600, "last").epochs == 7


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
    weight, pull = towers.content.weight, torch.randn(3, 8)
    bagged, padded = towers.bagged_content_rows(ContentBags(content)), towers.content_rows(content)
    torch.testing.assert_close(bagged, padded)
    gradients = [torch.autograd.grad((rows * pull).sum(), weight)[0] for rows in (bagged, padded)]
    torch.testing.assert_close(*gradients)
    assert torch.count_nonzero(gradients[0].any(dim=1)) == torch.unique(content[content != 0]).numel()


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
