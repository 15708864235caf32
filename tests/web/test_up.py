"""`make up`: everything starts with one command, and stops with one signal."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clients.web.up import find_work
from marquee.errors import RegistryError
from tests.bundles import make_bundle
from tests.rigs import DEADLINE_S, ROOT, publish
from tests.web.rigs import Caller, Page


def up(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "clients.web.up", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_everything_starts_and_a_signal_stops_it(tmp_path: Path, number: signal.Signals, code: int) -> None:
    publish(tmp_path / "sample" / "registry", make_bundle(tmp_path / "bundle"))
    port_file = tmp_path / "port"
    with up("--work", str(tmp_path), "--listen", "127.0.0.1:0", "--port-file", str(port_file)) as running:
        deadline = time.monotonic() + DEADLINE_S
        while not port_file.exists():
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        page = Page(f"http://127.0.0.1:{port_file.read_text()}", running, "", "")
        with contextlib.closing(Caller(page)) as caller:
            assert "What most people watch" in caller.get("/").text
            assert "does not answer" not in caller.get("/operator").text
        # As a terminal sends Ctrl-C: to the whole group.
        os.killpg(running.pid, number)
        said, errors = running.communicate(timeout=DEADLINE_S)
    assert (running.returncode, "Traceback" in errors) == (code, False), errors
    addresses = re.findall(r"127\.0\.0\.1:\d+", said)
    assert len(addresses) == 3
    assert not any(map(listens, addresses))


def test_without_a_registry_the_cure_is_told(tmp_path: Path) -> None:
    with up("--work", str(tmp_path)) as running:
        _, errors = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 1
    assert errors == f"up: there is no registry in {tmp_path}: run `make demo` first, which trains and publishes\n"


def test_what_was_published_last_is_served(tmp_path: Path) -> None:
    for age, name in enumerate(("old", "new", "older")):
        (tmp_path / name / "registry").mkdir(parents=True)
        pointer = tmp_path / name / "registry" / "registry.json"
        pointer.touch()
        os.utime(pointer, (1_000, 1_000 + (age == 1)))
    assert find_work(tmp_path, None) == tmp_path / "new"
    with pytest.raises(RegistryError, match="make demo"):
        find_work(tmp_path, tmp_path / "data")
