"""When to come back after a refusal, as proxies say it: in the trailer `grpc-retry-pushback-ms` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from marquee.client.failures import Peer, translate
from marquee.client.rpcs import Service
from marquee.errors import Overloaded
from tests.chain_rigs import ended, serving

PEER = Peer(Service.RETRIEVER, "here", 1.0, encrypted=False)


@pytest.mark.parametrize(("said", "after_s"), [(None, None), ("1500", 1.5), ("0", 0.0), ("-1", None), ("soon", None)])
async def test_the_trailer_says_when(tmp_path: Path, said: str | None, after_s: float | None) -> None:
    async def refuse(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        trailers = () if said is None else (("grpc-retry-pushback-ms", said),)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", trailers)
        raise AssertionError("unreachable")

    async with serving(tmp_path, {"Refuse": refuse}) as served:
        failed = await ended(served.call("Refuse"))
    assert isinstance(failed, grpc.aio.AioRpcError)
    told = translate(failed, PEER)
    assert isinstance(told, Overloaded)
    assert told.retry_after_s == after_s


async def test_a_service_says_the_same_in_both_ways(tmp_path: Path) -> None:
    async def refuse(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        raise Overloaded("too many calls", retry_after_s=2.0)

    async with serving(tmp_path, {"Refuse": refuse}) as served:
        failed = await ended(served.call("Refuse"))
    assert isinstance(failed, grpc.aio.AioRpcError)
    told = translate(failed, PEER)
    assert isinstance(told, Overloaded)
    assert told.retry_after_s == 2.0
