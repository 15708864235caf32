"""A call whose deadline has passed is refused at once: written to the socket, as no client of gRPC sends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from marquee.features import LIKED
from marquee.v1 import user_encoder_pb2
from tests.bundles import make_bundle
from tests.encoder_rigs import Row, columns, encoder
from tests.raw_http2 import raw
from tests.rigs import publish

EVENTS = columns(Row(1, LIKED, 0, 1000))
CALLS = {
    "Encode": user_encoder_pb2.EncodeRequest(events=EVENTS),
    "BatchEncode": user_encoder_pb2.BatchEncodeRequest(items=[user_encoder_pb2.BatchEncodeItem(events=EVENTS)]),
    "Explain": user_encoder_pb2.ExplainRequest(events=EVENTS, movie_ids=[4]),
}

# The name of the status in the trailers, after its length.
MARK = b"\x0bgrpc-status"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deadlines")
    publish(folder / "registry", make_bundle(folder / "bundle"))
    return folder / "registry"


@pytest.fixture
async def port(registry: Path, tmp_path: Path) -> AsyncIterator[int]:
    async with encoder(registry, tmp_path / "features.sqlite") as rig:
        yield rig.port


async def status_of(port: int, method: str, message: bytes, timeout: str) -> int:
    """Calls a method with a grpc-timeout of one's own; returns the grpc-status, which is a single digit here."""
    async with raw(port) as client:
        client.call(1, f"/marquee.v1.UserEncoderService/{method}", message, timeout)
        trailers = await client.until(lambda frame: MARK in frame.payload)
    return int(trailers.payload.partition(MARK)[2][1:2])


@pytest.mark.parametrize("timeout", ["0n", "0m"])
@pytest.mark.parametrize("method", list(CALLS))
async def test_a_call_that_comes_too_late_is_refused(port: int, method: str, timeout: str) -> None:
    status = await status_of(port, method, CALLS[method].SerializeToString(), timeout)
    assert status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_a_call_that_comes_in_time_is_answered(port: int) -> None:
    assert await status_of(port, "Encode", CALLS["Encode"].SerializeToString(), "20S") == 0
