"""What the requests of every service have in common."""

from __future__ import annotations

import os
from contextvars import ContextVar

from marquee.errors import InvalidRequest

MAX_REQUEST_ID_BYTES = 128

_of_call: ContextVar[str] = ContextVar("request_id", default="")


def request_id_of(given: str) -> str:
    """Returns the caller's request id, or a new random one; raises InvalidRequest where it is too long.

    What the call that runs here logs from then on carries it.
    """
    # A character takes at most 4 bytes: most ids need no encoding to be known as short enough.
    if len(given) > MAX_REQUEST_ID_BYTES // 4 and len(given.encode()) > MAX_REQUEST_ID_BYTES:
        raise InvalidRequest(
            f"request_id has {len(given.encode())} bytes; send at most {MAX_REQUEST_ID_BYTES}, or none",
            field="request_id",
        )
    request_id = given or os.urandom(16).hex()
    _of_call.set(request_id)
    return request_id


def request_id_of_call() -> str:
    """Says what the request of the call that runs here is called; "" before it was read, and outside of calls."""
    return _of_call.get()
