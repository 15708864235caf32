"""Which replicas an address stands for."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from typing import NamedTuple

from marquee.client import ConfigError

_SCHEME = re.compile(r"(?:dns:(?://[^/\s]*/)?|ipv[46]:)")
_HOST_PORT = re.compile(r"\[?(?P<host>[^\]]+?)\]?:(?P<port>\d+)")


class Replica(NamedTuple):
    """Is one replica: its IP address with port, or its socket; and the name that led there, "" where none did."""

    address: str
    name: str


def split(text: str) -> str | list[str]:
    """Reads an address as it was typed: one, or several with commas between them."""
    many = text.split(",")
    return text if len(many) == 1 or _SCHEME.match(text) else many


def replicas(text: str) -> list[Replica]:
    """Resolves every address that a text names; raises ConfigError for a name that nobody has."""
    if text.startswith("unix:"):
        return [Replica(text, "")]
    parts = _SCHEME.sub("", text, count=1).split(",")
    return [replica for part in parts for replica in _resolved(part)]


def _resolved(part: str) -> Sequence[Replica]:
    match = _HOST_PORT.fullmatch(part)
    if match is None:
        raise ConfigError(f"{part!r} is no address; give host:port, for example 127.0.0.1:50051")
    host, port = match["host"], int(match["port"])
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"there is no host {host!r} ({error.strerror}): check the spelling, or the DNS") from error
    # A host with addresses of both versions is one replica, and IPv4 is what all of ours listen on.
    version = min(family for family, *_ in found)
    addresses = sorted({str(where[0]) for family, *_, where in found if family == version})
    return [Replica(_joined(address, port), "" if address == host else host) for address in addresses]


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
