"""The chain that every call goes through on its way to its servicer, as one interceptor.

From outside:

    tracing → access log → telemetry → errors → guard → deadline → limiter → servicer

- Tracing, the access log and the telemetry are outermost: they see what was refused further in, with its status.
  Tracing comes first, so that what is logged has a trace.
- Errors come next: whatever is raised inside, by a stage or by a servicer, is translated once, here.
- The guard says who may call, before anything is spent on the call: before it takes a place in a queue.
- The deadline is capped before the limiter, which drops from its queue what has expired.

A stage takes a method and what comes after it, and returns what to call in its place. Stages are put together once a
method, not once a call: each is a coroutine more, about 0.2 µs, where each interceptor of grpc.aio costs several.
Health is exempt from the whole chain: whoever asks for it must learn it under load, and without a key. Bytes that are
no request of their method pass the chain like one, and are refused where the servicer would get them.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from marquee.errors import DETAILS_KEY, InvalidRequest, MarqueeError, Overloaded, to_status
from services.common.requests import MAX_REQUEST_ID_BYTES, request_id_of_call

_log = logging.getLogger(__name__)

# Quoted: only the stubs know these as generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Call: TypeAlias = "Callable[[Any, Context], Awaitable[Any]]"
# Is given the method's path, "/package.Service/Method", and what comes after the stage.
Stage: TypeAlias = Callable[[str, Call], Call]
# Is given the method's path, and returns what raises where a caller may not call it.
Guard: TypeAlias = "Callable[[str], Callable[[Context], None]]"

# Stands for a request whose bytes are none.
_UNREADABLE = object()
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_ATTEMPTS_KEY = "grpc-previous-rpc-attempts"
# How much later than the caller's the deadline may be that gRPC writes into a call: by a millisecond, and from a second
# on by a hundredth; twice that, for a caller that is quick.
_LATER_S, _LATER_PART = 0.002, 0.02
# The metadata that the call of this context came with.
_metadata: ContextVar[Sequence[tuple[str, str | bytes]]] = ContextVar("metadata", default=())

HEALTH_PREFIX = "/grpc.health.v1.Health/"


def metadata_of_call() -> Sequence[tuple[str, str | bytes]]:
    """Returns the metadata of the call that runs here; a context would make them anew, which takes far longer."""
    return _metadata.get()


class Chain(grpc.aio.ServerInterceptor):
    """Wraps every unary method in `stages`, the first of them outermost, and streams in the guard alone.

    The only streams beside the health's are reflection's.
    """

    def __init__(self, stages: Sequence[Stage], guard: Guard | None = None) -> None:
        self._stages = tuple(stages)
        self._guard = guard
        # method → (handler, the handler wrapped): wrapped once a method, not once a call. Unknown methods never get in.
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}
        # Calls that have come this far, of any method, and how many of them are not their caller's first attempt.
        self.begun = self.retried = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Finds the method's handler and returns it wrapped."""
        self.begun += 1
        metadata = handler_call_details.invocation_metadata
        _metadata.set(metadata)
        for key, _ in metadata:
            if key == _ATTEMPTS_KEY:
                self.retried += 1
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        if handler is None:
            return None
        wrapped = _readable(handler, method) if method.startswith(HEALTH_PREFIX) else self._wrap(handler, method)
        self._wrapped[method] = handler, wrapped
        return wrapped

    def _wrap(self, handler: Handler, method: str) -> Handler:
        if handler.unary_unary is None:
            return handler if self._guard is None else _guarded_stream(handler, method, self._guard(method))
        return _unary(handler, method, self._stages)


def _unary(handler: Handler, method: str, stages: Sequence[Stage]) -> Handler:
    call: Call = handler.unary_unary  # type: ignore[assignment]
    for stage in reversed((*stages, _refusing_unreadable)):
        call = stage(method, call)
    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=_lenient(handler),
        response_serializer=handler.response_serializer,
    )


def _lenient(handler: Handler) -> Callable[[bytes], Any] | None:
    """Reads requests as a handler does; where gRPC would log a traceback and answer UNKNOWN, gives `_UNREADABLE`."""
    strict = handler.request_deserializer
    if strict is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return strict(data)
        except DecodeError:
            return _UNREADABLE

    return read


def _refusing_unreadable(method: str, call: Call) -> Call:
    """Is the innermost stage."""

    async def readable(request: Any, context: Context) -> Any:
        if request is _UNREADABLE:
            raise _no_request(method)
        return await call(request, context)

    return readable


def _no_request(method: str) -> InvalidRequest:
    return InvalidRequest(
        f"the bytes that came are no request of {method}; write it with the stubs of the same protos as the service's"
    )


