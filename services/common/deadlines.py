"""How long the call that runs here may still take: its caller's deadline, capped by the service's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from marquee.errors import DeadlineExceeded
from services.common.interceptors import Call, Context, Stage

# When the call of this context has to be answered, on the monotonic clock; None outside of calls.
_ends_at: ContextVar[float | None] = ContextVar("ends_at", default=None)


def ends_at() -> float | None:
    """Says when the call that runs here has to be answered, on the monotonic clock; None where none runs.

    For work that goes on where the call does not, as on another thread; else `time_left`.
    """
    return _ends_at.get()


def time_left() -> float | None:
    """Says how many seconds the call that runs here has left; None where none does.

    Raises DeadlineExceeded where it has none: nobody waits for the answer any more. A store or an engine that the call
    asks should get a part of it only, so that there is time to do without.
    """
    at = _ends_at.get()
    if at is None:
        return None
    left_s = at - time.monotonic()
    if left_s <= 0:
        raise too_late()
    return left_s


def too_late() -> DeadlineExceeded:
    """Makes the error of a call that nobody waits for any more."""
    return DeadlineExceeded(
        "the call's deadline had passed before it was answered; give it a longer one, or see what the service is busy "
        "with"
    )


def capping(longest_s: float) -> Stage:
    """Makes the stage that drops what has expired, and gives every call a deadline of at most `longest_s`."""

    def stage(method: str, call: Call) -> Call:
        async def capped(request: Any, context: Context) -> Any:
            left_s = context.time_remaining()
            if left_s is not None and left_s <= longest_s:
                _ends_at.set(time.monotonic() + left_s)
                # Here and not in the call: it may have waited for long in gRPC's core.
                time_left()
                return await call(request, context)
            _ends_at.set(time.monotonic() + longest_s)
            return await _in_time(lambda: call(request, context), method, longest_s)

        return capped

    return stage


async def _in_time(call: Callable[[], Any], method: str, longest_s: float) -> Any:
    """Ends a call that its caller would have waited for longer."""
    try:
        async with asyncio.timeout(longest_s) as limit:
            return await call()
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded(
            f"{method} took longer than the {longest_s:g} s that the service gives any call; ask for less at a time, "
            "or see what the service is busy with (--max-deadline-s)"
        ) from None
