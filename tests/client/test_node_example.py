"""The protos serve callers without the SDK: the example in JavaScript runs against real services."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from marquee.client import Recommender
from tests.client.fakes import ROOT, Services
from tests.client.live import Live, live_services

EXAMPLE = ROOT / "examples" / "node"

pytestmark = [
    pytest.mark.packages,
    pytest.mark.skipif(shutil.which("npm") is None, reason="there is no Node.js here: install node and npm"),
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_services(tmp_path_factory.mktemp("node")) as services:
        yield services


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installs the example, as pinned, beside the protos, and away from the checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "protos").symlink_to(ROOT / "protos")
    example = folder / "examples" / "node"
    shutil.copytree(EXAMPLE, example, ignore=shutil.ignore_patterns("node_modules"))
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=example, check=True, capture_output=True, timeout=300)
    return example


def run(example: Path, encoder: str, retriever: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MARQUEE_ENCODER": encoder, "MARQUEE_RETRIEVER": retriever}
    command = ["node", "recommend.js", *arguments]
    return subprocess.run(
        command, cwd=example, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_prints_what_the_sdk_would(example: Path, live: Live) -> None:
    with Recommender(live.encoder, live.retriever, deadline_s=20) as marquee:
        for movie_id in marquee.top(k=3, genres=["Drama"]):
            marquee.like("ada", movie_id.movie_id)
        expected = marquee.recommend("ada", k=4, genres=["Comedy", "Horror"])
    done = run(example, live.encoder, live.retriever, "ada", "4", "Comedy", "Horror")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{item.rank}. {item.movie}  {item.score:.3f}" for item in expected]


def test_an_error_is_one_line(example: Path, live: Live) -> None:
    done = run(example, live.encoder, live.retriever, "ada", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: INVALID_ARGUMENT: k is 0.*\n", done.stderr)


async def test_titles_of_any_script_are_printed_whole(example: Path, services: Services) -> None:
    done = await asyncio.to_thread(run, example, services.encoder, services.retriever, "аня 🎬", "3")
    assert done.stdout.splitlines()[2].startswith("3. Amélie (2001)")
    assert services.fake.requests("Encode")[0].user_id == "аня 🎬"


def test_the_lock_pins_everything_and_names_no_registry() -> None:
    lock = json.loads((EXAMPLE / "package-lock.json").read_text("utf-8"))
    packages = {path: package for path, package in lock["packages"].items() if path}
    assert all("version" in package and "integrity" in package for package in packages.values())
    assert not any("resolved" in package for package in packages.values())
    wanted = json.loads((EXAMPLE / "package.json").read_text("utf-8"))["dependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
