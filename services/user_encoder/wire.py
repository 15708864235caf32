"""What the servicers share: the clock, and how events stand in an answer."""

from __future__ import annotations

import time
from typing import Any

import grpc.aio
import numpy as np

from marquee.features import Events
from marquee.v1 import types_pb2

Context = grpc.aio.ServicerContext[Any, Any]


def clock_ms() -> int:
    """Reads the server's clock: UTC milliseconds."""
    return time.time_ns() // 1_000_000


def columns(events: Events) -> types_pb2.EventColumns:
    """Writes events as an answer has them; no values where all are 0."""
    return types_pb2.EventColumns(
        movie_ids=events.movie_ids.tolist(),
        kinds=events.kinds.tolist(),
        values=events.values.tolist() if np.any(events.values) else (),
        times_ms=events.times_ms.tolist(),
    )
