"""What the requests of every service have in common."""

from __future__ import annotations

import os

from marquee.errors import InvalidRequest

MAX_REQUEST_ID_BYTES = 128


def request_id_of(given: str) -> str:
    """Returns the caller's request id, or a new random one; raises InvalidRequest where it is too long."""
    if not given:
        return os.urandom(16).hex()
    # A character takes at most 4 bytes: most ids need no encoding to be known as short enough.
    if len(given) > MAX_REQUEST_ID_BYTES // 4 and len(given.encode()) > MAX_REQUEST_ID_BYTES:
        raise InvalidRequest(
            f"request_id has {len(given.encode())} bytes; send at most {MAX_REQUEST_ID_BYTES}, or none",
            field="request_id",
        )
    return given
