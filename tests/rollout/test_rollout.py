"""A roll-out under load: replicas that reload at different times, and callers that never see a mismatch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import grpc.aio
import numpy as np
import pytest

from marquee.bundle.format import Bundle
from marquee.bundle.gate import check_gate
from marquee.bundle.registry import Registry
from marquee.errors import SpaceNotLoaded
from marquee.features import LIKED, RATED
from marquee.v1 import (
    live_features_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    types_pb2,
    user_encoder_pb2,
    user_encoder_pb2_grpc,
)
from tests.bundles import make_bundle
from tests.encoder_rigs import Row, columns, recording, stubs
from tests.rigs import ROOT, Process, error_of, publish, service_process

ACTIVE, STANDBY = types_pb2.BUNDLE_ROLE_ACTIVE, types_pb2.BUNDLE_ROLE_STANDBY
RETIRING = types_pb2.BUNDLE_ROLE_RETIRING

# Seconds that the replicas of each service wait before they follow the pointer.
DELAYS_S = (0, 5, 20)
FAST, SLOW = 0, len(DELAYS_S) - 1
# Less than the slow replicas' delay: only calls keep a retired space loaded until those have followed.
QUIET_S = 8.0
# About 25 calls a second in all.
CALLERS, PAUSE_S = 4, 0.15
CALL_TIMEOUT_S = 10.0
# The longest delay, loading, and a machine that has much else to do.
PATIENCE_S = 60.0

K = 10
PEOPLE = {f"person-{number}": [3 * number + 1, 3 * number + 31] for number in range(6)}


class Bundles(NamedTuple):
    """Holds bundles of four spaces, and a revision of the second with movies of its own."""

    a: Bundle
    b: Bundle
    b_refreshed: Bundle
    c: Bundle
    withdrawn: Bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    folder = tmp_path_factory.mktemp("bundles")
    made = Bundles(
        make_bundle(folder / "a", movies=40, seed=1),
        make_bundle(folder / "b", movies=42, seed=2),
        make_bundle(folder / "b-refreshed", movies=42, seed=2, added=8, dropped=3),
        make_bundle(folder / "c", movies=44, seed=3),
        make_bundle(folder / "withdrawn", movies=40, seed=4),
    )
    assert made.b.space == made.b_refreshed.space
    assert len({bundle.space for bundle in made}) == 4
    return made


class Encoder(NamedTuple):
    """Calls one encoder."""

    address: str
    users: user_encoder_pb2_grpc.UserEncoderServiceAsyncStub
    features: live_features_pb2_grpc.LiveFeaturesServiceAsyncStub

    async def state(self) -> types_pb2.ReplicaState:
        return (await self.users.GetModel(user_encoder_pb2.GetModelRequest(), timeout=CALL_TIMEOUT_S)).state


class Retriever(NamedTuple):
    """Calls one retriever."""

    address: str
    movies: retriever_pb2_grpc.RetrieverServiceAsyncStub

    async def state(self) -> types_pb2.ReplicaState:
        return (await self.movies.GetIndex(retriever_pb2.GetIndexRequest(), timeout=CALL_TIMEOUT_S)).state


Replica = Encoder | Retriever


class Fleet(NamedTuple):
    """Calls every replica; position in the list is position in DELAYS_S."""

    encoders: list[Encoder]
    retrievers: list[Retriever]

    @property
    def replicas(self) -> list[Replica]:
        return [*self.encoders, *self.retrievers]

    @property
    def flags(self) -> list[str]:
        return [f"--replica={replica.address}" for replica in self.replicas]

    async def states(self) -> list[types_pb2.ReplicaState]:
        return [await replica.state() for replica in self.replicas]


class Pair(NamedTuple):
    """Is one answered Encode and the Search that followed it; times are of the Encode."""

    encoder: int
    retriever: int
    started: float
    ended: float
    space: str
    encoder_bundle: str
    retriever_bundle: str
    movie_ids: tuple[int, ...]


class Callers:
    """Encodes and searches on replicas drawn at random until told to stop; a call that fails ends the test."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stopped = False
        self.pairs: list[Pair] = []

    def stop(self) -> None:
        self._stopped = True

    async def run(self, number: int) -> None:
        rng = np.random.default_rng(number)
        while not self._stopped:
            for request in (self._by_id(rng), self._by_events(rng)):
                self.pairs.append(await self._pair(request, *(int(at) for at in rng.integers(0, len(DELAYS_S), 2))))
                await asyncio.sleep(PAUSE_S)

    async def until(self, wanted: Callable[[Pair], bool]) -> None:
        """Waits for an answer that begins from now on and is wanted."""
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while not any(pair.started > began and wanted(pair) for pair in self.pairs):
                await asyncio.sleep(0.05)

    def _by_id(self, rng: np.random.Generator) -> user_encoder_pb2.EncodeRequest:
        return user_encoder_pb2.EncodeRequest(user_id=f"person-{rng.integers(len(PEOPLE))}")

    def _by_events(self, rng: np.random.Generator) -> user_encoder_pb2.EncodeRequest:
        movies = [3 * int(number) + 1 for number in rng.choice(40, 5, replace=False)]
        return user_encoder_pb2.EncodeRequest(events=columns(*(Row(movie, RATED, 4.5, 1000) for movie in movies)))

    async def _pair(self, request: user_encoder_pb2.EncodeRequest, encoder: int, retriever: int) -> Pair:
        started = time.monotonic()
        encoded = await self._fleet.encoders[encoder].users.Encode(request, timeout=CALL_TIMEOUT_S)
        ended = time.monotonic()
        # A flip may come between the two calls.
        await asyncio.sleep(PAUSE_S)
        found = await self._fleet.retrievers[retriever].movies.Search(
            retriever_pb2.SearchRequest(vector=encoded.vector, space=encoded.space, k=K, exclude_packed=encoded.seen),
            timeout=CALL_TIMEOUT_S,
        )
        assert found.space == encoded.space
        assert len(found.movie_ids) == K
        seen = PEOPLE.get(request.user_id, list(request.events.movie_ids))
        assert np.frombuffer(encoded.seen, "<i8").tolist() == sorted(seen)
        assert not set(found.movie_ids) & set(seen)
        return Pair(
            encoder,
            retriever,
            started,
            ended,
            encoded.space,
            encoded.bundle_id,
            found.bundle_id,
            tuple(found.movie_ids),
        )


