"""The growth benchmark refuses what it could not do, before it begins; what was committed can be told and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import balancing, growing_histories, growing_users
from benchmarks.growth import PARTS, main
from benchmarks.growth_figures import FIGURES
from benchmarks.growth_pictures import draw
from benchmarks.growth_rows import rows_of
from benchmarks.processes import BenchmarkFailed
from marquee.whole_files import read_json


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--most-movies", "5"], "'5' is no whole number from 10000 on"),
        (["--most-people", "1e6"], "'1e6' is no whole number from 10000 on"),
        (["--only", "nothing"], "invalid choice: 'nothing'"),
        (["--most", "10000"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 1
    assert f"growth: cannot write {tmp_path}: name a file" in capsys.readouterr().err


def test_a_part_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    committed, out = read_json(FIGURES), tmp_path / "growth.json"
    assert committed is not None

    def fail(*_: object) -> dict[str, Any]:
        raise BenchmarkFailed("it did not come up")

    monkeypatch.setattr(balancing, "measure", fail)
    monkeypatch.setattr(growing_histories, "measure", lambda *_: committed["histories"])
    monkeypatch.setattr(growing_users, "measure", lambda *_, **__: committed["users"])
    assert main(["--only", "histories", "replicas", "users", "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "growth: replicas failed (BenchmarkFailed): it did not come up" in said.err
    assert "people of 50 events" in said.out
    written = read_json(out)
    assert written is not None
    assert set(PARTS) & set(written) == {"histories", "users"}
    assert {file.name for file in tmp_path.iterdir()} == {
        "growth.json",
        "growth-histories.png",
        "growth-users.png",
    }


def test_a_simulated_median_far_off_misses_its_goal() -> None:
    report = read_json(FIGURES)
    assert report is not None
    for off, met in ((-0.3, False), (0.3, False), (0.2, True)):
        report["replicas"]["rows"][0]["deviation"]["p50_ms"] = off
        with_goals = [row for row in rows_of(report) if row.goal is not None]
        assert len(with_goals) == len(balancing.LOADS)
        assert with_goals[0].met is met


def test_the_committed_figures_are_told_and_drawn(tmp_path: Path) -> None:
    report = read_json(FIGURES)
    assert report is not None
    rows = rows_of(report)
    for told in ("Search over", "people of", "Encode of", "two encoders at"):
        assert any(told in row.measured for row in rows), told
    extrapolated = [row for row in rows if "EXTRAPOLATED" in row.beside]
    assert len(extrapolated) == 2
    drawn = draw(tmp_path, report)
    assert {file.name for file in drawn} == {f"growth-{part}.png" for part in PARTS}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in drawn)
