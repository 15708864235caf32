"""Spans of what the SDK does, where its user gives a tracer provider of OpenTelemetry's.

A method is a span, each of its calls another one inside, and W3C's Trace Context goes with each call. Without a
provider nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeAlias

import grpc

from marquee import __version__
from marquee.client.rpcs import Rpc
from marquee.errors import MarqueeError, RemoteError

Metadata: TypeAlias = tuple[tuple[str, str], ...]


class TracerProvider(Protocol):
    """Makes tracers, as OpenTelemetry's providers do."""

    def get_tracer(self, name: str, version: str | None = None, /) -> Any:
        """Makes the tracer of a library."""


class Spans(Protocol):
    """Says around what to do a method and a call."""

    def method(self, name: str) -> AbstractContextManager[None]:
        """Surrounds a method of the SDK."""

    def call(self, rpc: Rpc[Any, Any]) -> AbstractContextManager[Metadata]:
        """Surrounds a call; gives the metadata to send with it."""


def spans_of(provider: TracerProvider | None, metadata: Metadata) -> Spans:
    """Makes spans with a provider, or none without one; `metadata` goes with every call."""
    return _NoSpans(metadata) if provider is None else _Spans(provider, metadata)


class _NoSpans:
    """Surrounds with nothing."""

    def __init__(self, metadata: Metadata) -> None:
        self._method, self._call = nullcontext(), nullcontext(metadata)

    def method(self, name: str) -> AbstractContextManager[None]:
        return self._method

    def call(self, rpc: Rpc[Any, Any]) -> AbstractContextManager[Metadata]:
        return self._call


class _Spans:
    """Surrounds with spans; what fails has its status and no text, which might name a person."""

    def __init__(self, provider: TracerProvider, metadata: Metadata) -> None:
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("marquee.client", __version__)
        self._metadata = metadata
        self._w3c = TraceContextTextMapPropagator()
        self._client, self._error = SpanKind.CLIENT, StatusCode.ERROR

    @contextmanager
    def method(self, name: str) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            f"marquee.{name}", record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except MarqueeError:
                span.set_status(self._error)
                raise

    @contextmanager
    def call(self, rpc: Rpc[Any, Any]) -> Iterator[Metadata]:
        with self._tracer.start_as_current_span(
            rpc.name,
            kind=self._client,
            attributes={"rpc.system.name": "grpc", "rpc.method": rpc.name},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            carrier: dict[str, str] = {}
            self._w3c.inject(carrier)
            code = grpc.StatusCode.CANCELLED
            try:
                yield (*self._metadata, *carrier.items())
                code = grpc.StatusCode.OK
            except MarqueeError as error:
                code = error.remote_code if isinstance(error, RemoteError) else error.code
                span.set_status(self._error)
                raise
            finally:
                span.set_attribute("rpc.response.status_code", code.name)
