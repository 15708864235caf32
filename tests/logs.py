"""Small event logs, written out."""

from __future__ import annotations

import numpy as np

from training.batches import EventLog


def log_of(*events: tuple[int, int, int]) -> EventLog:
    """Makes a log of (user, item, kind), a second apart."""
    users, items, kinds = (np.array(column, np.int64) for column in zip(*events, strict=True))
    starts = np.searchsorted(users, np.arange(users.max() + 2)).astype(np.int64)
    times = np.arange(len(users), dtype=np.int64) * 1000
    gaps = np.ones(len(users), np.uint8)
    narrow = (users.astype(np.int32), items.astype(np.int32), kinds.astype(np.uint8))
    return EventLog(*narrow, np.zeros(len(users), np.float32), times, gaps, starts)
