"""The demo's child processes: steps that must succeed, and services that run until the end."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType, TracebackType

from marquee.errors import MarqueeError

_READY_S = 60.0
_STOP_S = 15.0
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class StepFailed(MarqueeError):
    """Says which step of the demo failed; what it printed is on the screen."""

    reason = "STEP_FAILED"


def end_on_signals() -> None:
    """Makes SIGTERM and SIGHUP leave every `with` block, so that what was started stops, and exit with 128 + n."""
    for number in _ENDING:
        # Ignored is what nohup sets; it stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    # A second signal must not interrupt the stopping that the first began.
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


def run_step(module: str, *arguments: str | Path) -> str:
    """Runs `python -m module`, its messages on the screen; returns what it printed on stdout."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        printed, _ = process.communicate()
    except KeyboardInterrupt:
        # The terminal interrupted the step too: it ends by itself, and leaves nothing half-written.
        process.communicate()
        raise
    except SystemExit:
        process.terminate()
        process.communicate()
        raise
    finally:
        # Does nothing to a step that has ended; one that outlasts a second Ctrl-C is killed.
        process.kill()
    if process.returncode != 0:
        raise StepFailed(f"`python -m {module}` failed (exit {process.returncode}); its last message is above")
    return printed.strip()


class Services:
    """Runs services on free ports; leaving the block stops every one of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> Services:
        return self

    def start(self, name: str, *arguments: str | Path) -> None:
        """Starts a service; its log goes to a file of its own."""
        port_file = self._folder / f"{name}.port"
        port_file.unlink(missing_ok=True)
        options = ["--listen", "127.0.0.1:0", "--port-file", port_file, *arguments]
        command = [sys.executable, "-m", f"services.{name}", *map(str, options)]
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._running.append((name, process, port_file))

    def addresses(self) -> list[str]:
        """Waits until every service is SERVING; returns their addresses in the order of their start."""
        return [f"127.0.0.1:{self._port(*one)}" for one in self._running]

    def _port(self, name: str, process: subprocess.Popen[bytes], port_file: Path) -> int:
        deadline = time.monotonic() + _READY_S
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                log = self._folder / f"{name}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-3:])
                raise StepFailed(f"{name} did not start; {log} ends with:\n{tail}")
            time.sleep(0.02)
        return int(port_file.read_text())

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for _, process, _ in self._running:
            process.terminate()
        deadline = time.monotonic() + _STOP_S
        try:
            for _, process, _ in self._running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            # Does nothing to those that have stopped.
            for _, process, _ in self._running:
                process.kill()
                process.wait()