@contextlib.contextmanager
def processes(folder: Path, registry: Path) -> Iterator[tuple[list[Process], list[Process]]]:
    """Starts three encoders, which share a store, and three retrievers; all read one registry."""
    starts = []
    for service in ("user_encoder", "retriever"):
        for delay_s in DELAYS_S:
            place = folder / f"{service}-{delay_s}"
            place.mkdir()
            arguments = [f"--reload-delay-s={delay_s}", "--poll-s=0.1", f"--retire-quiet-s={QUIET_S}", "--drain-s=0"]
            if service == "user_encoder":
                arguments.append(f"--store={folder / 'features.sqlite'}")
            starts.append(service_process(service, place, registry, *arguments))
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(2) as pool:
            started = list(pool.map(stack.enter_context, starts))
        yield started[: len(DELAYS_S)], started[len(DELAYS_S) :]


@contextlib.asynccontextmanager
async def fleet_of(encoders: list[Process], retrievers: list[Process]) -> AsyncIterator[Fleet]:
    """Opens a channel to every replica."""
    async with contextlib.AsyncExitStack() as stack:
        fleet = Fleet([], [])
        for process in encoders:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address_of(process)))
            fleet.encoders.append(Encoder(address_of(process), *stubs(channel)))
        for process in retrievers:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address_of(process)))
            fleet.retrievers.append(Retriever(address_of(process), movies_stub(channel)))
        yield fleet


def address_of(process: Process) -> str:
    return f"127.0.0.1:{process.port}"


def movies_stub(channel: grpc.aio.Channel) -> retriever_pb2_grpc.RetrieverServiceAsyncStub:
    return cast("retriever_pb2_grpc.RetrieverServiceAsyncStub", retriever_pb2_grpc.RetrieverServiceStub(channel))


def parts(state: types_pb2.ReplicaState) -> list[tuple[str, types_pb2.BundleRole]]:
    return [(one.bundle_id, one.role) for one in state.bundles]


async def activate(registry: Registry, fleet: Fleet) -> subprocess.CompletedProcess[str]:
    """Makes the standby active as a person would, asking every replica first."""
    command = [sys.executable, "-W", "error", "-m", "marquee.bundle", "activate", f"--registry={registry.root}"]
    run = partial(subprocess.run, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S, check=False)
    return await asyncio.to_thread(run, [*command, *fleet.flags])


async def applied(registry: Registry, *replicas: Replica) -> None:
    """Waits until replicas serve what the pointer says."""
    pointer = registry.read()
    async with asyncio.timeout(PATIENCE_S):
        for replica in replicas:
            while (await replica.state()).generation != pointer.generation:
                await asyncio.sleep(0.05)


