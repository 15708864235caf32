"""The interceptor that turns errors into statuses: the one place where they are translated."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from marquee.errors import DETAILS_KEY, MarqueeError, to_status

_log = logging.getLogger(__name__)

# Quoted: only the stubs know these as generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what a unary method raises into a status.

    A MarqueeError keeps its code and text and travels with `google.rpc` details. Anything else is INTERNAL with an id,
    under which the traceback is in the log; its text stays here, because it may hold what a caller must not read.
    """

    def __init__(self) -> None:
        # method → (handler, the handler wrapped): wrapped once a method, not once a call. Unknown methods never get in.
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Finds the method's handler and returns it wrapped."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        if handler is None or handler.unary_unary is None:
            return handler
        wrapped = _translating(handler, method)
        self._wrapped[method] = handler, wrapped
        return wrapped


def _translating(handler: Handler, method: str) -> Handler:
    inner: Callable[[Any, Context], Awaitable[Any]] = handler.unary_unary  # type: ignore[assignment]

    async def call(request: Any, context: Context) -> Any:
        try:
            return await inner(request, context)
        except MarqueeError as error:
            await abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            await _abort_unknown(context, method)
            raise

    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


async def abort(context: Context, error: MarqueeError) -> NoReturn:
    """Ends a call with the status of an error, its details in the trailers."""
    details = to_status(error).SerializeToString()
    await context.abort(error.code, error.message, trailing_metadata=((DETAILS_KEY, details),))
    raise error


async def _abort_unknown(context: Context, method: str) -> None:
    error_id = uuid.uuid4().hex
    _log.exception("%s failed", method, extra={"error_id": error_id})
    await abort(context, MarqueeError(f"internal error {error_id}; the server's log has it under this id"))
