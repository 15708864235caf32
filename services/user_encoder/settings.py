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