async def listed(space: str, fleet: Fleet) -> None:
    """Waits until every replica has a space loaded and ready to become active."""
    async with asyncio.timeout(PATIENCE_S):
        for replica in fleet.replicas:
            while not any(one.space == space and one.role != RETIRING for one in (await replica.state()).bundles):
                await asyncio.sleep(0.05)


class Rollout:
    """Is what an operator does, in order, while the callers call."""

    def __init__(self, registry: Registry, fleet: Fleet, callers: Callers, bundles: Bundles) -> None:
        self.registry, self.fleet, self.callers, self.bundles = registry, fleet, callers, bundles
        self.quick: list[Replica] = [fleet.encoders[FAST], fleet.retrievers[FAST]]
        # When each space was made active, and when every replica had followed.
        self.activated: dict[str, float] = {}
        self.settled: dict[str, float] = {}

    async def run(self) -> None:
        await self.callers.until(lambda pair: True)
        await self.to_b()
        await self.refresh_b_and_publish_c()
        await self.to_c()
        await self.callers.until(lambda pair: True)

    async def publish(self, bundle: Bundle) -> None:
        """Publishes past the gate, and waits for the replicas without a delay."""
        await asyncio.to_thread(self.registry.publish, bundle.path, check=check_gate)
        await applied(self.registry, *self.quick)

    async def to_b(self) -> None:
        before = self.registry.read().generation
        await self.publish(self.bundles.b)
        refused = await activate(self.registry, self.fleet)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"refused: space {self.bundles.b.space[:12]} is not loaded everywhere: ")
        assert refused.stderr.count("\n") == 1
        for replicas in (self.fleet.encoders, self.fleet.retrievers):
            assert f"{replicas[SLOW].address} has loaded {self.bundles.a.space[:12]}" in refused.stderr
            assert replicas[FAST].address not in refused.stderr
        assert self.registry.read().generation == before + 1

        await listed(self.bundles.b.space, self.fleet)
        await self.activate(self.bundles.b.space)

    async def activate(self, space: str) -> None:
        self.activated[space] = time.monotonic()
        done = await activate(self.registry, self.fleet)
        assert done.returncode == 0, done.stderr
        await applied(self.registry, *self.quick)

    async def refresh_b_and_publish_c(self) -> None:
        """Goes on without waiting for the slow replicas, which still answer in the first space."""
        a, b, b_refreshed, c, withdrawn = self.bundles
        await self.publish(b_refreshed)
        # A candidate that was never active must not push out the space that slow encoders answer in.
        await self.publish(withdrawn)
        await self.publish(c)

        slow = self.fleet.encoders[SLOW]
        assert parts(await slow.state()) == [(a.id, ACTIVE), (b.id, STANDBY)]
        for replica in self.quick:
            assert parts(await replica.state()) == [(b_refreshed.id, ACTIVE), (c.id, STANDBY), (a.id, RETIRING)]
        await self.callers.until(lambda pair: (pair.space, pair.retriever) == (a.space, FAST))
        await self.callers.until(lambda pair: (pair.space, pair.retriever) == (b.space, SLOW))

        await listed(c.space, self.fleet)
        self.settled[b.space] = time.monotonic()
        await self.every_encoder_answered_in(b.space)

    async def to_c(self) -> None:
        await self.activate(self.bundles.c.space)
        await self.callers.until(lambda pair: (pair.space, pair.retriever) == (self.bundles.c.space, SLOW))
        await self.callers.until(lambda pair: (pair.space, pair.retriever) == (self.bundles.b.space, FAST))
        await applied(self.registry, *self.fleet.replicas)
        self.settled[self.bundles.c.space] = time.monotonic()
        await self.every_encoder_answered_in(self.bundles.c.space)

    async def every_encoder_answered_in(self, space: str) -> None:
        for encoder in range(len(DELAYS_S)):
            await self.callers.until(answered_by(encoder, space))


async def test_no_caller_sees_a_mismatch_while_replicas_follow_at_different_times(
    tmp_path: Path, bundles: Bundles
) -> None:
    registry = publish(tmp_path / "registry", bundles.a)
    with processes(tmp_path, registry.root) as (encoders, retrievers):
        async with fleet_of(encoders, retrievers) as fleet:
            await remember_people(fleet)
            callers = Callers(fleet)
            rollout = Rollout(registry, fleet, callers, bundles)
            async with asyncio.TaskGroup() as group:
                for number in range(CALLERS):
                    group.create_task(callers.run(number))
                await rollout.run()
                callers.stop()
            check_end(registry, await fleet.states(), bundles)
        logs = [(await asyncio.to_thread(process.stop)) for process in (*encoders, *retrievers)]
    check_answers(callers.pairs, rollout, bundles)
    for code, log in logs:
        assert code == 0, log
        assert {json.loads(line)["level"] for line in log.splitlines()} == {"INFO"}, log


