"""The table in docs/reliability.md is of the promises that the suite breaks, all of them and no other."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.chaos.promises import PROMISES, TABLE

HERE = Path(__file__).parent


def test_the_table_has_every_promise_and_its_test(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("write_reliability"):
        pytest.skip("it is written when all of them have run")
    for module in HERE.glob("test_*.py"):
        importlib.import_module(f"tests.chaos.{module.stem}")
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if "`pytest " in line]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    told = {(fault, promised, test.strip("`").removeprefix("pytest ")) for fault, promised, _, test in rows}
    assert told == set(PROMISES.values()), "run: python -m pytest tests/chaos --write-reliability"
