"""Who looks at the page: a random id in a signed cookie, and a token in every form that proves it is theirs.

Nobody logs in. The signature keeps a browser from naming somebody else: a store has other people's events, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from marquee.errors import ConfigError

_PREFIX: Final = "web-"
_KEY_BYTES: Final = 32


class Keys:
    """Signs texts for one purpose each, so that a signature made for one is worth nothing for another."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, purpose: str, text: str) -> str:
        """Writes a text with its signature."""
        return f"{text}.{self._mac(purpose, text)}"

    def read(self, purpose: str, signed: str) -> str | None:
        """Reads what `sign` wrote; None where it did not write this."""
        text, _, mac = signed.rpartition(".")
        return text if _same(mac, self._mac(purpose, text)) else None

    def token(self, session: str) -> str:
        """Makes the token that a form of this session carries."""
        return self._mac("token", session)

    def is_token(self, session: str, token: str) -> bool:
        """Says whether a form's token is this session's."""
        return _same(token, self.token(session))

    def _mac(self, purpose: str, text: str) -> str:
        digest = hmac.digest(self._key, f"{purpose}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def new_session() -> str:
    """Makes an id that nobody can guess, and that no data set has."""
    return _PREFIX + secrets.token_urlsafe(16)


def load_key(path: Path | None) -> bytes:
    """Reads the key file, which is made where there is none; without a path, the key lasts as long as the process."""
    if path is None:
        return secrets.token_bytes(_KEY_BYTES)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = _make_key(path)
    except OSError as error:
        raise ConfigError(f"--key: {path} cannot be read: {error.strerror}", field="key") from error
    if len(key) < _KEY_BYTES:
        raise ConfigError(
            f"--key: {path} holds {len(key)} bytes; give {_KEY_BYTES} or more random ones, or remove the file",
            field="key",
        )
    return key


def _make_key(path: Path) -> bytes:
    key = secrets.token_bytes(_KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"--key: {path} cannot be made: {error.strerror}", field="key") from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(key)
    return key
