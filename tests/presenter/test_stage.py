"""A loop in a thread: what a window starts runs there, and ends with it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from clients.presenter import Stage
from tests.rigs import DEADLINE_S


async def _where() -> int:
    return threading.get_ident()


def test_work_runs_on_another_thread() -> None:
    with Stage() as stage:
        assert stage.run(_where()).result(DEADLINE_S) != threading.get_ident()


def test_a_cancelled_future_cancels_the_work() -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with Stage() as stage:
        future = stage.run(work())
        assert started.wait(DEADLINE_S)
        future.cancel()
        assert cancelled.wait(DEADLINE_S)


def test_leaving_cancels_what_runs_and_closing_again_is_no_error() -> None:
    with Stage() as stage:
        future = stage.run(asyncio.Event().wait())
    assert future.cancelled()
    stage.close()
    with pytest.raises(RuntimeError):
        stage.run(_where())
