"""The page against both services, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import make_bundle
from tests.rigs import publish, retriever_process
from tests.web.rigs import ODD_TITLES, Caller, Page, encoder_process, web_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Is the path of the browser that drives the page in tests."""
    path = os.environ.get("MARQUEE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium, or set MARQUEE_CHROMIUM to one, to test pages in a browser")
    return path


@pytest.fixture(scope="session")
def web_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web-registry")
    return publish(folder / "registry", make_bundle(folder / "bundle", movies=120, titles=ODD_TITLES)).root


@pytest.fixture(scope="session")
def page_of_all(web_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Is a page that tests share, each as somebody else; who breaks it starts their own."""
    folder = tmp_path_factory.mktemp("web")
    with contextlib.ExitStack() as stack:
        encoder = stack.enter_context(encoder_process(folder, web_registry))
        retriever = stack.enter_context(retriever_process(folder, web_registry))
        addresses = f"127.0.0.1:{encoder.port}", f"127.0.0.1:{retriever.port}"
        yield stack.enter_context(web_page(folder, *addresses, "--deadline", "10", "--rate", "1000"))


@pytest.fixture
def caller(page_of_all: Page) -> Iterator[Caller]:
    """Is somebody new."""
    with contextlib.closing(Caller(page_of_all)) as new:
        yield new
