"""The health service, `grpc.health.v1`, with Watch streams that end when the server drains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


# Names that probes ask for: whether the process should be restarted, and whether it should be sent calls.
LIVENESS, READINESS = "liveness", "readiness"


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """Answers for each service and, under "" and `READINESS`, for the whole process.

    Starts as NOT_SERVING, but for `LIVENESS`, which is always SERVING: who answers at all is alive. Belongs to one
    event loop.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._names = frozenset(("", READINESS, LIVENESS, *services))
        self._status = NOT_SERVING
        self._closed = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Sets the status of all names and tells every watcher."""
        self._status = SERVING if serving else NOT_SERVING
        self._wake()

    def close(self) -> None:
        """Ends every Watch stream, now and from now on: an open one would hold `server.stop` for its whole grace."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        if service == LIVENESS:
            return health_pb2.HealthCheckResponse(status=SERVING)
        return health_pb2.HealthCheckResponse(status=self._status if service in self._names else SERVICE_UNKNOWN)

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """Answers once; NOT_FOUND for a service that this process does not have."""
        if request.service not in self._names:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"this server has no service {request.service[:100]!r}; ask for one of {sorted(self._names)}",
            )
        return self._answer(request.service)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answers now and at every change, until the server drains."""
        last = None
        while True:
            changed, answer = self._changed, self._answer(request.service)
            if answer != last:
                last = answer
                yield answer
            if self._closed:
                return
            await changed.wait()

    async def List(  # noqa: N802
        self, request: health_pb2.HealthListRequest, context: _Context
    ) -> health_pb2.HealthListResponse:
        """Answers for every name."""
        return health_pb2.HealthListResponse(statuses={name: self._answer(name) for name in self._names})
