"""The runbook without a cluster: two pods of each service behind client-side balancing, and nobody notices a roll-out.

A pod is two processes, as in the manifests: the service, and `marquee.bundle sync` that copies from the shared
registry.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

from marquee.bundle.registry import Registry
from marquee.client import AsyncRecommender, Recommendations
from tests.bundles import make_bundle
from tests.deploy.test_monitoring import free_port, read
from tests.rigs import DEADLINE_S, ROOT, Process, eventually, publish, service_process

SERVICES = ("user_encoder", "retriever")
REPLICAS = 2
CALLERS = 3
PAUSE_S = 0.05
# A machine that has much else to do is no failed call.
CALL_S = 10.0


class Pod:
    """Is one replica: it can be ended and started anew at its address, as one of another version."""

    def __init__(self, service: str, folder: Path, shared: Registry, *flags: str) -> None:
        self._service, self._folder = service, folder
        self._metrics_port = free_port()
        self._flags = ["--poll-s=0.1", "--drain-s=1", f"--metrics-port={self._metrics_port}", *flags]
        self.local = Registry(folder / "registry")
        folder.mkdir()
        copying = [f"--registry={self.local.root}", f"--from={shared.root}"]
        first = bundle_command("sync", *copying, "--every=0.1", "--until-active")
        subprocess.run(first, cwd=ROOT, check=True, timeout=DEADLINE_S, capture_output=True)
        self._stack = contextlib.ExitStack()
        self._stack.callback(end, subprocess.Popen(bundle_command("sync", *copying, "--every=0.1"), cwd=ROOT))
        self._process = self._start("--listen=127.0.0.1:0")
        self.address = f"127.0.0.1:{self._process.port}"

    def _start(self, listen: str) -> Process:
        made = service_process(self._service, self._folder, self.local.root, listen, *self._flags)
        return self._stack.enter_context(made)

    def called(self) -> bool:
        """Says whether callers have found the process that runs now."""
        answered = r'handled_total\{grpc_code="OK",grpc_method="(Encode|Search)"'
        return bool(re.search(answered, read(self._metrics_port)))

    def replace(self) -> None:
        """Ends the process as a cluster does, and starts the next one."""
        code, log = self._process.stop()
        assert code == 0, log
        self._process = self._start(f"--listen={self.address}")

    def close(self) -> None:
        self._stack.close()


def bundle_command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "marquee.bundle", *arguments]


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    assert process.wait(DEADLINE_S) == 0


class Load:
    """Recommends until told to stop; a call that fails, or an answer that is degraded, ends the test."""

    def __init__(self, client: AsyncRecommender) -> None:
        self._client = client
        self._stopped = False
        self.answers: list[Recommendations] = []

    async def run(self, number: int) -> None:
        while not self._stopped:
            answer = await self._client.recommend(likes=[1, 4, 3 * number + 10], k=5)
            assert not answer.degraded, answer.away
            assert len(answer) == 5
            self.answers.append(answer)
            await asyncio.sleep(PAUSE_S)

    def stop(self) -> None:
        self._stopped = True

    async def goes_on(self) -> None:
        """Waits until each caller has had some more answers."""
        wanted = len(self.answers) + 4 * CALLERS
        await eventually(lambda: len(self.answers) >= wanted)


@contextlib.asynccontextmanager
async def pods_of(folder: Path, shared: Registry) -> AsyncIterator[list[Pod]]:
    store = f"--store={folder / 'features.sqlite'}"
    flags = {"user_encoder": [store], "retriever": []}
    made: list[Pod] = []
    try:
        for service in SERVICES:
            for number in range(REPLICAS):
                pod = await asyncio.to_thread(Pod, service, folder / f"{service}-{number}", shared, *flags[service])
                made.append(pod)
        yield made
    finally:
        for pod in made:
            await asyncio.to_thread(pod.close)


async def activate(shared: Registry, pods: Sequence[Pod]) -> None:
    """Repeats what the job of the manifests does until no replica refuses."""
    replicas = [f"--replica={pod.address}" for pod in pods]
    command = bundle_command("activate", f"--registry={shared.root}", *replicas)
    run = partial(subprocess.run, command, capture_output=True, text=True, cwd=ROOT, timeout=DEADLINE_S, check=False)
    async with asyncio.timeout(2 * DEADLINE_S):
        while (done := await asyncio.to_thread(run)).returncode:
            assert "is not loaded everywhere" in done.stderr, done.stderr


async def test_a_new_space_a_roll_back_and_a_new_version_fail_no_call(tmp_path: Path) -> None:
    old, new = (make_bundle(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    shared = publish(tmp_path / "shared", old)
    async with pods_of(tmp_path, shared) as pods:
        encoders, retrievers = ([pod.address for pod in pods[start : start + REPLICAS]] for start in (0, REPLICAS))
        async with AsyncRecommender(encoders, retrievers, deadline_s=CALL_S) as client:
            load = Load(client)
            async with asyncio.TaskGroup() as group:
                for number in range(CALLERS):
                    group.create_task(load.run(number))
                await roll_out(shared, pods, load, new.path)
                assert load.answers[-1].space == new.space
                for pod in pods:
                    await asyncio.to_thread(pod.replace)
                    # For this a cluster has minReadySeconds.
                    await eventually(partial(asyncio.to_thread, pod.called))
                shared.roll_back()
                await eventually(lambda: all(pod.local.read().active == old.id for pod in pods))
                await eventually(lambda: {answer.space for answer in load.answers[-4 * CALLERS :]} == {old.space})
                load.stop()
    assert {answer.space for answer in load.answers} == {old.space, new.space}


async def roll_out(shared: Registry, pods: Sequence[Pod], load: Load, bundle: Path) -> None:
    await load.goes_on()
    await asyncio.to_thread(shared.publish, bundle, check=None)
    await load.goes_on()
    await activate(shared, pods)
    active = shared.read().active
    await eventually(lambda: all(pod.local.read().active == active for pod in pods))
    await eventually(lambda: all(answer.bundle_id == active for answer in load.answers[-CALLERS:]))
