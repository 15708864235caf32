"""What the user encoder can be told beside what every service can."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from services.common.settings import CommonSettings, setting

DEFAULT_STORE = Path(".marquee/features.sqlite")


@dataclasses.dataclass(frozen=True, slots=True)
class UserEncoderSettings(CommonSettings):
    """Holds the user encoder's settings."""

    store: Path = setting(DEFAULT_STORE, "SQLite file of people's events; made where there is none")
    store_timeout_s: float = setting(
        0.2,
        "seconds that an answer waits for the store, and at most half of what is left of its deadline; then it is made "
        "of what this process remembers",
        low=0.001,
        high=60,
    )
    store_cache_mb: int = setting(
        32, "MiB of histories to remember for when the store cannot be read; 0: none", low=0, high=65_536
    )
    store_stale_s: float = setting(600.0, "seconds that a remembered history may be answered from", low=0)
