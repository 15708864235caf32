"""What several folders of tests share: a bundle that was really trained, once a session."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import pytest

from marquee.bundle.format import Bundle
from tests.planted import write_planted


class Planted(NamedTuple):
    """Is a bundle trained on planted tastes, and the data it was trained on."""

    data: Path
    bundle: Bundle


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Trains the pooled tower on planted tastes."""
    # Not at the top: most tests need no PyTorch, whose import takes seconds.
    from rich.console import Console

    from training.__main__ import build_parser, run

    folder = tmp_path_factory.mktemp("planted")
    data = write_planted(folder / "data")
    options = build_parser().parse_args(["--data", str(data), "--out", str(folder / "bundle"), "--dimension", "32"])
    return Planted(data, run(options, Console(file=io.StringIO())))
