"""Whatever is sent to whichever rpc: an answer or an error of the tree, in time, and no memory that stays taken."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from marquee.errors import (
    DETAILS_KEY,
    InvalidRequest,
    MarqueeError,
    NotFound,
    SpaceNotLoaded,
    from_rpc,
)
from marquee.features import LIKED
from marquee.v1.live_features_pb2 import ExportEventsRequest
from marquee.v1.live_features_pb2_grpc import LiveFeaturesServiceStub
from tests.bundles import make_bundle
from tests.chaos.anything import Likely, Sent, any_bytes, any_message
from tests.chaos.handles import resident_mib
from tests.chaos.promises import Happened, promise
from tests.encoder_rigs import Row, recording
from tests.rigs import Process, publish, service_process

SERVICES = ("user_encoder", "retriever")
DIMENSION = 16
# Longer than any call takes on a busy machine: who has not answered by then, hangs.
HANG_S = 10.0
EXAMPLES, WARM_UP = 400, 150
# What remembered histories, caches of queries and the allocator may take; what stays of every call would be more.
ALLOWED_MIB = 16.0
EXPECTED = (InvalidRequest, NotFound, SpaceNotLoaded)

each_service = pytest.mark.parametrize("service", SERVICES)


class Target(NamedTuple):
    """Is a service's process, and what calls it."""

    process: Process
    channel: grpc.Channel
    likely: Likely


@pytest.fixture
def target(service: str, tmp_path: Path) -> Iterator[Target]:
    bundle = make_bundle(tmp_path / "bundle", dimension=DIMENSION)
    registry = publish(tmp_path / "registry", bundle).root
    store = [f"--store={tmp_path / 'features.sqlite'}"] if service == "user_encoder" else []
    with (
        service_process(service, tmp_path, registry, "--drain-s=0", *store) as process,
        grpc.insecure_channel(f"127.0.0.1:{process.port}") as channel,
    ):
        if service == "user_encoder":
            export_once(channel)
        yield Target(process, channel, likely_in(bundle.space))


def export_once(channel: grpc.Channel) -> None:
    """Makes a worker import what it makes exports with, which takes 80 MiB, once."""
    features = LiveFeaturesServiceStub(channel)
    features.RecordEvents(recording("ada", Row(1, LIKED, 0, 1000)), timeout=HANG_S)
    assert features.ExportEvents(ExportEventsRequest(), timeout=HANG_S).events == 1


def likely_in(space: str) -> Likely:
    """Lists what gets past the first checks of a service with that space."""
    return {
        "space": [space, ""],
        "user_id": ["ada", "bob"],
        "movie_id": [1, 4, 7],
        "movie_ids": [1, 4, 7],
        "vector": [struct.pack(f"<{DIMENSION}f", *np.linspace(-1, 1, DIMENSION))],
        "exclude_packed": [b"", struct.pack("<3q", 1, 4, 7)],
        "k": [1, 10],
        "paths": ["*", "title"],
        "query": ["the harbor", "lantern"],
        "external_id": ["imdb:tt0000004"],
        "genres_any": ["Drama"],
        "times_ms": [0, 1_700_000_000_000],
        "time_ms": [0, 1_700_000_000_000],
        "values": [0.0, 4.5],
        "value": [0.0, 4.5],
        "service": ["", "readiness"],
    }


class Calls:
    """Calls a target, checks what comes of it, and counts that."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.ended: Counter[str] = Counter()
        self.warm_mib = 0.0

    def __call__(self, sent: Sent) -> None:
        if self.ended.total() == WARM_UP:
            self.warm_mib = resident_mib(self._target.process.process.pid)
        error = self._refusal(sent)
        assert error is None or isinstance(error, EXPECTED), f"{sent.rpc.path}: {error!r}"
        self.ended["answered" if error is None else error.reason] += 1

    def _refusal(self, sent: Sent) -> MarqueeError | None:
        try:
            self._send(sent)
        except grpc.RpcError as failure:
            return error_in(failure)
        return None

    def _send(self, sent: Sent) -> None:
        path, request = sent.rpc.path, sent.request
        if sent.rpc.streams:
            stream: Any = self._target.channel.unary_stream(path, request_serializer=bytes)(request, timeout=HANG_S)
            next(stream)
            stream.cancel()
        else:
            unary: Any = self._target.channel.unary_unary(path, request_serializer=bytes)
            unary(request, timeout=HANG_S)

    def told(self) -> str:
        """Stops the service and says how it went."""
        grown = resident_mib(self._target.process.process.pid) - self.warm_mib
        assert grown < ALLOWED_MIB, f"{grown:.1f} MiB more after {self.ended.total() - WARM_UP} calls"
        code, log = self._target.process.stop()
        assert (code, "ERROR" in log, "Traceback" in log) == (0, False, False), log
        ended = ", ".join(f"{count} {how}" for how, count in sorted(self.ended.items()))
        return f"{self.ended.total()} calls: {ended}; {max(0.0, grown):.1f} MiB more after the first {WARM_UP}"


def error_in(failure: grpc.RpcError) -> MarqueeError:
    """Reads the error of a failed call."""
    call: Any = failure
    details = dict(call.trailing_metadata() or ()).get(DETAILS_KEY)
    # The health's own: what gRPC's protocol for it says of a name that is not there.
    if details is None and call.code() is grpc.StatusCode.NOT_FOUND:
        return NotFound(call.details())
    assert details is not None, f"outside of the error tree: {failure}"
    return from_rpc(call.code(), call.details(), details)


def send_any(strategy: st.SearchStrategy[Sent], calls: Calls) -> None:
    """Sends what is drawn, the same in every run."""

    @given(strategy)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        # What fails is short as it is, and a service that hangs would be asked again and again.
        phases=[Phase.generate],
    )
    def send(sent: Sent) -> None:
        calls(sent)

    send()


@each_service
@promise(
    "messages with any values in their fields, to every rpc",
    "an answer, or an error of the tree; no hang, no crash, no line in the log, no memory that stays taken",
)
def test_any_message_is_answered_or_refused(target: Target, service: str, happened: Happened) -> None:
    calls = Calls(target)
    send_any(any_message(service, target.likely), calls)
    happened(calls.told())


@each_service
@promise("bytes that are no message, to every rpc", "the same, with INVALID_REQUEST for what cannot be read")
def test_any_bytes_are_answered_or_refused(target: Target, service: str, happened: Happened) -> None:
    calls = Calls(target)
    send_any(any_bytes(service, target.likely), calls)
    happened(calls.told())
