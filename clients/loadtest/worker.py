"""One process that sends calls when they are due and tells the crew, tick by tick, how they ended."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import selectors
import signal
import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from clients.loadtest.arrivals import Arrivals, Share, due_times
from clients.loadtest.calls import Caller, Expected
from clients.loadtest.scenarios import Pools, draw, methods_of
from clients.loadtest.stages import Stage, stage_ends
from clients.loadtest.tally import OK, Outcome, Packed, Tally
from clients.loadtest.target import Link
from marquee.client.channels import Settings

# Calls that are late are sent so many at a time: answers have to be let in meanwhile.
_LATE_AT_ONCE = 8
_FOLD_S = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """Is what all processes of a test have in common."""

    settings: Settings
    scenario: dict[str, float]
    pools: Pools
    expected: Expected
    arrivals: Arrivals
    seed: int


class Trial(NamedTuple):
    """Orders calls: in stages, from a moment of the monotonic clock on; with `callers`, each waits for its answer."""

    stages: Sequence[Stage]
    start: float
    tick_s: float
    callers: int = 0


class Stop(NamedTuple):
    """Orders that a trial end now; what is in flight is dropped."""


class End(NamedTuple):
    """Orders that the process end."""


class Ready(NamedTuple):
    """Says that a process is connected; `problem` says why it is not."""

    problem: str = ""


class Part(NamedTuple):
    """Is what ended of a stage and a scenario."""

    stage: int
    scenario: str
    tally: Packed


class Snapshot(NamedTuple):
    """Says what happened up to a moment, since the one before; the seconds are of the trial and of this process's CPU.

    `told` has for each code what one failure said.
    """

    second: float
    parts: Sequence[Part]
    sent: int
    in_flight: int
    cpu_s: float
    wall_s: float
    told: dict[str, str]


class Done(NamedTuple):
    """Says that a trial is over; `dropped` calls had no answer when it was stopped."""

    dropped: int


def work(connection: Connection, load: Load, share: Share) -> None:
    """Serves the crew's orders until it says End or is gone."""
    # A Ctrl-C reaches every process of the terminal; the crew decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # select waits to the microsecond. epoll, and uvloop, wait in milliseconds: as long as an answer takes.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_serve(connection, load, share))


async def _serve(connection: Connection, load: Load, share: Share) -> None:
    async with Link(load.settings, methods_of(load.scenario)) as link:
        try:
            await link.connect(load.settings.deadline_s)
        except TimeoutError:
            connection.send(Ready(f"not all connections came about within {load.settings.deadline_s:g} s"))
            return
        caller = Caller(link, list(load.scenario), load.pools, load.expected, load.seed + share.place)
        connection.send(Ready())
        gc.freeze()
        await _Worker(connection, load, share, caller).serve()


class _Worker:
    def __init__(self, connection: Connection, load: Load, share: Share, caller: Caller) -> None:
        self._connection = connection
        self._load = load
        self._share = share
        self._caller = caller
        self._orders: asyncio.Queue[Trial | End] = asyncio.Queue()
        self._flight: _Flight | None = None

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection.fileno(), self._read)
        try:
            while isinstance(order := await self._orders.get(), Trial):
                self._flight = _Flight(self._connection, self._load, self._share, self._caller, order)
                dropped = await self._flight.run()
                self._flight = None
                self._connection.send(Done(dropped))
        finally:
            loop.remove_reader(self._connection.fileno())

    def _read(self) -> None:
        try:
            order = self._connection.recv()
        except EOFError:
            # The crew is gone, and nobody is left to report to.
            order = End()
        if not isinstance(order, Trial) and self._flight is not None:
            self._flight.stop()
        if not isinstance(order, Stop):
            self._orders.put_nowait(order)


