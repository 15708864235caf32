"""An encoder that follows the registry under load: every call is answered, each in the space that it asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import numpy as np
import pytest

from marquee.bundle.format import Bundle
from marquee.bundle.registry import Registry
from marquee.engine.encoder import Encoder
from marquee.features import LIKED, NO_EVENTS, RATED, Floats, merge, user_hash
from marquee.v1 import types_pb2, user_encoder_pb2, user_encoder_pb2_grpc
from tests.bundles import make_bundle
from tests.encoder_rigs import Row, columns, events, recording, stubs
from tests.rigs import eventually, publish, service_process

ACTIVE, STANDBY = types_pb2.BUNDLE_ROLE_ACTIVE, types_pb2.BUNDLE_ROLE_STANDBY
USER = "ada"
# The bundles' movies are 1, 4, 7, …
STORED = (Row(1, RATED, 4.5, 1000), Row(4, LIKED, 0, 2000))
SENT = (Row(7, RATED, 1.0, 1500), Row(10, LIKED, 0, 2500))
AS_OF = 3000
CALL_TIMEOUT_S, PATIENCE_S = 10.0, 30.0
CALLERS, CALLS_A_ROUND = 6, 9
# Nothing is tried twice behind the callers' backs: what is answered was answered at once.
NO_RETRIES = [("grpc.enable_retries", 0)]


class Bundles(NamedTuple):
    """Holds bundles of two spaces, and a revision of the first."""

    a: Bundle
    a_refreshed: Bundle
    b: Bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    folder = tmp_path_factory.mktemp("reload")
    made = Bundles(
        make_bundle(folder / "a", movies=40, seed=1),
        make_bundle(folder / "a-refreshed", movies=40, seed=1, added=5),
        make_bundle(folder / "b", movies=42, seed=2),
    )
    assert made.a.space == made.a_refreshed.space != made.b.space
    return made


class Callers:
    """Asks for the active space, and for each by name, until told to stop; a call that fails ends the test."""

    def __init__(self, users: user_encoder_pb2_grpc.UserEncoderServiceAsyncStub, bundles: Bundles) -> None:
        self._users = users
        self._spaces = ["", bundles.a.space, bundles.b.space]
        self._stopped = asyncio.Event()
        self._vectors = {bundle.space: vectors_of(bundle) for bundle in (bundles.a, bundles.b)}
        self.answers: Counter[tuple[str, str]] = Counter()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        while not self._stopped.is_set():
            for space in self._spaces:
                await self._encode(space)
                await self._encode_batch(space)

    async def go_on(self) -> None:
        """Waits until all have asked for everything again, twice."""
        calls = self.answers.total() + 2 * CALLERS * CALLS_A_ROUND
        await eventually(lambda: self.answers.total() >= calls, PATIENCE_S)

    async def _encode(self, space: str) -> None:
        for by_id, request in enumerate((asking(space, *SENT), asking(space, user_id=USER))):
            answer = await self._users.Encode(request, timeout=CALL_TIMEOUT_S)
            self._check(space, answer.space, np.frombuffer(answer.vector, "<f4")[None], [by_id])
            self.answers[space, answer.bundle_id] += 1

    async def _encode_batch(self, space: str) -> None:
        request = user_encoder_pb2.BatchEncodeRequest(space=space, as_of_ms=AS_OF)
        request.items.add(user_id=USER)
        request.items.add(events=columns(*SENT))
        answer = await self._users.BatchEncode(request, timeout=CALL_TIMEOUT_S)
        self._check(space, answer.space, np.frombuffer(answer.vectors, "<f4").reshape(2, -1), [1, 0])
        self.answers[space, answer.bundle_id] += 1

    def _check(self, asked: str, answered: str, vectors_BD: Floats, people: list[int]) -> None:
        assert answered == asked or not asked
        np.testing.assert_allclose(vectors_BD, self._vectors[answered][people], atol=1e-5)


def asking(space: str, *rows: Row, user_id: str = "") -> user_encoder_pb2.EncodeRequest:
    return user_encoder_pb2.EncodeRequest(user_id=user_id, events=columns(*rows), space=space, as_of_ms=AS_OF)


def vectors_of(bundle: Bundle) -> Floats:
    """Computes what a bundle makes of the sent events and of the stored ones: [2, D]."""
    encoder = Encoder(bundle)
    histories = [merge(NO_EVENTS, events(*rows), user_hash(user)) for rows, user in ((SENT, ""), (STORED, USER))]
    return np.stack([encoder.encode(history, AS_OF)[0] for history in histories])


async def state(users: user_encoder_pb2_grpc.UserEncoderServiceAsyncStub) -> types_pb2.ReplicaState:
    return (await users.GetModel(user_encoder_pb2.GetModelRequest(), timeout=CALL_TIMEOUT_S)).state


class Operator:
    """Changes the registry, and waits until the encoder has followed and has been called in its new state."""

    def __init__(
        self, registry: Registry, users: user_encoder_pb2_grpc.UserEncoderServiceAsyncStub, callers: Callers
    ) -> None:
        self._registry = registry
        self._users = users
        self._callers = callers

    async def publish(self, bundle: Bundle) -> None:
        await asyncio.to_thread(self._registry.publish, bundle.path, check=None)
        await self._followed()

    async def activate(self, bundle: Bundle) -> None:
        await asyncio.to_thread(self._registry.activate, bundle.id, confirm=None)
        await self._followed()

    async def _followed(self) -> None:
        generation = self._registry.read().generation

        async def is_followed() -> bool:
            return (await state(self._users)).generation == generation

        await eventually(is_followed, PATIENCE_S)
        await self._callers.go_on()


async def test_a_hot_reload_under_load_fails_no_call(tmp_path: Path, bundles: Bundles) -> None:
    registry = publish(tmp_path / "registry", bundles.a)
    await asyncio.to_thread(registry.publish, bundles.b.path, check=None)
    arguments = [f"--store={tmp_path / 'features.sqlite'}", "--poll-s=0.02", "--drain-s=0"]
    with service_process("user_encoder", tmp_path, registry.root, *arguments) as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}", options=NO_RETRIES) as channel:
            users, features = stubs(channel)
            await features.RecordEvents(recording(USER, *STORED))
            callers = Callers(users, bundles)
            operator = Operator(registry, users, callers)
            async with asyncio.TaskGroup() as group:
                for _ in range(CALLERS):
                    group.create_task(callers.run())
                await callers.go_on()
                await operator.activate(bundles.b)
                await operator.publish(bundles.a_refreshed)
                await operator.activate(bundles.a_refreshed)
                await operator.activate(bundles.b)
                callers.stop()
            ended = await state(users)
        code, log = await asyncio.to_thread(process.stop)
    assert (code, "ERROR" in log) == (0, False), log
    check_answers(callers.answers, bundles)
    check_state(ended, bundles)


def check_answers(answers: Counter[tuple[str, str]], bundles: Bundles) -> None:
    a, a_refreshed, b = bundles
    in_a = {a.id, a_refreshed.id}
    by_asked = {asked: {bundle for space, bundle in answers if space == asked} for asked, _ in answers}
    assert by_asked == {"": {*in_a, b.id}, a.space: in_a, b.space: {b.id}}


def check_state(ended: types_pb2.ReplicaState, bundles: Bundles) -> None:
    assert [(one.bundle_id, one.role) for one in ended.bundles] == [
        (bundles.b.id, ACTIVE),
        (bundles.a_refreshed.id, STANDBY),
    ]
    for one, bundle in zip(ended.bundles, (bundles.b, bundles.a_refreshed), strict=True):
        assert list(one.metrics) == list(bundle.report().metrics)
        assert one.metrics
        assert one.feature_spec == bundle.manifest.features
    assert ended.reload_error == ""
