"""The retriever's settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.parse import urlsplit

from services.common.settings import CommonSettings, setting, split_address
from services.retriever.blocked_key import check_port, check_url, without_user

# What a search is made of while Milvus does not answer: all vectors, which are compared here, or nothing.
EXACTLY, NOTHING = "exact", "unavailable"


def check_milvus_uri(text: str) -> None:
    """Raises ValueError where a text names no Milvus."""
    if not text:
        return
    parts = urlsplit(text)
    check_port(parts)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            "must be http://HOST:PORT, or https:// for TLS, with /DATABASE where it is not the default one"
        )
    if parts.username is not None:
        raise ValueError("must not hold a user or password: give them as --milvus-token")
    if "/" in parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must have nothing after the database")


@dataclasses.dataclass(frozen=True, slots=True)
class RetrieverSettings(CommonSettings):
    """Holds what the retriever can be told."""

    listen: str = setting(
        "127.0.0.1:50052", "address to listen on, host:port; port 0 takes a free one", check=split_address
    )
    block_list: str = setting(
        "",
        "movies that are never shown, one id a line, # begins a comment: a file, or a string in a Redis as "
        "redis://USER:PASSWORD@HOST:PORT/DB?key=NAME; read again within seconds of a change; empty: none",
        check=check_url,
        shown=without_user,
    )
    milvus_uri: str = setting(
        "",
        "Milvus that searches, http://HOST:PORT or https://HOST:PORT, with /DATABASE where it is not the default one; "
        "empty: the bundle's own index",
        check=check_milvus_uri,
        shown=without_user,
    )
    milvus_token: str = setting("", "Milvus's USER:PASSWORD, or its API key", secret=True)
    milvus_ca: Path | None = setting(
        None, "PEM file of the CA that Milvus's certificate is from; empty: those that the system trusts"
    )
    milvus_timeout_s: float = setting(
        0.2,
        "seconds that a search waits for Milvus, and at most half of what is left of its call's deadline",
        low=0.001,
        high=60,
    )
    milvus_fallback: str = setting(
        EXACTLY,
        "what a search answers with while Milvus does not: exact (every vector is compared here) or unavailable",
        choices=(EXACTLY, NOTHING),
    )

    def problems(self) -> list[str]:
        """Lists settings that do nothing without another one."""
        problems = CommonSettings.problems(self)
        if not self.milvus_uri and (self.milvus_token or self.milvus_ca):
            problems.append("--milvus-token and --milvus-ca: are for --milvus-uri, which is not set")
        if self.milvus_ca and not self.milvus_uri.startswith("https:"):
            problems.append("--milvus-ca: is for TLS; write --milvus-uri with https://")
        return problems
