"""The URL of a Redis, in the setting `store`."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

DEFAULT_PORT = 6379
_SCHEMES = {
    "redis": (False, False),
    "rediss": (False, True),
    "redis+cluster": (True, False),
    "rediss+cluster": (True, True),
}
_FILES = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}


class RedisUrl(NamedTuple):
    """Holds where a Redis is: one server, or some nodes of a Cluster, each a host and a port.

    `options` are what a connection of redis-py is made with beside them: user, password, database, certificates.
    """

    cluster: bool
    tls: bool
    nodes: tuple[tuple[str, int], ...]
    options: dict[str, Any]


def is_url(store: str) -> bool:
    """Says whether a store is named by a URL; otherwise it is a file's path."""
    return "://" in store


def without_password(store: str) -> str:
    """Writes a store's name as it may be shown."""
    # To the last "@": a password that should have been percent-encoded is hidden, too.
    shown = re.sub(r"://.*@", "://***@", store)
    return re.sub(r"(pass\w*=)[^&]*", r"\1***", shown)


def parse_redis_url(url: str) -> RedisUrl:
    """Reads a URL; raises ValueError, which says nothing of its password, where it names no Redis."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"must be a file's path, or start with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    cluster, tls = _SCHEMES[parts.scheme]
    userinfo, _, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_split_host(host) for host in hosts.split(","))
    if len(nodes) > 1 and not cluster:
        raise ValueError("names several hosts, as only redis+cluster:// and rediss+cluster:// may")
    return RedisUrl(cluster, tls, nodes, _login(userinfo) | _database(parts, cluster) | _certificates(parts, tls))


def _split_host(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", text)
    if match is None or int(match[2] or 0) > 65_535:
        raise ValueError("must name its servers as host or host:port, for example redis://127.0.0.1:6379")
    return match[1].strip("[]"), int(match[2] or DEFAULT_PORT)


def _login(userinfo: str) -> dict[str, Any]:
    user, _, password = userinfo.partition(":")
    named = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in named.items() if value}


def _database(parts: SplitResult, cluster: bool) -> dict[str, Any]:
    text = parts.path.strip("/")
    if text and (not text.isdecimal() or (cluster and int(text))):
        raise ValueError("must end in the database's number, 0 in a Cluster, or in nothing")
    return {"db": int(text)} if int(text or 0) else {}


def _certificates(parts: SplitResult, tls: bool) -> dict[str, Any]:
    named = dict(parse_qsl(parts.query, keep_blank_values=True))
    if set(named) - set(_FILES) or parts.fragment or (named and not tls):
        raise ValueError("may be followed by ?ca=FILE, cert=FILE and key=FILE, of TLS, and by nothing else")
    return {_FILES[name]: file for name, file in named.items()}
