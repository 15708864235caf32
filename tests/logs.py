"""Small event logs, written out."""

from __future__ import annotations

import numpy as np

from training.batches import EventLog


def log_of(*events: tuple[int, int, int]) -> EventLog:
    """Makes a log of (user, item, kind), a second apart."""
    users, items, kinds = (np.array(column, np.int64) for column in zip(*events, strict=True))
    starts = np.searchsorted(users, np.arange(users.max() + 2)).astype(np.int64)
    times = np.arange(len(users), dtype=np.int64) * 1000
    return EventLog(users, items, kinds, np.zeros(len(users), np.float32), times, np.ones(len(users), np.int64), starts)
