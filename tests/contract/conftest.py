"""The protos compiled and the wheel built, each once a session."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.contract.compiled import ROOT, compile_protos
from tests.contract.fresh import package_index_answers


@pytest.fixture(scope="session")
def compiled() -> FileDescriptorSet:
    return compile_protos()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel from a copy of the tree, so that the checkout gets no build/ and no egg-info."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    # All of what is beside the package goes along: the wheel must leave it out by itself.
    for name in ("marquee", "services", "training", "clients", "tests", "benchmarks", "protos"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), *isolation(), str(tree)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def isolation() -> list[str]:
    """Builds with the setuptools that is here where it is the pinned one; another one comes from the index."""
    (pin,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    if pin == f"setuptools=={version('setuptools')}":
        return ["--no-isolation"]
    if not package_index_answers():
        pytest.skip(f"the wheel was not built: it needs {pin}, which is neither here nor to be had from an index")
    return []
