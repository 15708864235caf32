"""A block list in a Redis: a string with the text that a file would have."""

from __future__ import annotations

import errno
from urllib.parse import SplitResult, parse_qs, urlsplit, urlunsplit

from marquee.errors import ConfigError

DEFAULT_KEY = "marquee:block-list"
# Two looks see a change, so one that hangs may take two seconds of the five in which a movie must be gone.
_TIMEOUT_S = 1.0


def is_url(text: str) -> bool:
    """Says whether a text names a Redis, and not a file."""
    return "://" in text


def check_url(text: str) -> None:
    """Raises ValueError where a text is a URL and names no key of a Redis."""
    if not is_url(text):
        return
    parts = urlsplit(text)
    check_port(parts)
    database = parts.path.strip("/") or "0"
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or not database.isdigit() or parts.fragment:
        raise ValueError("must be a file, or redis://HOST:PORT/DB?key=NAME, or rediss:// for TLS")
    if set(parse_qs(parts.query, keep_blank_values=True)) - {"key"}:
        raise ValueError("must have nothing behind the ? but key=NAME")


def check_port(parts: SplitResult) -> None:
    """Raises ValueError where a URL's port is none, without what stands there: it may be a piece of a password."""
    try:
        good = parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("must have a port from 1 to 65535; write / and : in a password as %2F and %3A")


def without_user(text: str) -> str:
    """Writes a file or a URL without user and password."""
    scheme, separator, rest = text.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if separator else text


class BlockedKey:
    """Reads the key as if it were a file: what goes wrong is an OSError that says what it was.

    Raises ConfigError where there is no client for a Redis.
    """

    def __init__(self, url: str) -> None:
        try:
            # Not at the top: the retriever's environment has it only where somebody asked for it.
            from redis import Redis, RedisError
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise ConfigError(
                f"{without_user(url)}: a block list in a Redis needs the Redis client; pip install 'redis>=8', or name "
                "a file with --block-list"
            ) from error
        check_url(url)
        parts = urlsplit(url)
        self._key = parse_qs(parts.query).get("key", [DEFAULT_KEY])[0]
        self._shown = without_user(url)
        self._error = RedisError
        self._redis = Redis.from_url(
            urlunsplit(parts._replace(query="")),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            # Whoever watches the key looks again by itself.
            retry=Retry(NoBackoff(), 0),
        )

    def __str__(self) -> str:
        return self._shown

    def read_bytes(self) -> bytes:
        """Reads what the key holds; a key that is not there is no empty list."""
        try:
            text: bytes | None = self._redis.get(self._key)  # type: ignore[assignment]
        except self._error as error:
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error
        if text is None:
            raise OSError(errno.ENOENT, f"the key {self._key} is not there; an empty one blocks nothing")
        return text