def _readable(handler: Handler, method: str) -> Handler:
    """Returns a handler of the health's that refuses what is no request, and has nothing else of the chain."""
    if handler.unary_stream is None:
        return _unary(handler, method, (errors,))
    inner: Any = handler.unary_stream

    async def watched(request: Any, context: Context) -> Any:
        if request is _UNREADABLE:
            await abort(context, _no_request(method))
        async for answer in inner(request, context):
            yield answer

    return grpc.unary_stream_rpc_method_handler(
        watched,
        request_deserializer=_lenient(handler),
        response_serializer=handler.response_serializer,
    )


def guarding(guard: Guard) -> Stage:
    """Makes the stage that lets in whom a guard lets in."""

    def stage(method: str, call: Call) -> Call:
        check = guard(method)

        async def guarded(request: Any, context: Context) -> Any:
            check(context)
            return await call(request, context)

        return guarded

    return stage


def _guarded_stream(handler: Handler, method: str, check: Callable[[Context], None]) -> Handler:
    if handler.stream_stream is None:
        raise TypeError(f"{method} is a stream in one direction, which nobody guards yet: add it to the chain")
    inner: Any = handler.stream_stream

    async def guarded(requests: Any, context: Context) -> Any:
        try:
            check(context)
        except MarqueeError as error:
            await abort(context, error)
        async for answer in inner(requests, context):
            yield answer

    return grpc.stream_stream_rpc_method_handler(
        guarded,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def access_log_wanted() -> bool:
    """Says whether calls are logged: at the level debug."""
    return _log.isEnabledFor(logging.DEBUG)


def access_log(method: str, call: Call) -> Call:
    """Is the stage that logs every call: method, status, milliseconds and the request's id."""

    async def logged(request: Any, context: Context) -> Any:
        began = time.perf_counter()
        cancelled: grpc.StatusCode | None = None
        try:
            return await call(request, context)
        except asyncio.CancelledError:
            cancelled = given_up(context, time.perf_counter() - began)
            raise
        finally:
            code = cancelled or context.code()
            name = "OK" if code is None else code.name
            ended = {"method": method, "code": name, "request_id": request_id_in(request)}
            taken_ms = (time.perf_counter() - began) * 1000
            _log.debug("%s: %s in %.1f ms", method, ended["code"], taken_ms, extra={**ended, "ms": taken_ms})

    return logged


def given_up(context: Context, taken_s: float) -> grpc.StatusCode:
    """Says why a call was cancelled after so many seconds: because it has expired, or because its caller gave it up.

    A caller whose deadline has passed says the same as one that gives up, and may say it before the deadline has passed
    here: gRPC writes it into the call rounded up.
    """
    left_s = context.time_remaining()
    if left_s is None or left_s > _LATER_S + _LATER_PART * (left_s + taken_s):
        return grpc.StatusCode.CANCELLED
    return grpc.StatusCode.DEADLINE_EXCEEDED


def errors(method: str, call: Call) -> Call:
    """Is the stage that turns what a unary method raises into a status: the one place where errors are translated.

    A MarqueeError keeps its code and text and travels with `google.rpc` details. Anything else is INTERNAL with an id,
    under which the traceback is in the log; its text stays here, because it may hold what a caller must not read.
    """

    async def translated(request: Any, context: Context) -> Any:
        try:
            return await call(request, context)
        except MarqueeError as error:
            await abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            await _abort_unknown(request, context, method)
            raise

    return translated


def request_id_in(request: Any) -> str:
    """Reads a request's id, also one that was made here; "" where it has none, and cut where it is too long."""
    given: str = request_id_of_call() or getattr(request, "request_id", "")
    return given[:MAX_REQUEST_ID_BYTES]


async def abort(context: Context, error: MarqueeError) -> NoReturn:
    """Ends a call with the status of an error, its details in the trailers."""
    trailers: list[tuple[str, str | bytes]] = [(DETAILS_KEY, to_status(error).SerializeToString())]
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        # What gRPC's own retries go by, where the details' RetryInfo is for programs.
        trailers.append((_PUSHBACK_KEY, str(round(error.retry_after_s * 1000))))
    await context.abort(error.code, error.message, trailing_metadata=tuple(trailers))
    raise error


async def _abort_unknown(request: Any, context: Context, method: str) -> None:
    error_id = uuid.uuid4().hex
    names = {"error_id": error_id, "request_id": request_id_in(request)}
    _log.exception("%s failed", method, extra=names)
    await abort(context, MarqueeError(f"internal error {error_id}; the server's log has it under this id"))
