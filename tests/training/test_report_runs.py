"""The runs behind the page: which there are, that each is whole or not there, that a study goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import ConfigError, DataError
from tests.planted import write_planted
from training.data import Dataset, load_dataset
from training.records import PerQuery, Run, Series
from training.report import crew, plan
from training.report.__main__ import build_parser, command_of, main, scope_of
from training.report.crew import Job, make_runs
from training.report.gather import gather, slice_label
from training.report.plan import BASELINES, Order, Scope, orders, syntax_of
from training.report.results import About, Result, read_result, write_result
from training.report.study import Pass

ROOT = Path(__file__).parents[2]
SCOPE = Scope(("last", "users"), ("pooled", "sequence"), 2, quick=False)
QUICK = Order("last", 0, BASELINES, 0, quick=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted") / "data")


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load_dataset(folder)


def test_every_protocol_fold_tower_and_seed_is_run_and_the_baselines_once_a_fold() -> None:
    planned = orders(SCOPE)
    # last: 1 fold, users: 5; in each 2 towers of 2 seeds and the baselines.
    assert len(planned) == (1 + 5) * (2 * 2 + 1)
    assert len(set(planned)) == len(planned)
    assert sum(order.system == BASELINES for order in planned) == 6
    assert planned[0].name == "last0-baselines"
    assert planned[1].name == "last0-pooled-seed0"


def test_a_key_changes_with_what_a_result_depends_on() -> None:
    order = Order("users", 3, "pooled", 1, quick=False)
    keys = {
        order.key("data", "code"),
        order.key("other", "code"),
        order.key("data", "other"),
        order._replace(seed=2).key("data", "code"),
        order._replace(quick=True).key("data", "code"),
    }
    assert len(keys) == 5
    assert order.key("data", "code") == order.key("data", "code")
    assert order.key("data", "code").startswith("users3-pooled-seed1-")


def test_words_may_change_and_code_may_not() -> None:
    before = 'def f(x):\n    """Says."""\n    return x + 1  # why\n'
    assert syntax_of(before) == syntax_of('"""A module."""\n\ndef f(x):\n    """Says more."""\n\n    return (x + 1)\n')
    assert syntax_of(before) != syntax_of(before.replace("1", "2"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--protocols", "last,leave-one-out"], "protocols has 'leave-one-out'; name one or more of last, users, time"),
        (["--towers", "pooled,pooled"], "twice"),
        (["--towers", ""], "towers has ''"),
        (["--seeds", "0"], "seeds is 0"),
        (["--jobs", "0"], "jobs is 0"),
    ],
)
def test_what_cannot_be_measured_is_named(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        scope_of(build_parser().parse_args(["--data", "d", *arguments]))


def test_the_command_on_the_page_is_the_one_that_makes_it() -> None:
    given = ["--data", "my data", "--out", "o", "--seeds", "2", "--protocols", "last", "--towers", "pooled"]
    command = command_of(build_parser().parse_args([*given, "--jobs", "7"]))
    assert command == "python -m training.report --data 'my data' --out o --seeds 2 --protocols last --towers pooled"


def test_the_flags_are_these() -> None:
    flags = {flag for action in build_parser()._actions for flag in action.option_strings if flag.startswith("--")}
    assert flags == {
        *("--help", "--data", "--columns", "--out", "--seeds", "--protocols"),
        *("--towers", "--jobs", "--quick", "--page-only"),
    }


def about(order: Order, fingerprint: str, **changes: object) -> About:
    made = About(
        order=order,
        fingerprint=fingerprint,
        code="c0de",
        finished_at="2026-11-24T10:00:00+00:00",
        machine="2 cores",
        versions={"python": "3.11"},
        settings={order.system: {"tower": {"dimension": 64}}},
        validation={order.system: 0.25},
        passes=[Pass(2.0, 0.2, 0.1, 1.0), Pass(1.0, 0.3, float("nan"), 1.0)],
        best=0,
        timings_s={"train": 2.0},
        notes=[],
        ann=[bundle_pb2.Metric(system="index", protocol=order.protocol, name="ann_recall@100", value=1.0, n=4)],
    )
    return made._replace(**changes)  # type: ignore[arg-type]


def record(order: Order, queries: list[int], recall: list[float], systems: tuple[str, ...]) -> PerQuery:
    """Makes a record in which every figure of every system is `recall`."""
    names = ("recall@10", "ndcg@10") if order.protocol == "last" else ("recall@20", "ndcg@100")
    values = {
        Series(system, order.seed, targets, name): np.array(recall, np.float32)
        for system in systems
        for targets in ("all", "liked")
        for name in names
    }
    sliced = Series(systems[0], order.seed, "all", f"{names[0]}|history=011-020")
    tops = {Run(system, order.seed): np.tile(np.arange(10), (len(queries), 1)) for system in systems}
    values[sliced] = np.array(recall, np.float32)
    return PerQuery(order.protocol, 160, np.array(queries, np.uint64), values, tops)


def put(
    runs: Path,
    order: Order,
    fingerprint: str,
    queries: list[int],
    recall: list[float],
    *,
    systems: tuple[str, ...] = (),
    vectors: bool = False,
    **changes: object,
) -> Path:
    """Writes a run's result."""
    told = about(order, fingerprint, **changes)
    vectors_ND = np.eye(160, 8, dtype=np.float32) if vectors else None
    place = runs / order.key(fingerprint, told.code)
    write_result(Result(told, record(order, queries, recall, systems or (order.system,)), vectors_ND), place)
    return place


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    order = Order("last", 0, "pooled", 1, quick=False)
    place = put(tmp_path, order, "f", [5, 2**63 + 1], [0.5, np.nan], vectors=True)
    read = read_result(place)
    assert read.about.order == order
    assert np.isnan(read.about.passes[1].ndcg_at_10)
    assert read.about.passes[0] == Pass(2.0, 0.2, 0.1, 1.0)
    assert read.about.ann[0].value == 1.0
    assert read.record.queries.tolist() == [5, 2**63 + 1]
    assert np.array_equal(read.record.mean("pooled", "recall@10"), [0.5, np.nan], equal_nan=True)
    assert read.vectors_ND is not None
    assert read.vectors_ND.shape == (160, 8)
    assert [path.name for path in tmp_path.iterdir()] == [place.name], "nothing temporary is left"


