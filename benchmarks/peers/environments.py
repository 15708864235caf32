"""The peers' environments: made of pins when they are needed, and kept where a folder for them is named."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.throwaway import make_environment

_FOLDER = "benchmarks/peers"


def python_of(environment: str, folder: Path) -> Path:
    """Returns the Python of an environment in this folder, which is made where it is not there as its pins say."""
    requirements = f"requirements-{environment}.txt"
    pins = (ROOT / _FOLDER / requirements).read_text("utf-8")
    made, stamp = folder / environment, folder / environment / "pins.txt"
    if stamp.is_file() and stamp.read_text("utf-8") == pins:
        return made / "bin" / "python"
    shutil.rmtree(made, ignore_errors=True)
    python = make_environment(made, f"peers/{requirements}")
    stamp.write_text(pins, "utf-8")
    return python
