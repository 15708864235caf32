"""Asks whether the service of this container is ready: `python -m services.common.probe`.

For engines that have no probe of gRPC.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.health import READINESS, SERVING
from services.common.settings import ENVIRONMENT_PREFIX

_PORT = f"{ENVIRONMENT_PREFIX}HEALTH_PORT"
_TIMEOUT_S = 4.0


def main(environ: Mapping[str, str]) -> int:
    """Returns 0 where the service is ready, otherwise 1 with a sentence."""
    port = environ.get(_PORT, "")
    if not port:
        return _fail(f"{_PORT} is not set: set it, for the service and for this probe")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=READINESS)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            return _fail(f"port {port} does not answer ({error.code().name}); see the service's log")
    if answer.status != SERVING:
        return _fail("the service is not ready; see its log")
    return 0


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(os.environ))