class _Flight:
    """Is one trial of one process."""

    def __init__(self, connection: Connection, load: Load, share: Share, caller: Caller, trial: Trial) -> None:
        self._connection = connection
        self._load = load
        self._share = share
        self._caller = caller
        self._trial = trial
        self._ends = [trial.start + end for end in stage_ends(trial.stages)]
        self._scenarios = draw(load.scenario, random.Random(load.seed + share.place))
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._ended: defaultdict[tuple[int, str], list[Outcome]] = defaultdict(list)
        self._tallies: defaultdict[tuple[int, str], Tally] = defaultdict(Tally)
        self._told: dict[str, str] = {}
        self._broken: BaseException | None = None
        self._sent = self._in_flight = 0
        self._cpu, self._wall = time.process_time(), trial.start

    def stop(self) -> None:
        """Ends the trial early."""
        self._stopped.set()

    async def run(self) -> int:
        """Runs the trial; returns how many calls had no answer when it was stopped."""
        ticking = asyncio.create_task(self._tick())
        sending = asyncio.create_task(self._send_all())
        stopping = asyncio.create_task(self._stopped.wait())
        await asyncio.wait((sending, stopping), return_when=asyncio.FIRST_COMPLETED)
        dropped = self._in_flight
        for task in (ticking, stopping, sending, *self._running):
            task.cancel()
        results = await asyncio.gather(sending, ticking, stopping, *self._running, return_exceptions=True)
        self._snapshot()
        for failure in (self._broken, *results):
            if isinstance(failure, Exception):
                raise failure
        return dropped

    async def _send_all(self) -> None:
        if self._trial.callers:
            await self._send_closed()
        else:
            await self._send_open()
            while self._running:
                await asyncio.wait(self._running)

    async def _send_open(self) -> None:
        late = 0
        for due in due_times(self._trial.stages, self._load.arrivals, self._share, self._load.seed):
            for moment in due.times.tolist():
                at = self._trial.start + moment
                wait = at - time.monotonic()
                late = 0 if wait > 0 else late + 1
                if wait > 0 or late % _LATE_AT_ONCE == 0:
                    await asyncio.sleep(max(0.0, wait))
                self._start(self._call(due.stage, at))

    async def _send_closed(self) -> None:
        mine = range(self._share.place, self._trial.callers, self._share.of)
        await asyncio.sleep(max(0.0, self._trial.start - time.monotonic()))
        async with asyncio.TaskGroup() as group:
            for _ in mine:
                group.create_task(self._call_again_and_again())

    async def _call_again_and_again(self) -> None:
        while (now := time.monotonic()) < self._ends[-1]:
            await self._call(bisect(self._ends, now), now)

    def _start(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(call)
        self._running.add(task)
        task.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Not a failed call, which is an outcome: a mistake of ours, and no figure is worth it.
            self._broken = task.exception()
            self._stopped.set()

    async def _call(self, stage: int, due: float) -> None:
        scenario = next(self._scenarios)
        sent = time.monotonic()
        self._sent += 1
        self._in_flight += 1
        try:
            ended = await self._caller.call(scenario, self._load.settings.deadline_s)
        finally:
            self._in_flight -= 1
        now = time.monotonic()
        lag = max(0.0, sent - due)
        outcome = Outcome(ended.code, now - due, now - sent, lag, ended.degraded, ended.cold_start)
        self._ended[stage, scenario].append(outcome)
        if ended.code == OK:
            self._tallies[bisect(self._ends, now), scenario].finished += 1
        else:
            self._told.setdefault(ended.code, ended.told)

    async def _tick(self) -> None:
        folds = max(1, round(self._trial.tick_s / _FOLD_S))
        for number in itertools.count(1):
            at = self._trial.start + number * self._trial.tick_s / folds
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            self._fold()
            if number % folds == 0:
                self._snapshot()

    def _fold(self) -> None:
        """Puts what has ended into tallies: done once a tick, that would hold up calls in a test of hours."""
        for key, outcomes in self._ended.items():
            self._tallies[key].record(outcomes)
        self._ended.clear()

    def _snapshot(self) -> None:
        cpu, wall = time.process_time(), time.monotonic()
        self._connection.send(
            Snapshot(
                wall - self._trial.start,
                self._parts(),
                self._sent,
                self._in_flight,
                cpu - self._cpu,
                wall - self._wall,
                self._told,
            )
        )
        self._sent, self._told, self._cpu, self._wall = 0, {}, cpu, wall

    def _parts(self) -> list[Part]:
        self._fold()
        parts = [Part(stage, scenario, tally.pack()) for (stage, scenario), tally in self._tallies.items()]
        self._tallies.clear()
        return parts
