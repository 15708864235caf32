"""The file of callers: who may call, as what, and what proves it. One caller a line, # begins a comment:

    web       reader           sha256:5a1f…     # a key; `python -m services.common.keys new` makes key and line
    tracking  recorder,reader  sha256:09c2…
    batch.internal  admin      certificate      # whose client certificate has this name

The hash is a plain SHA-256, not one that is slow on purpose. Slow ones protect words that people think of; a key has
256 random bits and is not found by trying, however fast the hash is, while each call would have to wait for a slow one.
"""

from __future__ import annotations

import codecs
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from marquee.errors import ConfigError
from services.common.policy import Role

CERTIFICATE = "certificate"
_HASH = "sha256:"
_KEY_BYTES = 32

# What a certificate's name may be: a host, a person's or a program's name, a URI. In a key a dot ends it.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}", re.ASCII)
_PROOF = re.compile(rf"{_HASH}[0-9a-f]{{64}}|{CERTIFICATE}", re.ASCII)


class Caller(NamedTuple):
    """Is one that may call; `digest` is the hash of its key, None where a client certificate proves who it is."""

    name: str
    roles: frozenset[Role]
    digest: bytes | None

    def may(self, needed: Role | None) -> bool:
        """Says whether it may call what needs a role; what nobody may call it may not either."""
        return needed is not None and (needed in self.roles or Role.ADMIN in self.roles)


class Callers:
    """Finds callers by what they show."""

    def __init__(self, callers: Iterable[Caller]) -> None:
        self._keyed: dict[str, list[Caller]] = {}
        self._certified: dict[str, Caller] = {}
        for caller in callers:
            if caller.digest is None:
                self._certified[caller.name] = caller
            else:
                self._keyed.setdefault(caller.name, []).append(caller)

    def __len__(self) -> int:
        return len(self._certified) + sum(map(len, self._keyed.values()))

    def by_key(self, key: str) -> Caller | None:
        """Finds whose key it is, in a time that does not tell how much of it was right.

        The name before its last dot is no secret. One name may have several keys, so that they can be changed.
        """
        digest = digest_of(key)
        found = None
        for caller in self._keyed.get(key.rpartition(".")[0], ()):
            if hmac.compare_digest(caller.digest or b"", digest):
                found = caller
        return found

    def by_names(self, names: Iterable[str]) -> Caller | None:
        """Finds the caller that has one of a client certificate's names."""
        return next((self._certified[name] for name in names if name in self._certified), None)


def new_key(name: str) -> str:
    """Makes a key: the name and, after a dot, 256 random bits."""
    return f"{name}.{secrets.token_urlsafe(_KEY_BYTES)}"


def digest_of(key: str) -> bytes:
    """Hashes a key as it is stored."""
    return hashlib.sha256(key.encode()).digest()


def line_for(name: str, roles: Iterable[Role], key: str) -> str:
    """Writes the line of a caller with a key."""
    return f"{name} {','.join(roles)} {_HASH}{digest_of(key).hex()}"


def parse_callers(path: Path, text: bytes) -> Callers:
    """Reads a file of callers; raises ConfigError that names file and line, and nothing of what stands there."""
    lines = text.removeprefix(codecs.BOM_UTF8).decode(errors="replace").split("\n")
    return Callers(_callers(path, lines))


def _callers(path: Path, lines: Iterable[str]) -> Iterator[Caller]:
    certified: set[str] = set()
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        caller = _caller(f"{path}:{number}", words)
        if caller.digest is None and caller.name in certified:
            raise ConfigError(f"{path}:{number}: a line above names the same certificate; put all its roles into one")
        if caller.digest is None:
            certified.add(caller.name)
        yield caller


def _caller(where: str, words: list[str]) -> Caller:
    if len(words) != 3:
        raise ConfigError(f"{where}: has {len(words)} words; write NAME ROLE,ROLE and sha256:… or {CERTIFICATE}")
    name, roles, proof = words
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: the name is none; write letters, digits and ._:/@- of ASCII, at most 255")
    unknown = [role for role in roles.split(",") if role not in set(Role)]
    if unknown:
        raise ConfigError(f"{where}: one of the roles is none; write one or more of {', '.join(Role)}, commas between")
    if not _PROOF.fullmatch(proof):
        # Perhaps the key itself: it must not get into the log.
        raise ConfigError(
            f"{where}: the third word must be {_HASH} and 64 lower-case hexadecimal digits, or {CERTIFICATE}; make a "
            "line with: python -m services.common.keys new"
        )
    digest = None if proof == CERTIFICATE else bytes.fromhex(proof.removeprefix(_HASH))
    return Caller(name, frozenset(map(Role, roles.split(","))), digest)
