"""Which runs a study is made of, and where their results lie.

A run's folder is named for what it measured and for a digest of its configuration, its data and its code: a result
that is there is the one that the run would give again.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from marquee.errors import ConfigError
from training.split import FOLDS, PROTOCOLS

TOWERS = ("pooled", "sequence")
BASELINES = "baselines"
RUNS = "runs"
_ROOT = Path(__file__).parents[2]
# What a run's figures cannot depend on.
_APART = ("training/report/", "training/generate/", "training/sample/", "training/obtain.py", "training/refresh.py")
_OF_RUNS = ("training/report/plan.py", "training/report/worker.py")


class Order(NamedTuple):
    """Names a run: a tower of one seed, or all baselines, on one fold of one protocol."""

    protocol: str
    fold: int
    system: str
    seed: int
    quick: bool

    @property
    def name(self) -> str:
        """Names the run for people."""
        seed = "" if self.system == BASELINES else f"-seed{self.seed}"
        return f"{self.protocol}{self.fold}-{self.system}{seed}{'-quick' if self.quick else ''}"

    def key(self, fingerprint: str, code: str) -> str:
        """Names the folder of the run's result."""
        told = json.dumps([*self, fingerprint, code])
        return f"{self.name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


class Scope(NamedTuple):
    """Says how much a study measures."""

    protocols: tuple[str, ...]
    towers: tuple[str, ...]
    seeds: int
    quick: bool

    def check(self) -> None:
        """Raises ConfigError where a protocol or tower is unknown, or there is no seed."""
        _check_names("protocols", self.protocols, tuple(PROTOCOLS))
        _check_names("towers", self.towers, TOWERS)
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; it must be at least 1")


def _check_names(knob: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{knob} has {name!r}; name one or more of {', '.join(known)}, with commas between")
    if len(set(names)) < len(names):
        raise ConfigError(f"{knob} names one of {', '.join(names)} twice; name each once")


def orders(scope: Scope) -> list[Order]:
    """Lists the runs of a study: the protocols in turn, baselines first, seeds in turn."""
    return list(_orders(scope))


def _orders(scope: Scope) -> Iterator[Order]:
    for protocol in scope.protocols:
        folds = range(FOLDS if protocol == "users" and not scope.quick else 1)
        for fold in folds:
            yield Order(protocol, fold, BASELINES, 0, scope.quick)
        for seed in range(scope.seeds):
            for fold in folds:
                for tower in scope.towers:
                    yield Order(protocol, fold, tower, seed, scope.quick)


def code_version() -> str:
    """Hashes the code that makes a run's figures: its syntax without docstrings, so that words may be changed."""
    digest = hashlib.sha256()
    for path in sorted([*_ROOT.glob("marquee/**/*.py"), *_ROOT.glob("training/**/*.py")]):
        name = path.relative_to(_ROOT).as_posix()
        if name in _OF_RUNS or not name.startswith(_APART):
            digest.update(f"{name}\n{syntax_of(path.read_text('utf-8'))}\n".encode())
    return digest.hexdigest()


def syntax_of(source: str) -> str:
    """Writes a module's syntax without comments, layout and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
