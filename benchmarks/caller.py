"""The one caller: `python -m benchmarks.caller` times calls to running services and to the floor, and prints JSON.

Every case is measured in pairs: a block of calls to the services, then the same block to the floors, which answer with
what the services answered to the request of median size. What is compared, then, is all but the servers' work.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from benchmarks.floor import REMEMBER
from marquee.client import Recommender
from marquee.errors import DataError, MarqueeError
from marquee.v1 import (
    live_features_pb2,
    live_features_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    types_pb2,
    user_encoder_pb2,
    user_encoder_pb2_grpc,
)

WARM_UP = 200
PAIRS = 7
BLOCK = 300
EVENTS = 50
_SEED = 0
# Long, so that a hiccup is measured and not refused.
_DEADLINE_S = 10.0

Milliseconds = npt.NDArray[np.float64]


class Side(NamedTuple):
    """Is what a case calls: the services, or the floors in their place."""

    sdk: Recommender
    encoder_channel: grpc.Channel
    retriever_channel: grpc.Channel

    def encode(self, request: user_encoder_pb2.EncodeRequest) -> user_encoder_pb2.EncodeResponse:
        """Calls Encode."""
        return user_encoder_pb2_grpc.UserEncoderServiceStub(self.encoder_channel).Encode(request, timeout=_DEADLINE_S)

    def search(self, request: retriever_pb2.SearchRequest) -> retriever_pb2.SearchResponse:
        """Calls Search."""
        return retriever_pb2_grpc.RetrieverServiceStub(self.retriever_channel).Search(request, timeout=_DEADLINE_S)
