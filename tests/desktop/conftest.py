"""A screen that nobody sees, and both services as processes over a catalogue with odd titles."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

HAS_TK = all(importlib.util.find_spec(name) for name in ("_tkinter", "sv_ttk"))
collect_ignore_glob = [] if HAS_TK else ["test_*.py"]

if HAS_TK:
    from tests.desktop.rigs import MISSING, Services, screen, serving
    from tests.desktop.titles import odd_titles
    from tests.rigs import publish


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not HAS_TK:
        terminalreporter.write_line(
            "tests/desktop did not run: this Python has no Tk, or no theme for it; install python3-tk, and run "
            "`make setup` again"
        )


@pytest.fixture(autouse=True)
def closed_windows() -> Iterator[None]:
    """Lets go of a test's window here: Tcl ends the process where another thread's collector comes upon it."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    if MISSING:
        pytest.skip(
            f"nobody can sit at the window without {', '.join(MISSING)}: install them (Debian and Ubuntu: "
            "apt install xvfb xdotool imagemagick)"
        )
    with screen() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", name)
        yield name


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Is a registry of films, some with emoji or written from right to left."""
    folder = tmp_path_factory.mktemp("films")
    publish(folder / "registry", odd_titles(folder / "bundle"))
    return folder / "registry"


@pytest.fixture(scope="session")
def services(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Is the services that the tests share; one who stops them starts their own."""
    with serving(registry, tmp_path_factory.mktemp("services")) as started:
        yield started