def test_a_result_that_is_there_stays(tmp_path: Path) -> None:
    order = Order("last", 0, "pooled", 0, quick=False)
    put(tmp_path, order, "f", [1], [0.5])
    place = put(tmp_path, order, "f", [1], [0.9])
    assert read_result(place).record.mean("pooled", "recall@10").tolist() == [0.5]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("results.npz", b"", "is not what the run wrote; remove"),
        ("vectors.npy", b"PK", "is not what the run wrote; remove"),
        ("results.json", b"{", "tells of no run"),
        ("results.json", b"{}", "tells of no run"),
    ],
)
def test_a_damaged_result_is_named(tmp_path: Path, name: str, damage: bytes, told: str) -> None:
    place = put(tmp_path, Order("last", 0, "pooled", 0, quick=False), "f", [1], [0.5], vectors=True)
    (place / name).write_bytes(damage)
    with pytest.raises(DataError, match=rf"{name} {told}"):
        read_result(place)


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    (tmp_path / f"{crew.TEMPORARY}abc").mkdir()
    kept = put(tmp_path, Order("last", 0, "pooled", 0, quick=False), "f", [1], [0.5])
    crew.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_folds_are_joined_and_seeds_averaged_before_people_are_resampled(tmp_path: Path, data: Dataset) -> None:
    scope = Scope(("users",), ("pooled",), 2, quick=False)
    for fold, people in enumerate(([1, 2], [3], [4], [5], [6])):
        put(
            tmp_path,
            Order("users", fold, BASELINES, 0, quick=False),
            data.fingerprint,
            people,
            [0.25] * len(people),
            systems=("ease", "ials"),
        )
        for seed, value in enumerate((0.4, 0.6)):
            put(
                tmp_path,
                Order("users", fold, "pooled", seed, quick=False),
                data.fingerprint,
                people,
                [value] * len(people),
            )
    study = gather(tmp_path, scope, data, "command")
    model = study.figure("pooled", "users", "all", "recall@20")
    assert model is not None
    assert model.n == 6
    assert model.value == pytest.approx((0.4 + 0.6) / 2)
    # Everybody is alike, so there is nothing to resample; seeds do not widen the interval.
    assert [model.low, model.high] == pytest.approx([0.5, 0.5])
    assert {(one.seed, round(one.value, 6)) for one in study.seeds} == {(0, 0.4), (1, 0.6)}
    difference = study.difference("pooled", "ials", "users", "all", "ndcg@100")
    assert difference is not None
    assert difference.n == 6
    assert difference.value == pytest.approx(0.25)
    assert study.origin.notes == []
    assert study.timings_s["users, pooled: train"] == pytest.approx(5 * 2 * 2.0)


