"""The processes that send: started together, told together when to begin, and stopped together."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType, TracebackType

from clients.loadtest.arrivals import Share
from clients.loadtest.results import Book
from clients.loadtest.worker import Done, End, Load, Ready, Snapshot, Stop, Trial, work
from marquee.errors import MarqueeError

_READY_S = 30.0
_LEAD_S = 0.2
# Together less than the two seconds in which Ctrl-C has ended everything.
_STOP_S, _END_S = 0.8, 0.4
_POLL_S = 0.1
_ENDING = (signal.SIGINT, signal.SIGTERM)


class ProcessFailed(MarqueeError):
    """Says that a process of the load tester did not come up, or ended before its time."""

    reason = "PROCESS_FAILED"


class Interrupt:
    """Becomes true at the first Ctrl-C or SIGTERM; the second ends the program."""

    def __init__(self) -> None:
        self._came = False

    def __bool__(self) -> bool:
        return self._came

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Is the signals' handler."""
        if self._came:
            raise KeyboardInterrupt
        self._came = True


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Notes signals in the block in place of raising."""
    interrupt = Interrupt()
    before = {number: signal.signal(number, interrupt.handle) for number in _ENDING}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Watch = Callable[[Book], None]


class Crew:
    """Holds the processes; leaving the block ends them."""

    def __init__(self, load: Load, processes: int) -> None:
        self._load = load
        self._processes: list[SpawnProcess] = []
        self._connections: list[Connection] = []
        self._count = processes

    def __enter__(self) -> Crew:
        context = multiprocessing.get_context("spawn")
        # Inherited: a Ctrl-C must not end a process that is still starting.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for index in range(self._count):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=work, args=(theirs, self._load, Share(index, self._count)), daemon=True
                )
                process.start()
                theirs.close()
                self._processes.append(process)
                self._connections.append(ours)
        finally:
            signal.signal(signal.SIGINT, before)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._tell(End())
        deadline = time.monotonic() + _END_S
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            # Does nothing to one that has ended.
            process.kill()

    def await_ready(self, interrupt: Interrupt) -> None:
        """Waits until every process is connected; raises ProcessFailed, and KeyboardInterrupt where one came."""
        deadline = time.monotonic() + _READY_S + self._load.settings.deadline_s
        for connection in self._connections:
            while not connection.poll(_POLL_S):
                if interrupt:
                    raise KeyboardInterrupt
                if time.monotonic() > deadline:
                    raise ProcessFailed(f"a process did not come up within {_READY_S:g} s: is the machine too busy?")
            ready = _receive(connection)
            if isinstance(ready, Ready) and ready.problem:
                raise ProcessFailed(f"{ready.problem}: are the services still there? A longer --deadline waits longer")

    def run(self, book: Book, interrupt: Interrupt, watch: Watch) -> None:
        """Runs a book's stages and fills it; `watch` sees it after every message."""
        self._tell(Trial(book.stages, time.monotonic() + _LEAD_S, book.tick_s, book.callers))
        working = set(range(len(self._connections)))
        give_up = float("inf")
        while working and time.monotonic() < give_up:
            if interrupt and not book.stopped:
                book.stopped, give_up = True, time.monotonic() + _STOP_S
                self._tell(Stop())
            for index in self._telling(working):
                message = _receive(self._connections[index])
                if isinstance(message, Done):
                    working.discard(index)
                    book.dropped += message.dropped
                elif isinstance(message, Snapshot):
                    book.add(index, message)
            watch(book)

    def _telling(self, working: set[int]) -> list[int]:
        ready = wait([self._connections[index] for index in working], _POLL_S)
        return [index for index in working if self._connections[index] in ready]

    def _tell(self, order: Trial | Stop | End) -> None:
        for connection in self._connections:
            try:
                connection.send(order)
            except (BrokenPipeError, ConnectionResetError):
                # It has ended; whoever reads from it next says so.
                continue


def _receive(connection: Connection) -> object:
    try:
        return connection.recv()
    except EOFError:
        raise ProcessFailed("a process of the load tester ended early; what it said is above") from None
