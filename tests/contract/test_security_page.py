"""SECURITY.md promises nothing without a test, and names no test that is not there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.contract.compiled import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+(?:::\w+)?)`", PAGE)))


def test_every_threat_has_a_defence_and_a_test() -> None:
    rows = [row.strip("|").split("|") for row in PAGE.splitlines() if row.startswith("| ")]
    threats = [row for row in rows if row[1].strip() != "could"]
    assert len(threats) > 10
    for _, threat, defence, tests in threats:
        assert defence.strip(), threat
        assert re.search(r"`tests/", tests), threat


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_it_names_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function in functions if function else any(one.startswith("test_") for one in functions)
