"""Deadlines: every call has one, what has expired does not run, and what is asked further in knows what is left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from marquee.errors import DeadlineExceeded
from services.common.deadlines import time_left
from tests.chain_rigs import SERVICE, ended, serving
from tests.rigs import error_of


async def never(request: bytes, context: object) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def tell(request: bytes, context: object) -> bytes:
    return repr(time_left()).encode()


@pytest.mark.parametrize("timeout", [None, 30.0])
async def test_a_call_gets_no_longer_than_the_service_gives_any(tmp_path: Path, timeout: float | None) -> None:
    async with serving(tmp_path, {"Never": never}, max_deadline_s=0.05) as served:
        failed = await ended(served.call("Never", timeout=timeout))
        assert isinstance(failed, grpc.aio.AioRpcError)
        assert failed.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        error = error_of(failed)
        assert isinstance(error, DeadlineExceeded)
        assert "/test.v1.TestService/Never took longer than the 0.05 s" in error.message
        assert "--max-deadline-s" in error.message


@pytest.mark.parametrize(("timeout", "longest_s"), [(None, 20.0), (40.0, 20.0), (10.0, 10.0)])
async def test_what_is_asked_further_in_knows_what_is_left(
    tmp_path: Path, timeout: float | None, longest_s: float
) -> None:
    async with serving(tmp_path, {"Tell": tell}, max_deadline_s=20.0) as served:
        left_s = float(await served.call("Tell", timeout=timeout))
    # gRPC rounds deadlines up by up to a hundredth, and how long the call was on its way is the machine's.
    assert longest_s - 5 < left_s <= longest_s * 1.02


async def test_outside_of_calls_nothing_ends() -> None:
    assert time_left() is None


async def test_what_is_left_is_told_until_nothing_is(tmp_path: Path) -> None:
    async def hold(request: bytes, context: object) -> bytes:
        # On the event loop, as a handler that computes: nothing can end it from outside.
        time.sleep(0.06)
        time_left()
        raise AssertionError("unreachable")

    async with serving(tmp_path, {"Hold": hold}, max_deadline_s=0.05) as served:
        failed = await ended(served.call("Hold"))
    assert isinstance(failed, grpc.aio.AioRpcError)
    assert "had passed before it was answered; give it a longer one" in (failed.details() or "")
    assert isinstance(error_of(failed), DeadlineExceeded)


async def test_a_timeout_of_the_methods_own_is_no_deadline(tmp_path: Path) -> None:
    async def fail(request: bytes, context: object) -> bytes:
        raise TimeoutError("something else")

    async with serving(tmp_path, {"Fail": fail}, max_deadline_s=20.0) as served:
        failed = await ended(served.call("Fail"))
    assert isinstance(failed, grpc.aio.AioRpcError)
    assert failed.code() == grpc.StatusCode.INTERNAL


async def test_a_call_that_waited_too_long_in_the_core_does_not_run(tmp_path: Path) -> None:
    begun: list[bytes] = []

    async def note(request: bytes, context: object) -> bytes:
        begun.append(request)
        return b""

    async with serving(tmp_path, {"Note": note}) as served:
        with grpc.insecure_channel(f"127.0.0.1:{served.life.port}") as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/Note")
            await asyncio.to_thread(call, b"early")
            late = call.future(b"late", timeout=0.05)
            # Holds the event loop until well after the deadline.
            assert late.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await asyncio.to_thread(call, b"in time")
    assert begun == [b"early", b"in time"]
