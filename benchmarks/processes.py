"""The benchmarks' child processes: all are started here, and whatever happens, all are stopped."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple

from marquee.errors import MarqueeError

ROOT = Path(__file__).parent.parent
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_POLL_S = 0.001
_READY_S = 60.0
# The demo gives each of its two services 15 s before it kills them.
_STOP_S = 35.0
# macOS counts in bytes.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024

Cores = frozenset[int]
ANY_CORE: Cores = frozenset()


class BenchmarkFailed(MarqueeError):
    """Says what could not be measured, and why."""

    reason = "BENCHMARK_FAILED"


def interrupt_once() -> None:
    """Makes the first signal of SIGNALS a KeyboardInterrupt, and the rest nothing: they would cut the clean-up short.

    Handlers, never SIG_IGN, which children would inherit: they are stopped with SIGINT.
    """
    for number in SIGNALS:
        # Whoever said nohup meant it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        if signal.getsignal(each) is _interrupt:
            signal.signal(each, lambda number, frame: None)
    raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts signals off to the end of the block, so that none comes between a child's start and its being known."""
    held: list[signal.Signals] = []
    before = {
        number: signal.signal(number, lambda number, frame: held.append(signal.Signals(number))) for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in held[:1]:
        signal.raise_signal(number)


@dataclass(frozen=True, slots=True)
class Child:
    """Is a process of `python -m module`, its output in files; `started` is a reading of `perf_counter`."""

    module: str
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path
    started: float

    def failure(self) -> BenchmarkFailed:
        """Says in a sentence how the process ended, with the last it wrote: two lines, as the demo quotes its steps."""
        code = self.process.poll()
        how = "did not come up in time" if code is None else f"ended with exit code {code}"
        lines = [line for line in self.stderr.read_text(errors="replace").splitlines() if line.strip()]
        return BenchmarkFailed(f"`python -m {self.module}` {how}: {' – '.join(lines[-2:]) or 'it said nothing'}")


class Server(NamedTuple):
    """Is a child that serves; `ready_s` are the seconds from its start to its port file."""

    child: Child
    port: int
    ready_s: float

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"


class Ended(NamedTuple):
    """Says what a child that ended well wrote and took; `peak_bytes` is its largest resident memory."""

    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int


class Processes:
    """Starts children, each in a session of its own; leaving the block stops those that still run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._children: list[Child] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._end(list(self._children))

    def start(
        self,
        module: str,
        *arguments: str | Path,
        cores: Cores = ANY_CORE,
        python: str | Path = sys.executable,
        variables: Mapping[str, str] = {},
    ) -> Child:
        """Starts `python -m module` in the repository's root; these variables are added, Marquee's are taken away."""
        stem = self._folder / f"{next(self._numbers):02}-{module}"
        stdout, stderr = Path(f"{stem}.out"), Path(f"{stem}.err")
        with ExitStack() as stack:
            out, err = stack.enter_context(stdout.open("wb")), stack.enter_context(stderr.open("wb"))
            stack.enter_context(uninterrupted())
            stack.enter_context(pinned(cores))
            started = time.perf_counter()
            process = subprocess.Popen(
                [python, "-m", module, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env={**_environment(), **variables},
                start_new_session=True,
            )
            child = Child(module, process, stdout, stderr, started)
            self._children.append(child)
        return child

    def stop(self, child: Child) -> None:
        """Stops a child that still runs."""
        self._end([child])

    def run(
        self, module: str, *arguments: str | Path, cores: Cores = ANY_CORE, python: str | Path = sys.executable
    ) -> Ended:
        """Runs `python -m module` to its end; raises BenchmarkFailed where it does not end well.

        Its peak is never below this process's own memory, which it shares until it runs its program (Linux).
        """
        child = self.start(module, *arguments, cores=cores, python=python)
        _, status, usage = os.wait4(child.process.pid, 0)
        seconds = time.perf_counter() - child.started
        child.process.returncode = os.waitstatus_to_exitcode(status)
        self._children.remove(child)
        if child.process.returncode != 0:
            raise child.failure()
        stdout, stderr = (file.read_text(errors="replace").strip() for file in (child.stdout, child.stderr))
        return Ended(stdout, stderr, seconds, usage.ru_maxrss * _MAXRSS_BYTES)

    @contextmanager
    def serve(self, module: str, *arguments: str | Path, cores: Cores = ANY_CORE) -> Iterator[Server]:
        """Starts a server on a free port and waits for its port file; stops it at the end of the block."""
        port_file = self._folder / f"{next(self._numbers):02}-port"
        listening = ("--listen", "127.0.0.1:0", "--port-file", port_file)
        child = self.start(module, *listening, *arguments, cores=cores)
        while not port_file.exists():
            if child.process.poll() is not None or time.perf_counter() - child.started > _READY_S:
                raise child.failure()
            time.sleep(_POLL_S)
        ready_s = time.perf_counter() - child.started
        try:
            yield Server(child, int(port_file.read_text()), ready_s)
        finally:
            self._end([child])

    def _end(self, children: Sequence[Child]) -> None:
        with uninterrupted():
            for child in children:
                child.process.send_signal(signal.SIGINT)
            for child in children:
                _await_end(child.process)
                self._children.remove(child)


def _await_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def pinned(cores: Cores) -> Iterator[None]:
    """Runs this thread, and with it what it starts, on these cores alone; on any where there are none."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
