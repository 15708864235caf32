"""Servers that do a part of what a service does: `python -m benchmarks.layers --layer transport|messages|engine`.

Each answers one rpc as the service has answered one request. What each does:

- transport: gRPC alone; the answer is bytes that were made before.
- messages: besides, the request is parsed, and the answer made of its fields and written. Nothing is read of the one.
- engine: besides, ONNX Runtime, FAISS or, for batches and long lists, BLAS does what it did for the service.

What the service takes beside the last of them is Python: ours, and NumPy's that ours calls.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import faiss
import grpc.aio
import numpy as np
import uvloop
from google.protobuf.message import Message

from benchmarks.floor import run_server
from benchmarks.noting import NotingEncoder, NotingFlat
from marquee.bundle.format import INDEX
from marquee.bundle.registry import Registry
from marquee.engine.encoder import Encoder
from marquee.engine.index import use_blas_threads, use_threads
from marquee.engine.kinds import EXACT
from marquee.errors import ConfigError
from marquee.features import Floats
from marquee.v1 import retriever_pb2, user_encoder_pb2
from services.common.server import spare_the_collector
from services.common.server_options import server_options
from services.common.settings import CommonSettings
from services.common.spaces import Spaces
from services.retriever.queries import read_vector
from services.retriever.retrieval import Retrieval
from services.retriever.servicer import RetrieverServicer
from services.retriever.settings import RetrieverSettings
from services.user_encoder.ladder import Ladder
from services.user_encoder.servicer import UserEncoderServicer
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.opening import open_store

TRANSPORT, MESSAGES, ENGINE = "transport", "messages", "engine"
LAYERS = (TRANSPORT, MESSAGES, ENGINE)
ENCODE, BATCH_ENCODE = (f"/marquee.v1.UserEncoderService/{name}" for name in ("Encode", "BatchEncode"))
SEARCH, BATCH_SEARCH = (f"/marquee.v1.RetrieverService/{name}" for name in ("Search", "BatchSearch"))
_REQUESTS: dict[str, type[Message]] = {
    ENCODE: user_encoder_pb2.EncodeRequest,
    BATCH_ENCODE: user_encoder_pb2.BatchEncodeRequest,
    SEARCH: retriever_pb2.SearchRequest,
    BATCH_SEARCH: retriever_pb2.BatchSearchRequest,
}


class Answered(NamedTuple):
    """Is what a service answered to a request, and what its engine did for that."""

    answer: Message
    engine: Callable[[], object]


async def _encode(registry: Path, method: str, request: Any) -> Answered:
    settings = UserEncoderSettings(registry=registry, store=str(registry.with_suffix(".layers.sqlite")))
    async with aclosing(open_store(settings)) as store:
        spaces: Spaces[Encoder] = Spaces(Registry(registry), NotingEncoder, settings)
        await spaces.start()
        answer = await _ask(UserEncoderServicer(spaces, Ladder(store, settings)), method, request)
    encoder = cast("NotingEncoder", spaces.get("").model)
    return Answered(answer, lambda: [encoder.session.run(None, feeds) for feeds in encoder.noted])


async def _search(registry: Path, method: str, request: Any) -> Answered:
    settings = RetrieverSettings(registry=registry)
    use_threads(settings.threads)
    use_blas_threads(settings.threads)
    spaces = Spaces(Registry(registry), Retrieval, settings)
    await spaces.start()
    loaded = spaces.get("")
    flat = noted_searches(loaded.model, loaded.bundle.file(INDEX))
    answer = await _ask(RetrieverServicer(spaces), method, request)
    vectors = [query.vector for query in request.queries] if method == BATCH_SEARCH else [request.vector]
    again: Sequence[Callable[[], object]] = flat.noted or list(products(loaded.model, vectors))
    return Answered(answer, lambda: [search() for search in again])


async def _ask(servicer: object, method: str, request: Message) -> Message:
    unread: Any = None
    answer: Message = await getattr(servicer, method.rpartition("/")[2])(request, unread)
    return answer


def noted_searches(model: Retrieval, index: Path) -> NotingFlat:
    """Puts an engine that notes its searches in place of an exact index's own."""
    if model.index.kind != EXACT:
        raise ConfigError(f"the bundle's index is {model.index.kind}: profile data with few enough movies to be exact")
    flat = NotingFlat(faiss.read_index(str(index)))
    model.index = model.index.asking(EXACT, flat)
    return flat


def products(model: Retrieval, vectors: Sequence[bytes]) -> Iterator[Callable[[], Floats]]:
    """Lists the matrix products that batches and long lists are, where nothing is filtered or left out."""
    index = model.index
    queries_QD = np.stack([read_vector(vector, index.dimension, "") for vector in vectors])
    vectors_ND = index.vectors(index.movie_ids)
    for start in range(0, len(queries_QD), index.together):
        yield partial(np.matmul, queries_QD[start : start + index.together], vectors_ND.T)


def fields_of(message: Message) -> dict[str, Any]:
    """Lists what a message was made of, so that it can be made again."""
    return {field.name: _plain(value) for field, value in message.ListFields()}


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return fields_of(value)
    return value if isinstance(value, (bytes, str, int, float)) else [_plain(each) for each in value]


def _handler(layer: str, request: type[Message], answered: Answered) -> Any:
    made, fields, written = type(answered.answer), fields_of(answered.answer), answered.answer.SerializeToString()

    async def transport(request: bytes, context: object) -> bytes:
        return written

    async def messages(request: Message, context: object) -> Message:
        return made(**fields)

    async def engine(request: Message, context: object) -> Message:
        answered.engine()
        return made(**fields)

    if layer == TRANSPORT:
        return grpc.unary_unary_rpc_method_handler(transport)
    return grpc.unary_unary_rpc_method_handler(
        messages if layer == MESSAGES else engine,
        request_deserializer=request.FromString,
        response_serializer=made.SerializeToString,
    )


async def serve(options: argparse.Namespace) -> None:
    """Serves until a signal comes."""
    kind, (_, service, name) = _REQUESTS[options.method], options.method.split("/")
    ask = _encode if options.method in (ENCODE, BATCH_ENCODE) else _search
    answered = await ask(options.registry, options.method, kind.FromString(options.request.read_bytes()))
    server = grpc.aio.server(options=server_options(CommonSettings()))
    handlers = {name: _handler(options.layer, kind, answered)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    await run_server(server, options.listen, options.port_file)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__)
    parser.add_argument("--layer", choices=LAYERS, required=True, help="how much to do")
    parser.add_argument("--registry", type=Path, required=True, help="registry whose active bundle answers")
    parser.add_argument("--method", choices=_REQUESTS, required=True, help="path of the method")
    parser.add_argument("--request", type=Path, required=True, help="file of one request")
    parser.add_argument("--listen", default="127.0.0.1:0", help="address to listen on (%(default)s)")
    parser.add_argument("--port-file", type=Path, required=True, help="file that gets the bound port")
    options = parser.parse_args(arguments)
    spare_the_collector()
    uvloop.run(serve(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
