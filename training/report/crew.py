"""Makes the runs that are missing, each in a process of its own with one thread, some at a time.

A process may be killed at any moment: a result appears whole, under its name, or not at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from marquee.errors import DataError
from training.report.plan import Order

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
TEMPORARY = ".run-"


class Job(NamedTuple):
    """Is a run to make by some version of the code, with the folder of the data and the one where the result goes."""

    order: Order
    code: str
    data: Path
    columns: Path | None
    place: Path


# Called with the job and the seconds it took.
Done = Callable[[Job, float], None]


def make_runs(jobs: list[Job], at_a_time: int, done: Done) -> None:
    """Makes the runs whose result is not there yet.

    Raises DataError with what the first failing run said; the others are stopped, finished ones stay.
    """
    for folder in {job.place.parent for job in jobs}:
        remove_leftovers(folder)
    missing = [job for job in jobs if not job.place.is_dir()]
    asyncio.run(_make_all(missing, at_a_time, done))


def remove_leftovers(folder: Path) -> None:
    """Removes what killed runs left half-written."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


async def _make_all(jobs: list[Job], at_a_time: int, done: Done) -> None:
    free = asyncio.Semaphore(at_a_time)

    async def make(job: Job) -> None:
        async with free:
            started = time.perf_counter()
            await _make(job)
            done(job, time.perf_counter() - started)

    tasks = [asyncio.create_task(make(job)) for job in jobs]
    try:
        for finished in asyncio.as_completed(tasks):
            await finished
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _make(job: Job) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "training.report.worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | _ONE_THREAD,
        cwd=Path(__file__).parents[2],
        start_new_session=True,  # Ctrl-C is for this process, which ends the others
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        process.stdin.write(_told(job).encode())
        await process.stdin.drain()
        # Its end of the pipe stays open: the run ends itself when this process is gone.
        said = await process.stderr.read()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        raise DataError(f"run {job.order.name} failed: {_last_line(said) or f'it ended with code {code}'}")


def _told(job: Job) -> str:
    paths = {"data": job.data, "place": job.place} | ({"columns": job.columns} if job.columns else {})
    told = {name: str(path.resolve()) for name, path in paths.items()}
    return json.dumps({"order": list(job.order), "code": job.code} | told) + "\n"


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
