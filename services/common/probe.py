"""Asks whether the service of this container is ready: `python -m services.common.probe`.

For engines that have no probe of gRPC. It is told where to ask as the service is told where to listen: by the
environment or, where the service has flags, by the same flags.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.health import READINESS, SERVING
from services.common.settings import ENVIRONMENT_PREFIX, join_address, split_address

_LISTEN, _PORT = f"{ENVIRONMENT_PREFIX}LISTEN", f"{ENVIRONMENT_PREFIX}HEALTH_PORT"
_ANY_LOOPBACK = "127.0.0.1"
_TIMEOUT_S = 4.0
# A proxy in the environment is for the way out of the container.
_OPTIONS = (("grpc.enable_http_proxy", 0),)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Returns 0 where the service is ready, otherwise 1 with a sentence."""
    told = _parser(environ).parse_args(arguments)
    try:
        address = _address(told.listen, told.health_port)
    except ValueError as error:
        return _fail(str(error))
    with grpc.insecure_channel(address, _OPTIONS) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=READINESS)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            return _fail(f"{address} does not answer ({error.code().name}); see the service's log")
    if answer.status != SERVING:
        return _fail("the service is not ready; see its log")
    return 0


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.common.probe", description=__doc__, allow_abbrev=False)
    listen, port = environ.get(_LISTEN) or f"{_ANY_LOOPBACK}:0", environ.get(_PORT, "")
    parser.add_argument("--listen", metavar="HOST:PORT", default=listen, help=f"the service's; {_LISTEN}")
    parser.add_argument("--health-port", metavar="PORT", default=port, help=f"the service's; {_PORT}")
    return parser


def _address(listen: str, health_port: str) -> str:
    """Finds where the service answers; raises ValueError with the cure."""
    if health_port in ("", "0"):
        raise ValueError(f"{_PORT} is not set, or 0: set it to a port, for the service and for this probe")
    try:
        host, _ = split_address(listen)
        _, port = split_address(f"{_ANY_LOOPBACK}:{health_port}")
    except ValueError as error:
        raise ValueError(f"--listen {listen}, --health-port {health_port}: an address {error}") from error
    return join_address(_ANY_LOOPBACK if _is_any(host) else host, port)


def _is_any(host: str) -> bool:
    """Says whether who listens there listens on every address of the machine, of IPv4 as well."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))
