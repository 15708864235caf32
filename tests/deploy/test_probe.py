"""The probe for engines that have none of gRPC."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.probe import main
from tests.bundles import make_bundle
from tests.rigs import ROOT, publish, retriever, service_process


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return publish(tmp_path / "registry", make_bundle(tmp_path / "bundle")).root


async def test_it_says_whether_the_service_is_ready(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with retriever(registry, health_port=0) as rig:
        told = {"MARQUEE_HEALTH_PORT": str(rig.life.health_port)}
        assert await asyncio.to_thread(main, [], told) == 0
        rig.life.health.set_serving(False)
        assert await asyncio.to_thread(main, [], told) == 1
        assert "not ready" in capsys.readouterr().err
    assert main([], told) == 1
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "[::1]", "0.0.0.0", "[::]"])
def test_it_asks_where_the_service_listens(registry: Path, tmp_path: Path, host: str) -> None:
    port = free_port(host)
    flags = [f"--listen={host}:0", f"--health-port={port}"]
    (callers := tmp_path / "callers").write_text("")
    with service_process("retriever", tmp_path, registry, *flags, "--auth=keys", f"--callers={callers}"):
        assert main(flags, {}) == 0
        assert main([], {"MARQUEE_LISTEN": f"{host}:0", "MARQUEE_HEALTH_PORT": str(port)}) == 0
        if host in ("127.0.0.2", "[::1]"):
            assert main(flags[1:], {}) == 1


def free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host.strip("[]"), 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize("variable", ["http_proxy", "grpc_proxy"])
async def test_it_asks_no_proxy(registry: Path, variable: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy = {variable: f"http://127.0.0.1:{nobody.getsockname()[1]}", "no_proxy": ""}
        async with retriever(registry, health_port=0) as rig:
            told = {"MARQUEE_HEALTH_PORT": str(rig.life.health_port)}
            asked = await asyncio.to_thread(ask, os.environ | proxy | told)
    assert (asked.returncode, asked.stderr) == (0, "")


def ask(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.common.probe"]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "MARQUEE_HEALTH_PORT is not set"),
        (["--health-port=0"], "MARQUEE_HEALTH_PORT is not set, or 0: set it to a port"),
        (["--health-port=http"], "--health-port http: an address must be host:port with a port from 0 to 65535"),
        (["--health-port=50060", "--listen=::1"], "--listen ::1, .* must have an IPv6 host in brackets"),
    ],
)
def test_what_is_wrong_is_said(capsys: pytest.CaptureFixture[str], flags: list[str], said: str) -> None:
    assert main(flags, {}) == 1
    assert re.search(said, capsys.readouterr().err)
