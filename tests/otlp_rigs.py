"""Receives traces as an OpenTelemetry collector does, in this process on a real socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2


class Seen(NamedTuple):
    """Is a span that was received; ids are hexadecimal, and `parent` is "" for the first of a trace."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, object]
    failed: bool
    message: trace_pb2.Span


class Collector(service.TraceServiceServicer):
    """Keeps the spans that it receives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Seen] = []
        self.endpoint = ""

    def Export(  # noqa: N802
        self, request: messages.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> messages.ExportTraceServiceResponse:
        with self._lock:
            for resource in request.resource_spans:
                name = str(_read(resource.resource.attributes)["service.name"])
                self._spans += [_seen(name, span) for scope in resource.scope_spans for span in scope.spans]
        return messages.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Seen]:
        """Lists what has come, in the order of beginning."""
        with self._lock:
            return sorted(self._spans, key=lambda span: span.message.start_time_unix_nano)


def _seen(name: str, span: trace_pb2.Span) -> Seen:
    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    kind = trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
    failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return Seen(name, span.name, kind, *ids, _read(span.attributes), failed, span)


def _read(attributes: object) -> dict[str, object]:
    pairs: list[common_pb2.KeyValue] = list(attributes)  # type: ignore[call-overload]
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Runs a collector on a free port."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    service.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
