"""What the serving images install is what is tested, down to the bytes of each file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.compiled import ROOT
from tests.contract.fresh import package_index_answers
from tests.contract.test_pins import needs_of, pins

LOCKED = ROOT / "deploy" / "requirements"
EXTRAS = {"user_encoder": "encoder,tracing", "retriever": "retriever,tracing"}
images = pytest.mark.parametrize("image", EXTRAS)

_ENTRY = re.compile(r"([\w.-]+)==([\w.]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.ASCII)


def text_of(image: str) -> str:
    return (LOCKED / f"{image}.txt").read_text()


def test_there_is_a_file_for_each_image() -> None:
    assert sorted(path.stem for path in LOCKED.iterdir()) == sorted(EXTRAS)


@images
def test_every_line_is_a_version_with_its_hashes_and_no_index_is_named(image: str) -> None:
    rest = re.sub(r"^#.*\n", "", _ENTRY.sub("", text_of(image)), flags=re.MULTILINE)
    assert rest == "", "make the file anew: make lock"


@images
def test_the_versions_are_those_that_are_tested_and_none_is_missing(image: str) -> None:
    locked = {canonicalize_name(name): version for name, version, _ in _ENTRY.findall(text_of(image))}
    needed = needs_of(Requirement(f"marquee[{EXTRAS[image]}]"))
    assert locked == {name: str(pins()[name]) for name in needed}, "make the file anew: make lock"


@pytest.mark.packages
@images
def test_pip_finds_every_file_under_its_hash(image: str, tmp_path: Path) -> None:
    if not package_index_answers():
        pytest.skip("needs the package index: the hashes were not compared with what it has")
    flags = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "download", *flags, "-r", str(LOCKED / f"{image}.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == len(_ENTRY.findall(text_of(image)))
