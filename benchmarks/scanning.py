"""Bare FAISS behind an empty handler: `python -m benchmarks.scanning` searches the same batch at every call.

It reads nothing and writes nothing, as the floor: an answer takes one search by FAISS of queries that are there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import faiss
import grpc.aio
import numpy as np
import uvloop

from benchmarks.floor import Context, Floor, run_server
from marquee.engine.index import use_threads
from marquee.features import Floats
from marquee.v1 import retriever_pb2


class Scanning(Floor):
    """Is a floor that has FAISS search a batch before it answers."""

    def __init__(self, index: faiss.Index, queries_QD: Floats, k: int) -> None:
        super().__init__()
        self._index, self._queries_QD, self._k = index, queries_QD, k

    async def _answer(self, request: bytes, context: Context) -> bytes:
        self._index.search(self._queries_QD, self._k)
        return self._response


async def serve(listen: str, port_file: Path, index: Path, request: Path) -> None:
    """Serves until a signal comes."""
    use_threads(1)
    batch = retriever_pb2.BatchSearchRequest.FromString(request.read_bytes())
    queries_QD = np.stack([np.frombuffer(query.vector, "<f4") for query in batch.queries])
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    scanning = Scanning(faiss.read_index(str(index)), queries_QD, batch.queries[0].k)
    server.add_generic_rpc_handlers((scanning,))
    await run_server(server, listen, port_file)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scanning", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0", help="address to listen on (%(default)s)")
    parser.add_argument("--port-file", type=Path, required=True, help="file that gets the bound port")
    parser.add_argument("--index", type=Path, required=True, help="file of a FAISS index")
    parser.add_argument("--request", type=Path, required=True, help="file of a BatchSearchRequest")
    options = parser.parse_args(arguments)
    uvloop.run(serve(options.listen, options.port_file, options.index, options.request))
    return 0


if __name__ == "__main__":
    sys.exit(main())
