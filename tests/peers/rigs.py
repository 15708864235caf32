"""Servers that answer as a test wants it, over gRPC and over HTTP/1.1, and what to ask them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import BytesValue

from benchmarks.http2 import Target
from benchmarks.peers.load import IN_FLIGHT, Asking
from benchmarks.peers.questions import Form, json_form, rpc_form
from benchmarks.peers.served import rpc
from marquee.features import Floats

VECTORS = [np.eye(4, dtype=np.float32)[at] for at in range(3)]


class Answer(NamedTuple):
    """Is what a server answers to the request with this number: a vector, or an error in its place."""

    vector: Floats
    fails: bool = False


Answering = Callable[[int], Answer]


def right(number: int) -> Answer:
    """Answers what is right."""
    return Answer(VECTORS[number])


class _Rpc:
    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def Run(self, request: BytesValue, context: grpc.ServicerContext) -> BytesValue:  # noqa: N802
        answer = self._answering(request.value[0])
        if answer.fails:
            context.set_code(grpc.StatusCode.UNAVAILABLE)
        # With a status that is not OK the body goes out all the same.
        return BytesValue(value=answer.vector.tobytes())


@contextlib.contextmanager
def over_grpc(answering: Answering) -> Iterator[Asking]:
    """Serves over gRPC."""
    server = grpc.server(ThreadPoolExecutor(IN_FLIGHT), options=[("grpc.so_reuseport", 0)])
    rpc.add_to_server(_Rpc(answering), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        requests = [BytesValue(value=bytes([number])).SerializeToString() for number in range(len(VECTORS))]
        yield _asking(port, rpc_form(rpc.RUN, whole=False), requests, over_rpc=True)
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def over_http(answering: Answering) -> Iterator[Asking]:
    """Serves over HTTP/1.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body go out at once.
        wbufsize = -1

        def do_POST(self) -> None:
            number = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = answering(number)
            body = json.dumps({"vector": answer.vector.tolist()}).encode()
            self.send_response(503 if answer.fails else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = IN_FLIGHT

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            requests = [json.dumps(number).encode() for number in range(len(VECTORS))]
            yield _asking(server.server_port, json_form(whole=False, listed=False), requests, over_rpc=False)
        finally:
            server.shutdown()
            thread.join()


def _asking(port: int, form: Form, requests: list[bytes], *, over_rpc: bool) -> Asking:
    return Asking(Target(f"127.0.0.1:{port}", form.path, requests), over_rpc, form.read, VECTORS)
