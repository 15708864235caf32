"""Ray Serve over gRPC: one replica behind its proxy, with its settings for throughput."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import ray
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve
from ray.serve.config import gRPCOptions

from benchmarks.peers.served.model import MOST_TOGETHER, WAIT_S, Asked, Model, Settings, unpacked_tower
from marquee.v1.user_encoder_pb2 import EncodeRequest, EncodeResponse

_RPCS = (
    "marquee.v1.user_encoder_pb2_grpc.add_UserEncoderServiceServicer_to_server",
    "benchmarks.peers.served.rpc.add_to_server",
)
# Calls that the replica may have at once: more than the load has in flight.
_AT_ONCE = 256
_OBJECTS_BYTES = 100 << 20


class Alone:
    """Answers calls one by one."""

    def __init__(self, settings: Settings) -> None:
        self._model = Model(settings.bundle)

    async def Encode(self, request: EncodeRequest) -> EncodeResponse:  # noqa: N802
        """Encodes a person."""
        return self._model.response(self._model.encode(Asked(request.events, request.as_of_ms)))

    async def Run(self, request: BytesValue) -> BytesValue:  # noqa: N802
        """Runs the tower."""
        return BytesValue(value=self._model.run(unpacked_tower(request.value)).tobytes())


class Together(Alone):
    """Answers calls that Ray has put together."""

    @serve.batch(max_batch_size=MOST_TOGETHER, batch_wait_timeout_s=WAIT_S)
    async def Encode(self, many: list[EncodeRequest]) -> list[EncodeResponse]:  # noqa: N802
        """Encodes people."""
        asked = [Asked(request.events, request.as_of_ms) for request in many]
        return [self._model.response(encoded) for encoded in self._model.encode_together(asked)]

    @serve.batch(max_batch_size=MOST_TOGETHER, batch_wait_timeout_s=WAIT_S)
    async def Run(self, many: list[BytesValue]) -> list[BytesValue]:  # noqa: N802
        """Runs the tower."""
        vectors = self._model.run_together([unpacked_tower(request.value) for request in many])
        return [BytesValue(value=vector.tobytes()) for vector in vectors]


def start(settings: Settings) -> None:
    """Starts Ray on this machine alone, and the replica."""
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=_OBJECTS_BYTES,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        # The benchmark's folder, which goes with all that is in it.
        _temp_dir=str(Path.home() / "ray"),
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": 0},
        grpc_options=gRPCOptions(port=settings.port, grpc_servicer_functions=list(_RPCS)),
    )
    kind: Any = Together if settings.together else Alone
    deployment = serve.deployment(num_replicas=1, max_ongoing_requests=_AT_ONCE)(kind)
    serve.run(deployment.bind(settings))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        start(Settings.read())
        threading.Event().wait()
    ray.shutdown()
