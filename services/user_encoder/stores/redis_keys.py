"""The names of what a Redis keeps for the feature store: made of people's tags, so that they tell nobody's id."""

from __future__ import annotations

import re
from typing import NamedTuple

PREFIX = b"marquee:"
CHANNEL = PREFIX + b"deletions"
KEY_CHECK = PREFIX + b"key-check"
# Holds a random word from before a deletion until the files are written anew: another encoder does what a killed one
# left.
TO_CLEAN = PREFIX + b"files-to-clean"
# Of every history's key, for SCAN, and for what CLUSTER GETKEYSINSLOT finds.
HISTORIES = PREFIX + b"{*}:history"
HISTORY = re.compile(re.escape(PREFIX) + rb"\{([0-9a-f]{32})\}:history")


class Keys(NamedTuple):
    """Holds a person's keys, which share a slot."""

    history: bytes
    tombstone: bytes
    request_ids: bytes


def keys_of(tag: bytes) -> Keys:
    """Names a person's keys."""
    name = PREFIX + b"{" + tag.hex().encode() + b"}:"
    return Keys(name + b"history", name + b"deleted", name + b"requests")


def name_in(key: bytes) -> str:
    """Reads the tag, in hex, out of a key."""
    return key[len(PREFIX) + 1 :].partition(b"}")[0].decode()
