"""A presenter on both services, as they ship, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from clients.presenter import Presenter
from marquee.client import AsyncRecommender
from tests.bundles import make_bundle
from tests.encoder_rigs import encoder
from tests.rigs import publish, retriever

# Enough for a machine that does other things, too.
PATIENCE_S = 20.0


class Stand(NamedTuple):
    """Is a presenter and what takes a service of it away."""

    presenter: Presenter
    encoder: contextlib.AsyncExitStack
    retriever: contextlib.AsyncExitStack


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("presenter")
    return publish(folder / "registry", make_bundle(folder / "bundle")).root


@pytest.fixture
async def stand(registry: Path, tmp_path: Path) -> AsyncIterator[Stand]:
    async with contextlib.AsyncExitStack() as encoding, contextlib.AsyncExitStack() as retrieving:
        encoder_port = (await encoding.enter_async_context(encoder(registry, tmp_path / "store.sqlite"))).port
        retriever_port = (await retrieving.enter_async_context(retriever(registry))).life.port
        addresses = f"127.0.0.1:{encoder_port}", f"127.0.0.1:{retriever_port}"
        async with AsyncRecommender(*addresses, deadline_s=PATIENCE_S) as client:
            yield Stand(Presenter(client, size=10, reasons_s=PATIENCE_S), encoding, retrieving)


@pytest.fixture
def presenter(stand: Stand) -> Presenter:
    return stand.presenter
