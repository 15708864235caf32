"""The demo's processes end with it, whichever way it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bundles import make_bundle
from tests.rigs import DEADLINE_S, ROOT, publish

SERVE = """
import sys, time
from pathlib import Path
from clients.demo.processes import Services, end_on_signals
end_on_signals()
with Services(Path(sys.argv[1])) as services:
    services.start("retriever", "--registry", sys.argv[2])
    print(*services.addresses(), flush=True)
    time.sleep(60)
"""

# A step that needs more time to tidy up than subprocess.run leaves to it.
STEP = """
import os, sys, time
from pathlib import Path
try:
    Path("starting").write_text(str(os.getpid()))
    Path("starting").rename("started")
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    Path("tidied").touch()
    sys.exit(130)
"""


def listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_services(tmp_path: Path, number: signal.Signals) -> None:
    registry = publish(tmp_path / "registry", make_bundle(tmp_path / "bundle")).root
    command = [sys.executable, "-c", SERVE, str(tmp_path), str(registry)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        address = demo.stdout.readline().strip()
        assert listens(address)
        demo.send_signal(number)
        assert demo.wait(DEADLINE_S) == 128 + number
    assert not listens(address)


def demo_of_one_step(tmp_path: Path, number: signal.Signals, *, whole_group: bool) -> tuple[int, str]:
    (tmp_path / "step.py").write_text(STEP)
    run = "from clients.demo.processes import end_on_signals, run_step; end_on_signals(); run_step('step')"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-c", run]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=pipe, start_new_session=True) as demo:
        deadline = time.monotonic() + DEADLINE_S
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (os.killpg if whole_group else os.kill)(demo.pid, number)
        _, told = demo.communicate(timeout=DEADLINE_S)
    return demo.returncode, told.decode()


def test_ctrl_c_lets_a_step_tidy_up(tmp_path: Path) -> None:
    # A terminal sends it to the whole group.
    _, told = demo_of_one_step(tmp_path, signal.SIGINT, whole_group=True)
    assert "KeyboardInterrupt" in told
    assert (tmp_path / "tidied").exists()


def test_sigterm_to_the_demo_ends_its_step(tmp_path: Path) -> None:
    code, told = demo_of_one_step(tmp_path, signal.SIGTERM, whole_group=False)
    assert (code, told) == (128 + signal.SIGTERM, "")
    assert not (tmp_path / "tidied").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "started").read_text()), 0)
