"""Both services in one server with answers that a test decides, and the load tester as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio
import numpy as np

from clients.loadtest.report import validate
from clients.loadtest.target import ENCODE, GET_INDEX, GET_MODEL, RECORD, SEARCH, TOP_MOVIES
from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2
from tests.rigs import ROOT

SPACE, DIMENSION, MOVIES = "a" * 8, 4, 100
VECTOR = np.array([1, 0, 0, 0], "<f4").tobytes()

Context = Any
Answer = Callable[[bytes, Context], Awaitable[bytes]]


class Scripted(grpc.GenericRpcHandler):
    """Answers as the services do; a test puts what it wants in the place of an answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes]] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.answers: dict[str, Answer] = {path: _canned(answer) for path, answer in canned_answers().items()}

    def service(self, handler_call_details: Any) -> Any:
        """Finds what answers a method."""
        path = handler_call_details.method
        if path not in self.answers:
            return None

        async def answer(request: bytes, context: Context) -> bytes:
            self.calls.append((path, request))
            self.metadata.append(dict(context.invocation_metadata()))
            return await self.answers[path](request, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    def answer(self, path: str, message: Any) -> None:
        """Makes a message the answer of a method."""
        self.answers[path] = _canned(message.SerializeToString())

    def asked(self, path: str) -> list[bytes]:
        """Lists the requests that came for a method."""
        return [request for called, request in self.calls if called == path]


def _canned(answer: bytes) -> Answer:
    async def give(request: bytes, context: Context) -> bytes:
        return answer

    return give


def canned_answers() -> dict[str, bytes]:
    """Writes what each method answers until a test wants something else."""
    bundle = types_pb2.LoadedBundle(space=SPACE, bundle_id="b" * 64, dimension=DIMENSION, movies=MOVIES)
    state = types_pb2.ReplicaState(bundles=[bundle])
    encoded = user_encoder_pb2.EncodeResponse(vector=VECTOR, space=SPACE, source="FEATURE_SOURCE_STORE")
    ids = range(1, 11)
    movies = [types_pb2.Movie(movie_id=number, title="Alien", rating_count=number) for number in ids]
    found = retriever_pb2.SearchResponse(movie_ids=ids, scores=[0.5] * 10, movies=movies, space=SPACE)
    messages = {
        GET_MODEL: user_encoder_pb2.GetModelResponse(state=state),
        GET_INDEX: retriever_pb2.GetIndexResponse(state=state),
        TOP_MOVIES: catalog_pb2.TopMoviesResponse(movies=movies),
        ENCODE: encoded,
        SEARCH: found,
        RECORD: live_features_pb2.RecordEventsResponse(recorded=1),
    }
    return {path: message.SerializeToString() for path, message in messages.items()}


@contextlib.asynccontextmanager
async def serving(script: Scripted, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[str]:
    """Serves a script on a free port, over TLS where there are credentials; is its address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((script,))
    listen = "127.0.0.1:0"
    port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


class Finished(NamedTuple):
    """Is how the load tester ended, and the report that it wrote, {} where it wrote none."""

    code: int
    out: str
    err: str
    report: dict[str, Any]
    page: str


async def start(
    address: str, folder: Path, *arguments: str, stderr: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    """Starts the load tester on one address for both services, without a warm-up to speak of, in a group of its own."""
    told = (f"--encoder={address}", f"--retriever={address}", f"--out={folder}", "--warm-up=200ms", *arguments)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "clients.loadtest", *told),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )


def press_ctrl_c(process: asyncio.subprocess.Process) -> None:
    """Interrupts it as a terminal does: every process of the group."""
    os.killpg(process.pid, signal.SIGINT)


async def finish(process: asyncio.subprocess.Process, folder: Path) -> Finished:
    """Waits for its end; a report must be as its schema says."""
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    report, page = {}, ""
    if (folder / "report.json").exists():
        report = json.loads((folder / "report.json").read_text())
        validate(report)
        page = (folder / "report.html").read_text()
    return Finished(process.returncode, out.decode(), (err or b"").decode(), report, page)


async def load_test(address: str, folder: Path, *arguments: str) -> Finished:
    """Runs the load tester to its end."""
    return await finish(await start(address, folder, *arguments), folder)
