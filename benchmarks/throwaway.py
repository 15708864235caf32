"""Makes environments for what is measured beside Marquee: pinned packages that the project itself does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.processes import ROOT, BenchmarkFailed
from benchmarks.work import say

_INSTALL_S = 900.0


def make_environment(folder: Path, requirements: str) -> Path:
    """Makes a virtual environment of a file of pins in this folder; returns its Python.

    Nothing but the pins is installed: what a package would pull in, PyTorch's CUDA for one, stands there or stays out.
    Raises BenchmarkFailed where the package index does not have them.
    """
    pins = ROOT / "benchmarks" / requirements
    say(f"making an environment of {requirements}")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=_INSTALL_S)
    python = folder / "bin" / "python"
    flags = ("--quiet", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *flags, "--requirement", str(pins)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise BenchmarkFailed(f"pip cannot install {pins}: {last[0]}; look whether its index has these versions")
    return python
