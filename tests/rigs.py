"""Runs the retriever for tests: in this process on a real socket, or as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import grpc.aio

from marquee.bundle.format import Bundle
from marquee.bundle.registry import Registry
from marquee.errors import MarqueeError, StoreUnavailable, from_rpc
from marquee.v1 import catalog_pb2_grpc, retriever_pb2_grpc
from services.common.server import Life
from services.common.spaces import Spaces
from services.retriever.block_list import BlockList
from services.retriever.milvus import Milvus
from services.retriever.retrieval import Retrieval
from services.retriever.servicer import SERVICES, add_servicers
from services.retriever.settings import RetrieverSettings

DEADLINE_S = 30.0
ROOT = Path(__file__).parent.parent


def publish(root: Path, bundle: Bundle, *, activate: bool = True) -> Registry:
    """Puts a bundle into a registry, gate or no gate, and makes it active."""
    registry = Registry(root)
    registry.publish(bundle.path, check=None)
    if activate:
        registry.activate(bundle.id, confirm=None)
    return registry


class Rig(NamedTuple):
    """Is a retriever that serves in this process. Nobody watches the registry: tests call `spaces.poll`."""

    life: Life
    spaces: Spaces[Retrieval]
    channel: grpc.aio.Channel
    search: retriever_pb2_grpc.RetrieverServiceAsyncStub
    catalog: catalog_pb2_grpc.CatalogServiceAsyncStub


@contextlib.asynccontextmanager
async def retriever(
    registry: Path, block_list: BlockList | None = None, milvus: Milvus | None = None, **settings: Any
) -> AsyncIterator[Rig]:
    """Serves a registry on a free port; the block list is not watched either."""
    told = RetrieverSettings(listen="127.0.0.1:0", registry=registry, drain_s=0.0, **{"grace_s": 5.0, **settings})
    async with Life(told, SERVICES) as life:
        load = partial(Retrieval, threads=1, block_list=block_list, milvus=milvus)
        spaces = Spaces(Registry(registry), load, told)
        await spaces.start()
        add_servicers(spaces, life.server)
        running = asyncio.ensure_future(life.run())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{life.port}") as channel:
            await channel.channel_ready()
            yield Rig(
                life,
                spaces,
                channel,
                cast("retriever_pb2_grpc.RetrieverServiceAsyncStub", retriever_pb2_grpc.RetrieverServiceStub(channel)),
                cast("catalog_pb2_grpc.CatalogServiceAsyncStub", catalog_pb2_grpc.CatalogServiceStub(channel)),
            )
        life.stop()
        await running


async def eventually(done: Callable[[], bool | Awaitable[bool]], patience_s: float = DEADLINE_S) -> None:
    """Waits until something is so; a store that is unavailable meanwhile says that it is not yet so."""
    async with asyncio.timeout(patience_s):
        while not await _is_so(done):
            await asyncio.sleep(0.02)


async def _is_so(done: Callable[[], bool | Awaitable[bool]]) -> bool:
    try:
        said = done()
        return said if isinstance(said, bool) else await said
    except StoreUnavailable:
        return False


def error_of(failure: grpc.aio.AioRpcError) -> MarqueeError:
    """Reads the error that a failed call carries in its trailers."""
    trailers = failure.trailing_metadata()
    details = dict(trailers or ()).get("grpc-status-details-bin")
    assert isinstance(details, bytes), f"no details came with {failure.code()}: {failure.details()}"
    return from_rpc(failure.code(), failure.details() or "", details)


class Process(NamedTuple):
    """Is a service's process and where it listens."""

    process: subprocess.Popen[str]
    port: int

    def stop(self) -> tuple[int, str]:
        """Sends SIGTERM and waits; returns the exit code and what was logged."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, log


def run_retriever(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a retriever that is expected to end by itself."""
    return run_service_process("retriever", *arguments)


def run_service_process(service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a service that is expected to end by itself."""
    return subprocess.run(
        _command([f"services.{service}"], arguments),
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def retriever_process(folder: Path, registry: Path, *arguments: str) -> contextlib.AbstractContextManager[Process]:
    """Starts a retriever process on a free port and waits until it is SERVING."""
    return service_process("retriever", folder, registry, *arguments)


@contextlib.contextmanager
def service_process(
    service: str, folder: Path, registry: Path, *arguments: str, own_session: bool = False
) -> Iterator[Process]:
    """Starts a service's process on a free port and waits until it is SERVING; see `module_process`."""
    with module_process([f"services.{service}"], folder, registry, *arguments, own_session=own_session) as process:
        yield process


@contextlib.contextmanager
def module_process(
    words: Sequence[str], folder: Path, registry: Path, *arguments: str, own_session: bool = False
) -> Iterator[Process]:
    """Starts a service by a module of any name, with words of its own before the settings, and waits until it serves.

    Linux shares a busy CPU out among sessions (autogroup): with `own_session` it takes none of what is its caller's,
    as on a machine of its own. It then outlives a caller that is killed together with its processes.
    """
    port_file = folder / f"port-{time.monotonic_ns()}"
    told = ["--listen=127.0.0.1:0", f"--registry={registry}", f"--port-file={port_file}", *arguments]
    command, environment = _command(words, told), _environment()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=own_session
    )
    try:
        yield Process(process, _await_port(process, port_file))
    finally:
        process.kill()
        process.communicate()


def _command(words: Sequence[str], arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-W", "error", "-m", *words, *arguments]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}


def _await_port(process: subprocess.Popen[str], port_file: Path) -> int:
    deadline = time.monotonic() + DEADLINE_S
    while not port_file.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the service did not come up"
        time.sleep(0.02)
    return int(port_file.read_text())