def test_the_tower_is_chosen_by_validation_and_not_by_the_test(tmp_path: Path, data: Dataset) -> None:
    scope = Scope(("last",), ("pooled", "sequence"), 1, quick=False)
    for tower, validated, tested in (("pooled", 0.3, 0.1), ("sequence", 0.2, 0.9)):
        order = Order("last", 0, tower, 0, quick=False)
        put(tmp_path, order, data.fingerprint, [1, 2], [tested] * 2, vectors=True, validation={tower: validated})
    study = gather(tmp_path, scope, data, "command")
    assert study.choice.tower == "pooled"
    assert study.choice.scores == {"pooled": 0.3, "sequence": 0.2}
    assert study.map is not None
    assert study.map.tower == "pooled"
    between = study.difference("sequence", "pooled", "last", "all", "recall@10")
    assert between is not None
    assert between.value == pytest.approx(0.8)


def test_what_is_missing_is_told_and_the_latest_version_counts(tmp_path: Path, data: Dataset) -> None:
    scope = Scope(("last",), ("pooled",), 2, quick=False)
    order = Order("last", 0, "pooled", 0, quick=False)
    put(tmp_path, order, data.fingerprint, [1], [0.1], code="old", finished_at="2026-11-23T10:00:00+00:00")
    put(tmp_path, order, data.fingerprint, [1], [0.7], code="new")
    put(tmp_path, order, "other data", [1], [0.9], finished_at="2026-11-25T10:00:00+00:00")
    study = gather(tmp_path, scope, data, "command")
    figure = study.figure("pooled", "last", "all", "recall@10")
    assert figure is not None
    assert figure.value == pytest.approx(0.7)
    assert study.origin.code == ["new"]
    assert study.origin.notes == ["2 of 3 runs are missing: last0-baselines, last0-pooled-seed1"]


def test_slices_are_named_for_people(tmp_path: Path, data: Dataset) -> None:
    put(tmp_path, Order("last", 0, "pooled", 0, quick=False), data.fingerprint, [1], [0.5])
    study = gather(tmp_path, Scope(("last",), ("pooled",), 1, quick=False), data, "command")
    part = study.slices[0]
    assert (part.by, part.label, part.figure.name) == ("length of the history", "11–20", "recall@10")
    assert not any("|" in figure.name for figure in study.figures)
    assert [slice_label(*one) for one in (("history", "201+"), ("decade", "1990"), ("popularity", "01"))] == [
        "from 201",
        "1990s",
        "1",
    ]
    assert slice_label("popularity", "10") == "10"
    assert slice_label("cold", "yes") == "cold"


def test_samples_show_people_of_the_test_with_what_came_next(tmp_path: Path, data: Dataset) -> None:
    from training.model import TowerConfig
    from training.split import splits
    from training.train import spec_of

    queries = splits(data, spec_of(TowerConfig()), "last")[0].test
    hashes = queries.hashes(data.user_ids, data.movie_ids).tolist()
    order = Order("last", 0, "pooled", 0, quick=False)
    made = record(order, hashes, [0.5] * len(hashes), ("pooled",))
    # Query 7 is shown its target first; the others, films that are not theirs.
    target = int(queries.targets[queries.offsets[7]])
    shown = made.tops[Run("pooled", 0)]
    shown[:] = -1
    shown[7, 0] = target
    place = tmp_path / order.key(data.fingerprint, "c0de")
    write_result(Result(about(order, data.fingerprint), made, None), place)
    samples = gather(tmp_path, Scope(("last",), ("pooled",), 1, quick=False), data, "command").samples
    assert len(samples) == 1 + 2, "one who was served, two who were not"
    assert samples[0].targets[0].title == data.movies[target].title
    assert samples[0].lists["pooled"] == [(samples[0].targets[0], True)]
    assert samples[1].lists["pooled"] == []
    assert len(samples[0].history) + samples[0].older == int(queries.ends[7] - queries.starts[7])


def job(folder: Path, place: Path, order: Order = QUICK) -> Job:
    return Job(order, "c0de", folder, None, place)


def test_a_run_is_made_in_a_process_of_its_own_and_only_once(folder: Path, tmp_path: Path) -> None:
    made: list[str] = []
    one = job(folder, tmp_path / "runs" / "one")
    one.place.parent.mkdir()
    for _ in range(2):
        make_runs([one], 2, lambda done, _: made.append(done.order.name))
    assert made == ["last0-baselines-quick"]
    result = read_result(one.place)
    assert result.about.code == "c0de"
    assert result.record.systems()[:2] == ["popularity", "ease"]
    assert len(result.record.queries) == 4 * 60
    # Tastes are planted: EASE finds them, and popularity does not.
    assert result.record.mean("ease", "recall@10").mean() > 2 * result.record.mean("popularity", "recall@10").mean()


