"""The services up, and clients and the command line against them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from marquee.client import AsyncRecommender, Recommender
from tests.client.fakes import (
    ROOT,
    Ask,
    Fake,
    Finished,
    MakeClient,
    RunCli,
    Services,
    StartCli,
    awaitable,
    blocking,
    cli_environment,
    encoder_on,
    refusing,
    retriever_on,
    serving,
)


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    fake = Fake()
    async with (
        serving(lambda server: encoder_on(server, fake)) as encoder,
        serving(lambda server: retriever_on(server, fake)) as retriever,
    ):
        yield Services(fake, encoder, retriever)


@pytest.fixture(params=["sync", "async"])
async def make_client(request: pytest.FixtureRequest) -> AsyncIterator[MakeClient]:
    """Makes clients of both kinds: the suite that uses it runs twice."""
    made: list[Ask] = []

    def make(encoder: str | Sequence[str], retriever: str | Sequence[str], **settings: Any) -> Ask:
        settings.setdefault("deadline_s", 20.0)
        if request.param == "sync":
            made.append(blocking(Recommender(encoder, retriever, **settings)))
        else:
            made.append(awaitable(AsyncRecommender(encoder, retriever, **settings)))
        return made[-1]

    yield make
    for ask in made:
        await ask("close")


@pytest.fixture
async def client(make_client: MakeClient, services: Services) -> Ask:
    return make_client(services.encoder, services.retriever)


@pytest.fixture
def start_cli(services: Services) -> StartCli:
    """Starts the command line against the fake services."""

    async def start(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
        addresses = {"MARQUEE_ENCODER": services.encoder, "MARQUEE_RETRIEVER": services.retriever}
        pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        options = {"env": cli_environment(**addresses)} | pipes | options
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "clients.cli", *arguments, cwd=ROOT, **options
        )

    return start


@pytest.fixture
def cli(
    start_cli: StartCli,
) -> RunCli:
    """Runs the command line to its end."""

    async def run(*arguments: str) -> Finished:
        process = await start_cli(*arguments)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(), err.decode())

    return run


@pytest.fixture
def nobody() -> Iterator[str]:
    with refusing() as address:
        yield address
