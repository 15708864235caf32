"""The extra `web` is enough for the page: in an environment with nothing else it starts, and says what is away."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.contract.compiled import ROOT
from tests.contract.fresh import DEADLINE_S, environment, make_environment, package_index_answers

pytestmark = pytest.mark.packages


def test_the_page_runs_with_its_extra_alone(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if not package_index_answers():
        pytest.skip("needs the package index: nothing here shows that the page runs with the extra `web` alone")
    fresh = make_environment(tmp_path / "web", request.getfixturevalue("wheel"), "web")
    others = ("torch", "faiss", "onnxruntime", "playwright", "redis", "hdrh")
    assert fresh.contents("starlette", "uvicorn", *others).importable == ["starlette", "uvicorn"]
    port_file, nobody = tmp_path / "port", "127.0.0.1:1"
    flags = ["--listen", "127.0.0.1:0", "--port-file", str(port_file), "--encoder", nobody, "--retriever", nobody]
    command = [fresh.python, "-W", "error", "-m", "clients.web", *flags]
    with subprocess.Popen(command, cwd=ROOT, env=environment()) as process:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not port_file.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            with urllib.request.urlopen(f"http://127.0.0.1:{port_file.read_text()}/", timeout=DEADLINE_S) as answer:
                assert "The film service is away right now." in answer.read().decode()
        finally:
            process.terminate()
        assert process.wait(DEADLINE_S) == 0
