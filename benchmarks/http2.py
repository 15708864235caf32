"""Just enough of HTTP/2 to call servers of gRPC: frames as bytes, and headers that need no table."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
TABLE_SIZE, MAX_STREAMS, INITIAL_WINDOW = 1, 3, 4
LARGEST_WINDOW, FIRST_WINDOW = 2**31 - 1, 65_535
CANCEL = 8
# What every server takes.
_LARGEST_FRAME = 16_384
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# With a header table of size 0 the server can only write the trailer out.
_STATUS = re.compile(rb"\x0bgrpc-status[\x01\x02](\d+)")


class Target(NamedTuple):
    """Is where calls go: an address, a method's path, the requests' bytes, sent in turn, and headers of one's own."""

    address: str
    method: str
    requests: Sequence[bytes]
    headers: Mapping[str, str] = {}


class Frame(NamedTuple):
    """Is one frame; stream 0 is the connection itself."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def opening() -> bytes:
    """Writes what a client begins with: no header table, so that trailers come written out, and the largest windows."""
    settings = struct.pack(">HIHI", TABLE_SIZE, 0, INITIAL_WINDOW, LARGEST_WINDOW)
    grow = struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW)
    return _PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW, 0, 0, grow)


class Taken:
    """Counts the bytes of bodies that came on a connection: once half of its window is used up, it is given back.

    The window of `opening` is 2 GiB. A server that has used it up waits, and its calls run out of time.
    """

    def __init__(self) -> None:
        self._bytes = 0

    def give_back(self, data: Frame) -> list[bytes]:
        """Counts a DATA frame; writes the frame that makes the window whole again, or none."""
        self._bytes += len(data.payload)
        if self._bytes < LARGEST_WINDOW // 2:
            return []
        grow, self._bytes = struct.pack(">I", self._bytes), 0
        return [frame(WINDOW, 0, 0, grow)]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Writes a frame."""
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def last_data(stream: int, body: bytes) -> bytes:
    """Writes a body, in as many frames as it takes, and the end of the stream."""
    starts = range(0, max(1, len(body)), _LARGEST_FRAME)
    parts = [body[start : start + _LARGEST_FRAME] for start in starts]
    return b"".join(frame(DATA, END_STREAM if part is parts[-1] else 0, stream, part) for part in parts)


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """Reads the whole frames that data begins with; returns them and what is left."""
    frames, at = [], 0
    while len(data) - at >= 9:
        end = at + 9 + int.from_bytes(data[at : at + 3])
        if end > len(data):
            break
        stream = int.from_bytes(data[at + 5 : at + 9])
        frames.append(Frame(data[at + 3], data[at + 4], stream, data[at + 9 : end]))
        at = end
    return frames, data[at:]


def read_settings(payload: bytes) -> dict[int, int]:
    """Reads a SETTINGS frame: value by number."""
    return dict(struct.iter_unpack(">HI", payload))


def prefixed(request: bytes) -> bytes:
    """Writes a message as gRPC frames it, uncompressed."""
    return struct.pack(">BI", 0, len(request)) + request


def call_headers(target: Target, timeout: str) -> bytes:
    """Writes the headers of a call; `timeout` is as gRPC writes it, "250m" for 250 ms."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": target.method,
        ":authority": target.address,
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": timeout,
        **target.headers,
    }
    # Literals without indexing, each length in one byte.
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


def read_status(trailers: bytes) -> str:
    """Reads how a call ended, from its trailers: "OK", "status 14", or "no status"."""
    found = _STATUS.search(trailers)
    return "no status" if found is None else "OK" if found[1] == b"0" else f"status {found[1].decode()}"
