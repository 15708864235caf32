"""Fresh virtual environments that hold the wheel and one extra, and what runs in them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.contract.compiled import ROOT

CONSTRAINTS = ROOT / "constraints.txt"
DEADLINE_S = 60.0
INSTALL_S = 300.0
# Small, and in every environment of ours.
PROBE = "googleapis-common-protos"

_LIST = """
import importlib, importlib.metadata, json, sys
names = {one.name.lower().replace("_", "-"): one.version for one in importlib.metadata.distributions()}
found = []
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        continue
    found.append(module)
import marquee
print(json.dumps([names, found, marquee.__file__]))
"""


class Contents(NamedTuple):
    """Says what an environment holds: versions by name, the asked modules that can be imported, where marquee is."""

    versions: dict[str, str]
    importable: list[str]
    marquee: Path


class Fresh(NamedTuple):
    """Is a fresh virtual environment."""

    folder: Path

    @property
    def python(self) -> str:
        """Names its Python."""
        return str(self.folder / "bin" / "python")

    def run(self, *arguments: str, cwd: Path) -> str:
        """Runs its Python, warnings as errors, and returns what was printed; fails where the exit code is not 0."""
        command = [self.python, "-W", "error", *arguments]
        done = subprocess.run(
            command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, f"{' '.join(arguments[:2])} failed in {self.folder.name}:\n{done.stderr}"
        return done.stdout

    def contents(self, *modules: str) -> Contents:
        """Imports the modules, each where it is there, from the installed wheel and not from the checkout."""
        versions, importable, marquee = json.loads(self.run("-c", _LIST, *modules, cwd=self.folder))
        return Contents(versions, importable, Path(marquee))


def make_environment(folder: Path, wheel: Path, extra: str) -> Fresh:
    """Makes an environment and installs the wheel with an extra, "" for none, in the versions of constraints.txt."""
    # Installed from outside: an environment without pip is made in a moment and holds nothing that was not asked for.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=DEADLINE_S)
    wanted = f"marquee[{extra}] @ {wheel.as_uri()}" if extra else f"marquee @ {wheel.as_uri()}"
    fresh = Fresh(folder)
    flags = ["--quiet", "--no-compile", "--only-binary", ":all:"]
    done = _pip("--python", fresh.python, "install", *flags, "--constraint", str(CONSTRAINTS), wanted)
    assert done.returncode == 0, f"pip cannot install {wanted}:\n{done.stderr}"
    return fresh


@functools.cache
def package_index_answers() -> bool:
    """Asks once whether pip can get a pinned package here, from wherever it is configured to."""
    pin = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith(f"{PROBE}=="))
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--no-deps", "--retries", "0", "--timeout", "10", "--quiet", "--dest", folder]
        return _pip("download", *flags, pin).returncode == 0


@contextlib.contextmanager
def running(fresh: Fresh, service: str, folder: Path, *arguments: str) -> Iterator[str]:
    """Runs a service from the checkout in an environment; yields its address, and asks for a clean end."""
    port_file, log = folder / f"{service}.port", folder / f"{service}.log"
    flags = ["--listen", "127.0.0.1:0", "--port-file", str(port_file), "--drain-s", "0", *arguments]
    command = [fresh.python, "-W", "error", "-m", f"services.{service}", *flags]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=stream, stderr=stream)
    try:
        yield f"127.0.0.1:{_port(process, port_file, log)}"
        process.terminate()
        code = process.wait(DEADLINE_S)
        assert (code, "Traceback" in log.read_text()) == (0, False), log.read_text()
    finally:
        process.kill()
        process.wait()


def environment() -> dict[str, str]:
    """Takes this process's environment without what would lead a fresh one back here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MARQUEE_", "PYTHON"))}
    kept.pop("VIRTUAL_ENV", None)
    return kept


def _port(process: subprocess.Popen[bytes], port_file: Path, log: Path) -> int:
    deadline = time.monotonic() + DEADLINE_S
    while not port_file.exists():
        assert time.monotonic() < deadline, f"the service did not come up:\n{log.read_text()}"
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the service ended with {process.wait(0.02)}:\n{log.read_text()}")
    return int(port_file.read_text())


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
