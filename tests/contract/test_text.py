"""What the repository's files must not say, and what its commands must."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.contract.compiled import ROOT

MAX_TARGETS = 15

# Each pattern is written so that it does not find itself.
FORBIDDEN = {
    "a folder of the machine that it was written on": re.compile(r"/wor[k]/|/tm[p]/tmp\w"),
    "a folder beside the repository": re.compile(r"\.\./share[d]"),
    "a note to self; do it, or open an issue": re.compile(r"(?<!no bare )\b(TOD[O]|FIXM[E]|XX[X])\b"),
    # User, movie, a rating from 0.5 to 5, and seconds between 1995 and 2030.
    "a row of ratings": re.compile(r"(?<!\d)\d+(,|::|\t)\d+\1[0-5](\.[05])?\1(7[89]|[89]\d|1[0-8]\d)\d{7}(?!\d)"),
}
# CI looks for data that is at hand, and goes on without.
ALLOWED = {(".ci/run", "a folder beside the repository")}

MOVIELENS_FILES = re.compile(r"(ratings|tags|links|genome-\w+|u|ml-\w+)\.(csv|dat|data|item|user|zip|parquet)(\.gz)?")


class Tracked(NamedTuple):
    """Is a file that git knows; `text` is what can be read of it."""

    path: str
    text: str


@pytest.fixture(scope="module")
def tracked() -> list[Tracked]:
    listed = run("git", "ls-files", "-z")
    if listed.returncode != 0:
        pytest.skip(f"needs a git checkout to know which files are the repository's: {listed.stderr.strip()}")
    paths = [path for path in listed.stdout.split("\0") if path and (ROOT / path).is_file()]
    held = [(path, (ROOT / path).read_bytes()) for path in paths]
    # Pictures say nothing in letters: what has a zero byte is no text, for git, too.
    return [Tracked(path, bytes_.decode(errors="replace")) for path, bytes_ in held if b"\0" not in bytes_]


def found_in(files: list[Tracked]) -> Iterator[str]:
    for file in files:
        for what, pattern in FORBIDDEN.items():
            if (file.path, what) not in ALLOWED:
                lines = [number for number, line in enumerate(file.text.splitlines(), 1) if pattern.search(line)]
                yield from (f"{file.path}:{number}: {what}" for number in lines)


def test_no_file_says_what_it_should_not(tracked: list[Tracked]) -> None:
    assert len(tracked) > 100
    found = list(found_in(tracked))
    assert not found, "\n".join(["the repository says:", *found])


@pytest.mark.parametrize(
    "line",
    [
        "cd /wor" + "k/main",
        "../share" + "d/data",
        "# TOD" + "O: later",
        "7,8,3.5," + "1111111111",
        "7::8::5::99999" + "9999",
    ],
)
def test_the_search_finds(line: str) -> None:
    assert len(list(found_in([Tracked("a.md", f"fine\n{line}\n")]))) == 1


@pytest.mark.parametrize(
    "line", ["the workflow /works/ so", "7,8,3.5,1000", "XXXL", "7 8 3.5 1111111111", "no bare TOD" + "O"]
)
def test_the_search_passes(line: str) -> None:
    assert list(found_in([Tracked("a.md", line)])) == []


def test_every_path_can_be_checked_out_anywhere(tracked: list[Tracked]) -> None:
    assert [file.path for file in tracked if not re.fullmatch(r"[\w.+/-]+", file.path, re.ASCII)] == []


def test_no_data_set_is_in_the_repository(tracked: list[Tracked]) -> None:
    assert [file.path for file in tracked if MOVIELENS_FILES.fullmatch(Path(file.path).name)] == []
    films = next(file for file in tracked if file.path == "training/sample/films.csv")
    assert films.text.splitlines()[0] == "movieId,title,genres,language,director,taste"


def test_make_help_lists_every_command_and_few() -> None:
    listed = help_targets()
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.M)
    assert sorted(listed) == sorted(phony.split())
    assert len(listed) <= MAX_TARGETS
    # A phony target that neither does nor needs anything is told as "nothing to be done", and succeeds.
    idle = re.findall(r"^([a-z-]+): *(?:##[^\n]*)?\n(?!\t)", makefile, re.M)
    assert idle == []


def test_every_listed_command_can_be_planned() -> None:
    for target in help_targets():
        planned = run("make", "--dry-run", target)
        assert planned.returncode == 0, f"make {target}: {planned.stderr}"


def test_every_command_that_the_documents_name_exists(tracked: list[Tracked]) -> None:
    documents = [file for file in tracked if file.path.endswith(".md")]
    named = {
        (file.path, name)
        for file in documents
        for name in re.findall(r"(?:`|^\s*|\$ )make ([a-z]+)\b", file.text, re.M)
    }
    listed = help_targets()
    assert sorted((path, name) for path, name in named if name not in listed) == []


def help_targets() -> list[str]:
    shown = run("make", "help")
    assert shown.returncode == 0, shown.stderr
    return re.findall(r"^  make ([a-z-]+) ", shown.stdout, re.M)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    # Under `make test` these would make the inner make speak differently.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", timeout=60, check=False
    )
