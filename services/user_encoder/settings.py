"""What the user encoder can be told beside what every service can."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from services.common.settings import CommonSettings, setting
from services.user_encoder.stores.redis_url import is_url, parse_redis_url, without_password

DEFAULT_STORE = Path(".marquee/features.sqlite")


def _check_store(text: str) -> None:
    if not text:
        raise ValueError("must be a file's path or a Redis's URL")
    if is_url(text):
        parse_redis_url(text)


@dataclasses.dataclass(frozen=True, slots=True)
class UserEncoderSettings(CommonSettings):
    """Holds the user encoder's settings."""

    store: str = setting(
        str(DEFAULT_STORE),
        "people's events: path of a SQLite file, made where there is none; or redis://USER:PASSWORD@HOST:PORT/DB; or "
        "redis+cluster://HOST:PORT,HOST:PORT, some nodes of a Cluster; rediss in place of redis for TLS, with "
        "?ca=FILE&cert=FILE&key=FILE where it needs them",
        check=_check_store,
        shown=without_password,
    )
    store_key: Path | None = setting(
        None,
        "file of the 32 random bytes that ids are hashed with; empty: PATH.key beside a SQLite file, made with it. A "
        "Redis needs one, the same for all that use it: head -c 32 /dev/urandom > FILE",
    )
    replicas: int = setting(1, "encoders on different machines that share the store", low=1, high=10_000)
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

    def problems(self) -> list[str]:
        """Lists what is wrong with several settings together."""
        problems = CommonSettings.problems(self)
        if not is_url(self.store) and self.replicas > 1:
            problems.append(
                f"--store {self.store} is a SQLite file, which {self.replicas} replicas on different machines cannot "
                "share; name a Redis (redis://host:port), or set --replicas 1"
            )
        if is_url(self.store) and self.store_key is None:
            problems.append(
                "--store-key is missing, and every user of a Redis needs the same key; make a file of 32 random bytes, "
                "for example with: head -c 32 /dev/urandom > store.key, and name it"
            )
        if self.served_sample and self.served_folder is None:
            problems.append("--served-sample: the encoder only writes what it samples; name a --served-folder")
        return problems
