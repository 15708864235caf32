"""How long a service takes to be SERVING, and how much memory it has then."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.machine import resident_bytes
from benchmarks.processes import BenchmarkFailed, Server
from benchmarks.report import Row
from benchmarks.work import Work, say

SERVICES = ("user_encoder", "retriever")
_STARTS = 5
_GOAL_S = 2.0
_CHECK_S = 5.0


class Start(NamedTuple):
    """Is one start: seconds to SERVING, and the resident memory then, None where the system does not say."""

    seconds: float
    resident: int | None


def measure(work: Work) -> list[Row]:
    """Starts each service several times on the bundle that was just trained."""
    rows = []
    for service in SERVICES:
        say(f"starting the {service} {_STARTS} times")
        rows.append(_row(service, [_start(work, service) for _ in range(_STARTS)]))
    return rows


def _start(work: Work, service: str) -> Start:
    with work.processes.serve(f"services.{service}", *work.arguments(service)) as server:
        _check_serving(server)
        return Start(server.ready_s, resident_bytes(server.child.process.pid))


def _check_serving(server: Server) -> None:
    """Asks the health service, after the clock was read: the port file is written once it says SERVING."""
    with grpc.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest()
        status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_CHECK_S).status
    if status != health_pb2.HealthCheckResponse.SERVING:
        raise BenchmarkFailed(f"{server.child.module} wrote its port file and is not SERVING; see services/common")


def _row(service: str, starts: Sequence[Start]) -> Row:
    seconds = [start.seconds for start in starts]
    resident = [start.resident for start in starts if start.resident is not None]
    memory = f"{statistics.median(resident) / 1e6:.0f} MB resident" if resident else "memory not known here"
    return Row(
        part="startup",
        measured=f"{service}: process start to SERVING",
        value=statistics.median(seconds),
        unit="s",
        goal=_GOAL_S,
        beside=f"median of {len(seconds)}, {min(seconds):.2f} to {max(seconds):.2f} s; {memory} then",
        details={"resident_bytes": resident},
        readings=seconds,
    )
