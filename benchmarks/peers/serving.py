"""Starts a contender, waits for its first right answer, and stops all that it started."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.http2 import Target
from benchmarks.peers.contenders import OURS, Contender
from benchmarks.peers.load import WRONG_VECTOR, Asking, connect, is_right
from benchmarks.peers.questions import Question
from benchmarks.peers.served.model import Settings
from benchmarks.peers.trees import memory_of, send, tree
from benchmarks.peers.wires import OK, LoadFailed
from benchmarks.processes import ROOT, BenchmarkFailed, Child, Cores
from benchmarks.work import Work

_READY_S = 120.0
_ANSWER_S = 20.0
_POLL_S = 0.01


class Place(NamedTuple):
    """Is where contenders run: the folder of everything, the core, and each environment's Python."""

    work: Work
    cores: Cores
    pythons: Mapping[str, Path]
    questions: Sequence[Question]


class Way(NamedTuple):
    """Is how a contender serves: the whole of Encode or the bare tower, with calls put together by itself or not."""

    whole: bool
    together: bool = False


class Serving(NamedTuple):
    """Is a contender that serves; `ready_s` are the seconds from its start to its first right answer."""

    child: Child
    asking: Asking
    ready_s: float

    @property
    def pid(self) -> int:
        """Its first process."""
        return self.child.process.pid

    def memory(self) -> int:
        """Bytes that all its processes have resident."""
        return memory_of(tree(self.pid))


@contextlib.contextmanager
def serving(place: Place, contender: Contender, way: Way) -> Iterator[Serving]:
    """Serves for a block."""
    port = _free_port()
    child = _start(place, contender, way, port)
    form = contender.form(whole=way.whole)
    requests = [form.write(question) for question in place.questions]
    target = Target(f"127.0.0.1:{port}", form.path, requests)
    asking = Asking(target, contender.grpc, form.read, [question.vector for question in place.questions])
    pids: list[int] = []
    try:
        _await_answer(child, asking)
        ready_s = time.perf_counter() - child.started
        pids = tree(child.process.pid)
        yield Serving(child, asking, ready_s)
    finally:
        pids = sorted({*pids, *tree(child.process.pid)})
        place.work.processes.stop(child)
        # Of those in sessions of their own, some outlive the first.
        send(pids, signal.SIGKILL)


def _start(place: Place, contender: Contender, way: Way, port: int) -> Child:
    work = place.work
    if contender is OURS and way.whole:
        listening = ("--listen", f"127.0.0.1:{port}")
        return work.processes.start(
            "services.user_encoder", *listening, *work.arguments("user_encoder"), cores=place.cores
        )
    told = Settings(work.bundle, port, way.whole, way.together).variables()
    return work.processes.start(
        contender.module,
        cores=place.cores,
        python=place.pythons[contender.environment] if contender.environment else sys.executable,
        # Workers that a peer starts import this repository, too; and what it leaves at home goes with the folder.
        variables={"PYTHONPATH": str(ROOT), "HOME": str(work.folder), **told, **contender.variables},
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _await_answer(child: Child, asking: Asking) -> None:
    wrong = "nothing answered"
    while child.process.poll() is None and time.perf_counter() - child.started < _READY_S:
        try:
            wrong = ask_once(asking)
        except (OSError, LoadFailed) as error:
            wrong = str(error)
        if wrong == OK:
            return
        time.sleep(_POLL_S)
    raise BenchmarkFailed(f"{child.failure().message} (asked last: {wrong})")


def ask_once(asking: Asking) -> str:
    """Asks the first question on a connection of its own; returns OK, or what was wrong with the answer."""
    with contextlib.ExitStack() as stack:
        (wire,) = [stack.enter_context(contextlib.closing(each)) for each in connect(asking, 1)]
        wire.call(0, asking.target.requests[0])
        wire.flush()
        while select.select([wire], (), (), _ANSWER_S)[0]:
            for end in wire.receive():
                if end.status != OK:
                    return end.status
                return OK if is_right(asking.read, end.body, asking.vectors[0]) else WRONG_VECTOR
            wire.flush()
    return "no answer"
