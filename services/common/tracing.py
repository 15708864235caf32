"""Traces: a span for every call and for each of its stages, sent to a collector over OTLP.

Imported only where --otlp-endpoint asks for it: OpenTelemetry is an extra (`tracing`). Which trace a call belongs to,
and whether it is recorded, is its caller's to say, by W3C's Trace Context; of other calls a share is.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from typing import Any

import grpc
from opentelemetry.context import Context as Parent
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from marquee import __version__
from services.common.interceptors import Call, Context, given_up, metadata_of_call, request_id_in
from services.common.measures import Kinds, Sizes, listen
from services.common.settings import CommonSettings
from services.common.trace_ids import TRACEPARENT, TRACESTATE, name_trace

_W3C = TraceContextTextMapPropagator()
_KEYS = (TRACEPARENT, TRACESTATE)
# Those that are the service's fault and not its caller's, as OpenTelemetry's conventions for RPC servers have it.
_FAULTS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
# They warn of what is wrong with a caller's metadata, in the caller's words, and before it is known who calls.
_TALKATIVE = ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext")
# A collector is reached directly, as the services are.
_NO_PROXY: Any = (("grpc.enable_http_proxy", 0),)
# What a collector gets to take a batch of spans, and, when the service stops, all that wait; seconds.
_EXPORT_S = 2.0


class _Recording:
    """Is the span of a call that is recorded: what is said of the call becomes attributes, and stages its children."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._here = set_span_in_context(span, Parent())
        self._counts: Counter[str] = Counter()

    def stage_ended(self, name: str, seconds: float) -> None:
        """Adds a child, now that it is known when it began."""
        ended_ns = time.time_ns()
        child = self._tracer.start_span(name, self._here, start_time=ended_ns - round(seconds * 1e9))
        child.end(ended_ns)

    def observed(self, sizes: Sizes, value: float) -> None:
        """Keeps a number; of several the last."""
        # What calls have done together is said by one of them, which may have been given up before.
        if self._span.is_recording():
            self._span.set_attribute(f"marquee.{sizes.name}", value)

    def counted(self, kinds: Kinds, kind: str, times: int) -> None:
        """Adds to a number."""
        self._counts[f"marquee.{kinds.name}.{kind.replace(' ', '_')}"] += times

    def end(self, code: grpc.StatusCode | None, request_id: str) -> None:
        """Ends the span; no code is OK."""
        self._span.set_attributes(dict(self._counts))
        self._span.set_attribute("rpc.response.status_code", "OK" if code is None else code.name)
        if request_id:
            self._span.set_attribute("marquee.request_id", request_id)
        if code in _FAULTS:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracing:
    """Makes spans of a service's calls, and sends them in the background; what a collector does not take is lost."""

    def __init__(self, service: str, settings: CommonSettings) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.trace_share)),
            resource=Resource.create(
                {"service.name": service, "service.namespace": "marquee", "service.version": __version__}
            ),
            shutdown_on_exit=False,
        )
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        exporter = OTLPSpanExporter(settings.otlp_endpoint, timeout=_EXPORT_S, channel_options=_NO_PROXY)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("marquee", __version__)

    def stage(self, method: str, call: Call) -> Call:
        """Is the stage that makes a span of each call."""
        name = method.removeprefix("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}

        async def traced(request: Any, context: Context) -> Any:
            carrier = {key: value for key, value in metadata_of_call() if key in _KEYS}
            parent = _W3C.extract(carrier, Parent())
            span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
            name_trace(format_trace_id(span.get_span_context().trace_id))
            if not span.is_recording():
                return await call(request, context)
            recording = _Recording(self._tracer, span)
            listen(recording)
            began = time.perf_counter()
            cancelled: grpc.StatusCode | None = None
            try:
                return await call(request, context)
            except asyncio.CancelledError:
                cancelled = given_up(context, time.perf_counter() - began)
                raise
            finally:
                recording.end(cancelled or context.code(), request_id_in(request))

        return traced

    def close(self) -> None:
        """Sends what waits, for as long as a batch may take; what is left then is lost."""
        # By itself it tries for half a minute.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_EXPORT_S)
