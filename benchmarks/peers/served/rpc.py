"""The one rpc that is asked for bare: bytes of the tower's input in, bytes of the vector out."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

_SERVICE = "benchmarks.Tower"
RUN = f"/{_SERVICE}/Run"


def add_to_server(servicer: Any, server: Any) -> None:
    """Adds the rpc to a server, as generated code would."""
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.Run, request_deserializer=BytesValue.FromString, response_serializer=BytesValue.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Run": handler}),))