def test_a_run_that_fails_is_named_with_its_reason(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    broken.mkdir()
    (broken / "movies.csv").write_bytes((folder / "movies.csv").read_bytes())
    with pytest.raises(DataError, match=r"run last0-baselines-quick failed: .*ratings\.csv"):
        make_runs([job(broken, tmp_path / "one")], 1, lambda *_: None)
    assert not (tmp_path / "one").exists()


def test_a_run_ends_when_the_process_that_wants_it_is_gone(folder: Path, tmp_path: Path) -> None:
    one = job(folder, tmp_path / "one", QUICK._replace(system="pooled"))
    command = [sys.executable, "-m", "training.report.worker"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    # What kill -9 of the parent does: the pipe closes.
    _, said = process.communicate(crew._told(one).encode(), timeout=60)
    assert process.returncode == 1
    assert said == b""
    assert list(tmp_path.iterdir()) == []


def interrupted(folder: Path, out: Path, ending: int) -> tuple[int, str, Path]:
    """Ends a report once its first run is there; returns its exit code, what it said, and that run."""
    arguments = ["--data", str(folder), "--out", str(out), *ONE_TOWER, "--jobs", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "training.report", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "1/2 last0-baselines-quick" not in (line := process.stderr.readline()):
        assert line, "it ended before its first run did"
    process.send_signal(ending)
    _, said = process.communicate(timeout=60)
    kept = [path for path in (out / "runs").iterdir() if not path.name.startswith(crew.TEMPORARY)]
    assert [path.name[:21] for path in kept] == ["last0-baselines-quick"]
    assert not (out / "report.html").exists()
    return process.returncode, said, kept[0]


ONE_TOWER = ["--quick", "--protocols", "last", "--towers", "pooled"]


def test_ctrl_c_ends_a_report_with_a_sentence_and_keeps_what_is_finished(folder: Path, tmp_path: Path) -> None:
    code, said, _ = interrupted(folder, tmp_path / "out", signal.SIGINT)
    assert code == 130
    assert "report: interrupted; finished runs are kept in" in said
    assert "Traceback" not in said


def test_after_kill_9_the_same_command_goes_on_to_the_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    kept = interrupted(folder, out, signal.SIGKILL)[2]
    made = kept.stat().st_mtime_ns
    assert main(["--data", str(folder), "--out", str(out), *ONE_TOWER]) == 0
    assert "2 runs, 1 of them are there" in capsys.readouterr().err
    assert kept.stat().st_mtime_ns == made
    assert len(list((out / "runs").iterdir())) == 2, "nothing half-written is left"
    figures = json.loads((out / "summary.json").read_text("utf-8"))["figures"]
    recall = {one["system"]: one["value"] for one in figures if (one["name"], one["targets"]) == ("recall@10", "all")}
    # Tastes are planted: two passes are enough to beat popularity.
    assert recall["pooled"] > 1.5 * recall["popularity"]
    assert "seed 0" in (out / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--out", "{folder}/ratings.csv"], "ratings.csv: cannot be written to"),
        (["--page-only"], "holds no run of a tower on data; run the command without --page-only"),
        (["--towers", "rnn"], "towers has 'rnn'"),
    ],
)
def test_an_error_is_a_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    given = ["--data", str(folder), "--out", str(tmp_path / "out")]
    assert main([*given, *(one.format(folder=folder) for one in arguments)]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("report: ")
    assert told in said


def test_two_reports_do_not_share_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = tmp_path / ".lock"
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-u", "-c", program, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"\n"
    assert main(["--data", str(folder), "--out", str(tmp_path), "--page-only"]) == 1
    assert "another report is being made there" in capsys.readouterr().err
    other.communicate()


def test_the_page_is_written_of_the_runs_that_are_there(folder: Path, data: Dataset, tmp_path: Path) -> None:
    runs = tmp_path / "out" / "runs"
    runs.mkdir(parents=True)
    people = list(range(1, 9))
    put(runs, Order("last", 0, "pooled", 0, quick=False), data.fingerprint, people, [1.0, 0.0] * 4, vectors=True)
    put(
        runs,
        Order("last", 0, BASELINES, 0, quick=False),
        data.fingerprint,
        people,
        [0.0] * 8,
        systems=("popularity", "ease"),
    )
    given = ["--data", str(folder), "--out", str(tmp_path / "out"), "--protocols", "last", "--towers", "pooled"]
    assert main([*given, "--page-only"]) == 0
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "2 of 4 runs are missing: last0-pooled-seed1, last0-pooled-seed2" in page
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    model = next(one for one in summary["figures"] if (one["system"], one["name"]) == ("pooled", "recall@10"))
    assert model["value"] == 0.5
    assert summary["origin"]["dataset"]["fingerprint"] == data.fingerprint
    assert os.stat(tmp_path / "out" / "map.png").st_size > 10_000


def test_the_code_version_is_of_the_code_that_makes_runs() -> None:
    assert len(plan.code_version()) == 64
    assert plan.code_version() == plan.code_version()
