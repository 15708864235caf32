"""What a run says of the one before it: what moved, and what only wavered."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import Facts, committed
from benchmarks.moved import compare, section
from benchmarks.report import Row, write_json

FACTS = Facts("2026-11-28T20:30:00+00:00", "EPYC", 2, 8.0, "Linux 6", 0.1, "3.11.7", {}, "0123456789abcdef", False)
DATA = "ml-latest-small: 100,836 events"


def row(value: float, unit: str = "×", readings: tuple[float, ...] = (), **more: Any) -> Row:
    return Row("encoding", more.pop("measured", "Encode"), value, unit, None, "", readings=readings, **more)


def written(folder: Path, *rows: Row, facts: Facts = FACTS, data: str = DATA) -> str:
    path = folder / "latest.json"
    write_json(path, facts, data, rows)
    return path.read_text("utf-8")


def moves(before: str, *rows: Row) -> list[str]:
    return [f"{move.measured} {move.better}" for move in compare(json.loads(before)["rows"], rows).moves]


@pytest.mark.parametrize(
    ("before", "now", "moved"),
    [
        (row(0.70, readings=(0.60, 0.80)), row(0.85, readings=(0.80, 0.90)), False),
        (row(0.70, readings=(0.60, 0.79)), row(0.85, readings=(0.80, 0.90)), True),
        (row(0.70, readings=(0.69, 0.71)), row(0.66, readings=(0.65, 0.67)), True),
        # Rates of a whole run swing with the machine, however little they do within it.
        (row(100.0, "/s", (99.0, 101.0)), row(125.0, "/s", (124.0, 126.0)), False),
        (row(100.0, "/s", (99.0, 101.0)), row(135.0, "/s", (134.0, 136.0)), True),
        (row(100.0, "/s", (60.0, 140.0)), row(135.0, "/s", (134.0, 136.0)), False),
        (row(1.0, "s"), row(1.29, "s"), False),
        (row(1.0, "s"), row(1.31, "s"), True),
        (row(1.0, "s"), row(0.69, "s"), True),
        (row(100.0, "MB"), row(109.0, "MB"), False),
        (row(100.0, "MB"), row(111.0, "MB"), True),
        # One of the two has readings: their range alone says nothing.
        (row(1.0, readings=(0.9, 1.1)), row(1.2), False),
    ],
)
def test_what_moves_is_beyond_noise(tmp_path: Path, before: Row, now: Row, moved: bool) -> None:
    assert bool(moves(written(tmp_path, before), now)) is moved


@pytest.mark.parametrize(("at_least", "better"), [(True, "Encode True"), (False, "Encode False")])
def test_more_is_better_where_a_row_says_so(tmp_path: Path, at_least: bool, better: str) -> None:
    assert moves(written(tmp_path, row(1.0, at_least=at_least)), row(2.0, at_least=at_least)) == [better]


def test_rows_are_found_again_by_part_name_and_unit(tmp_path: Path) -> None:
    before = written(tmp_path, row(1.0), row(1.0, measured="gone"), Row("soak", "other part", 1.0, "MB", None, ""))
    compared = compare(json.loads(before)["rows"], [row(1.0), row(9.0, "ms"), row(9.0, measured="new")])
    assert (compared.compared, compared.moves) == (1, [])
    assert compared.new == ["Encode", "new"]
    assert compared.gone == ["gone"]


def test_a_run_of_before_there_were_readings_is_compared_by_its_figures(tmp_path: Path) -> None:
    run = json.loads(written(tmp_path, row(0.70)))
    for each in run["rows"]:
        del each["readings"], each["parts"]
    assert moves(json.dumps(run), row(0.72, readings=(0.71, 0.73))) == []
    assert moves(json.dumps(run), row(0.40, readings=(0.39, 0.41))) == ["Encode True"]


def test_the_same_run_has_not_moved(tmp_path: Path) -> None:
    rows = [row(0.7, readings=(0.6, 0.8)), row(0.0, measured="nothing")]
    text = "\n".join(section(written(tmp_path, *rows), FACTS, DATA, rows))
    assert "(2026-11-28, commit 0123456789ab) has 2 of these rows" in text
    assert "None has moved." in text


def test_a_move_is_told_with_both_ranges(tmp_path: Path) -> None:
    before = written(tmp_path, row(0.5, readings=(0.4, 0.6)))
    now = row(0.9, readings=(0.8, 1.0), at_least=True)
    assert "| Encode | 0.50 × (0.40 to 0.60) | 0.90 × (0.80 to 1.00) | better |" in section(before, FACTS, DATA, [now])
    worse = row(0.2, readings=(0.1, 0.3), at_least=True)
    assert "| Encode | 0.50 × (0.40 to 0.60) | 0.20 × (0.10 to 0.30) | WORSE |" in section(before, FACTS, DATA, [worse])


def test_another_machine_or_other_data_is_not_compared(tmp_path: Path) -> None:
    before = written(tmp_path, row(1.0))
    for facts, data in ((FACTS._replace(cpu="Xeon"), DATA), (FACTS._replace(cores=4), DATA), (FACTS, "sample: 9")):
        told = section(before, facts, data, [row(9.0)])
        assert told[-1].endswith("not compared."), told
    # Parts that make no bundle do not know the sizes.
    assert "| Encode |" in section(before, FACTS, "ml-latest-small", [row(9.0)])[-1]


def test_without_a_committed_run_that_is_said() -> None:
    assert section("", FACTS, DATA, [row(1.0)])[-1] == "There is no committed run of this file to compare with."


def test_the_earlier_run_is_the_one_that_was_committed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    file = tmp_path / "results" / "latest.json"
    file.parent.mkdir()
    assert committed(file) == ""
    git("init")
    file.write_text("first")
    git("add", ".")
    git("commit", "-m", "figures")
    file.write_text("second")
    assert committed(file) == "first"
    assert committed(file.with_name("other.json")) == ""
