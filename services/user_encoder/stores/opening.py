"""Opens the store that the settings name."""

from __future__ import annotations

from pathlib import Path

from marquee.errors import ConfigError
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.base import FeatureStore
from services.user_encoder.stores.redis_url import is_url, parse_redis_url
from services.user_encoder.stores.sqlite import SqliteStore
from services.user_encoder.stores.tags import read_tags

# A node of a Cluster that does not answer is given up a little before the whole read is, which then has the others'
# answers.
READ_PART = 0.8


def open_store(settings: UserEncoderSettings) -> FeatureStore:
    """Opens the store; raises ConfigError where a setting is wrong. A Redis need not answer yet."""
    if problems := settings.problems():
        raise ConfigError("; ".join(problems))
    if not is_url(settings.store) or settings.store_key is None:
        return SqliteStore(Path(settings.store).expanduser(), key_path=settings.store_key)
    # Not at the top: a worker with a file has no use for the client's 20 MB.
    from services.user_encoder.stores.redis_store import RedisStore

    url, tags = parse_redis_url(settings.store), read_tags(settings.store_key)
    return RedisStore(url, tags, read_timeout_s=READ_PART * settings.store_timeout_s)
