"""Which trace the call that runs here belongs to, whether traces are made here or not.

A caller says it in the metadata `traceparent`: 00-<32 digits of the trace>-<16 of the caller's span>-<flags>, as W3C's
Trace Context has it.
"""

from __future__ import annotations

import re
from contextvars import ContextVar

from services.common.interceptors import metadata_of_call

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")

_made: ContextVar[str] = ContextVar("trace_id", default="")


def name_trace(trace_id: str) -> None:
    """Says which trace the call that begins here belongs to, where it is made here: 32 hexadecimal digits."""
    _made.set(trace_id)


def trace_id_of_call() -> str:
    """Says which trace the call that runs here belongs to; "" where it is of none, and outside of calls."""
    return _made.get() or _sent()


def _sent() -> str:
    for key, value in metadata_of_call():
        if key == TRACEPARENT and isinstance(value, str):
            found = _TRACEPARENT.fullmatch(value)
            return found[1] if found else ""
    return ""
