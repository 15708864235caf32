"""Tags: the keyed hashes that stand for people where their ids must not.

A tag is an HMAC-SHA256 of the id under the store's key, so that a tombstone or a key name tells nothing to somebody
who has no key, even by trying ids.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from marquee.bundle.format import sync_folder
from marquee.errors import ConfigError

KEY_BYTES = 32
# 128 bits: no two people share a tag.
TAG_BYTES = 16


class Tags:
    """Makes tags under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, user_id: str) -> bytes:
        """Makes the tag of a person: 16 bytes, the same in every process that has the key."""
        return hmac.digest(self._key, user_id.encode(), "sha256")[:TAG_BYTES]

    def check(self) -> bytes:
        """Makes what a store keeps to know its key again: 16 bytes that tell nothing about the key."""
        # No id has a zero byte: control characters are refused.
        return hmac.digest(self._key, b"\0check", "sha256")[:TAG_BYTES]


def read_tags(path: Path) -> Tags:
    """Reads a key file; raises ConfigError where it is none."""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"MARQUEE_STORE_KEY: {path} cannot be read ({error.strerror}); name the store's key file, {KEY_BYTES} "
            f"random bytes, for example from: head -c {KEY_BYTES} /dev/urandom"
        ) from error
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"MARQUEE_STORE_KEY: {path} has {len(key)} bytes, and a key has {KEY_BYTES}; name the key file that the "
            "store was made with"
        )
    return Tags(key)


def make_tags(path: Path) -> Tags:
    """Reads a key file, and makes it first where there is none: readable by its owner alone.

    Safe when several processes do so at once: all of them read the same key.
    """
    if not path.exists():
        try:
            _make(path)
        except OSError as error:
            raise ConfigError(
                f"MARQUEE_STORE_KEY: {path} cannot be made ({error.strerror}); name a file in a folder that this "
                "process may write"
            ) from error
    return read_tags(path)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
        sync_folder(path.parent, [temporary.name])
        # A link is made whole or not at all, and never over another process's key.
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent, [])
