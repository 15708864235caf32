"""Every snippet of docs/recipes.md runs, against real services."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.client.fakes import ROOT, cli_environment
from tests.client.live import Live, live_services

PAGE = ROOT / "docs" / "recipes.md"
_PIECES = re.compile(r"^## (?P<title>[^\n]+)$|^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


class Snippet(NamedTuple):
    """Is one block of code and the section that it stands in."""

    title: str
    language: str
    code: str


def snippets() -> Iterator[Snippet]:
    title = ""
    for match in _PIECES.finditer(PAGE.read_text("utf-8")):
        title = match["title"] or title
        if match["code"]:
            yield Snippet(title, match["language"], match["code"])


SNIPPETS = list(snippets())


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_services(tmp_path_factory.mktemp("recipes")) as services:
        yield services


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    """Is what the page's snippets, one after the other, have made."""
    return {}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[f"{number}-{one.title}" for number, one in enumerate(SNIPPETS)])
def test_a_snippet_runs(snippet: Snippet, live: Live, namespace: dict[str, Any]) -> None:
    if snippet.language == "sh":
        run_lines(snippet.code, live)
    else:
        assert snippet.language == "python"
        code = snippet.code.replace("127.0.0.1:50051", live.encoder).replace("127.0.0.1:50052", live.retriever)
        exec(compile(code, f"{PAGE.name}, {snippet.title}", "exec"), namespace)


def run_lines(code: str, live: Live) -> None:
    environment = cli_environment(MARQUEE_ENCODER=live.encoder, MARQUEE_RETRIEVER=live.retriever)
    for line in code.splitlines():
        program, *arguments = line.split()
        assert program == ".venv/bin/python"
        subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, timeout=60)


def test_there_are_snippets_for_every_method() -> None:
    from marquee.client import Recommender

    code = "".join(snippet.code for snippet in SNIPPETS)
    methods = {name for name in dir(Recommender) if not name.startswith("_")}
    shown = {name for name in methods if f".{name}(" in code}
    assert methods - shown == {"dislike", "movies", "encoder_state", "retriever_state"}


def test_the_page_is_where_it_says() -> None:
    assert (ROOT / "examples" / "node").is_dir()
    assert Path(__file__).relative_to(ROOT).as_posix() in PAGE.read_text("utf-8")
