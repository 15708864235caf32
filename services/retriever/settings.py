"""The retriever's settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from services.common.settings import CommonSettings, setting, split_address


@dataclasses.dataclass(frozen=True, slots=True)
class RetrieverSettings(CommonSettings):
    """Holds what the retriever can be told."""

    listen: str = setting(
        "127.0.0.1:50052", "address to listen on, host:port; port 0 takes a free one", check=split_address
    )
    block_list: Path | None = setting(
        None,
        "file of movies that are never shown, one id a line, # begins a comment; read again within a second of a "
        "change; empty: none",
    )