async def remember_people(fleet: Fleet) -> None:
    for user_id, movies in PEOPLE.items():
        request = recording(user_id, *(Row(movie, LIKED, 0, 1000) for movie in movies))
        assert (await fleet.encoders[FAST].features.RecordEvents(request)).recorded == len(movies)


def answered_by(encoder: int, space: str) -> Callable[[Pair], bool]:
    return lambda pair: (pair.space, pair.encoder) == (space, encoder)


def check_end(registry: Registry, states: list[types_pb2.ReplicaState], bundles: Bundles) -> None:
    pointer = registry.read()
    assert (pointer.active, pointer.standby) == (bundles.c.id, bundles.b_refreshed.id)
    for state in states:
        # The first space was dropped: nobody has asked for it for longer than QUIET_S.
        assert parts(state) == [(bundles.c.id, ACTIVE), (bundles.b_refreshed.id, STANDBY)]
        assert (state.generation, state.reload_error) == (pointer.generation, "")


def check_answers(pairs: list[Pair], rollout: Rollout, bundles: Bundles) -> None:
    a, b, c = bundles.a.space, bundles.b.space, bundles.c.space
    order = [a, b, c]
    assert {pair.space for pair in pairs} == set(order)
    assert len({(pair.encoder, pair.retriever) for pair in pairs}) == len(DELAYS_S) ** 2
    for pair in pairs:
        possible = {
            a: pair.started < rollout.settled[b],
            b: rollout.activated[b] < pair.ended and pair.started < rollout.settled[c],
            c: rollout.activated[c] < pair.ended,
        }
        assert possible[pair.space], f"{pair} came from a space whose time was over or had not begun"
    for encoder in range(len(DELAYS_S)):
        check_order([pair for pair in pairs if pair.encoder == encoder], order)
    check_revisions(pairs, bundles)


def check_order(pairs: list[Pair], order: list[str]) -> None:
    """Checks that an encoder which has answered in a space never goes back to an earlier one."""
    for space in order:
        first = min(pair.ended for pair in pairs if pair.space == space)
        later = {pair.space for pair in pairs if pair.started > first}
        assert not later & set(order[: order.index(space)])


def check_revisions(pairs: list[Pair], bundles: Bundles) -> None:
    by_space = {space: {bundle.id for bundle in bundles if bundle.space == space} for space in {p.space for p in pairs}}
    for pair in pairs:
        assert {pair.encoder_bundle, pair.retriever_bundle} <= by_space[pair.space]
    in_b = [pair for pair in pairs if pair.space == bundles.b.space]
    assert {pair.retriever_bundle for pair in in_b} == {bundles.b.id, bundles.b_refreshed.id}
    # A vector of one revision searches the other: they are of one space.
    assert any(pair.encoder_bundle != pair.retriever_bundle for pair in in_b)
    new = {3 * number + 1 for number in range(42, 50)}
    found = {revision: set[int]() for revision in (bundles.b.id, bundles.b_refreshed.id)}
    for pair in in_b:
        found[pair.retriever_bundle].update(pair.movie_ids)
    assert not found[bundles.b.id] & new
    assert found[bundles.b_refreshed.id] & new
    assert found[bundles.b.id] & {1, 4, 7}
    assert not found[bundles.b_refreshed.id] & {1, 4, 7}


async def test_a_vector_of_a_space_that_nobody_loaded_is_refused_with_those_that_are(
    tmp_path: Path, bundles: Bundles
) -> None:
    registry = publish(tmp_path / "registry", bundles.a)
    publish(registry.root, bundles.b, activate=False)
    with service_process("retriever", tmp_path, registry.root, "--drain-s=0") as process:
        async with grpc.aio.insecure_channel(address_of(process)) as channel:
            request = retriever_pb2.SearchRequest(vector=b"\0\0\x80?" * 16, space=bundles.c.space, k=K)
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await movies_stub(channel).Search(request, timeout=CALL_TIMEOUT_S)
    assert failure.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    error = error_of(failure.value)
    assert isinstance(error, SpaceNotLoaded)
    assert error.reason == "SPACE_NOT_LOADED"
    assert error.metadata == {"space": bundles.c.space, "loaded": f"{bundles.a.space},{bundles.b.space}"}
    assert bundles.c.space in error.message
