"""The peers' environments: made of pins when they are needed, and kept where a folder for them is named."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.throwaway import make_environment

_FOLDER = "benchmarks/peers"


def python_of(environment: str, folder: Path) -> Path:
    """Returns the Python of an environment in this folder, which is made where it is not there as its pins say."""
    requirements, pins = _file(environment), _pins(environment)
    made, stamp = folder / environment, folder / environment / "pins.txt"
    if stamp.is_file() and stamp.read_text("utf-8") == pins:
        return made / "bin" / "python"
    shutil.rmtree(made, ignore_errors=True)
    python = make_environment(made, f"peers/{requirements}")
    stamp.write_text(pins, "utf-8")
    return python


def pin_of(environment: str) -> str:
    """Finds the pin of the package that an environment is named for."""
    return next(line for line in _pins(environment).splitlines() if line.startswith(f"{environment}=="))


def _file(environment: str) -> str:
    return f"requirements-{environment}.txt"


def _pins(environment: str) -> str:
    return (ROOT / _FOLDER / _file(environment)).read_text("utf-8")
