"""Nothing that is shipped reads a format that may run code: no pickle, in none of its disguises."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

import numpy as np
import pytest

from tests.contract.arrows import PARTS
from tests.contract.compiled import ROOT

PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
RUNS_CODE = {"eval", "exec", "read_pickle", "to_pickle", "yaml.load", "yaml.unsafe_load", "torch.jit.load"}


def unsafe(source: str) -> Iterator[str]:
    """Lists the lines of a program that read or write what may run code."""
    for node in ast.walk(ast.parse(source)):
        for why in _why(node):
            yield f"{getattr(node, 'lineno', 0)}: {why}"


def _why(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names if alias.name.split(".")[0] in PICKLERS)
        case ast.ImportFrom(module=str(module)) if module.split(".")[0] in PICKLERS:
            yield module
        case ast.Call(func=func, keywords=keywords):
            said = {word.arg: ast.unparse(word.value) for word in keywords}
            name = ast.unparse(func)
            if said.get("allow_pickle", "False") != "False":
                yield f"{name} with pickle"
            if name.endswith("torch.load") and said.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if name in RUNS_CODE or name.rpartition(".")[2] in {"read_pickle", "to_pickle"}:
                yield name


@pytest.mark.parametrize("part", PARTS)
def test_no_part_reads_what_may_run_code(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    found = [f"{file.relative_to(ROOT)}:{line}" for file in files for line in unsafe(file.read_text())]
    assert not found, "\n".join(found)


def test_numpy_reads_no_pickle_unless_told_to() -> None:
    assert inspect.signature(np.load).parameters["allow_pickle"].default is False


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import os, joblib.numpy_pickle",
        "from shelve import open",
        "np.load(file, allow_pickle=True)",
        "np.load(file, allow_pickle=flag)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "pandas.read_pickle(file)",
        "yaml.load(text)",
        "eval(text)",
    ],
)
def test_the_search_finds(line: str) -> None:
    assert len(list(unsafe(f"def f():\n    {line}\n"))) == 1


@pytest.mark.parametrize(
    "line",
    ["np.load(file)", "np.load(file, allow_pickle=False)", "torch.load(file, weights_only=True)", "model.eval()"],
)
def test_the_search_passes(line: str) -> None:
    assert list(unsafe(line)) == []
