"""Both services as processes, on the bundle that was trained on planted tastes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from marquee.client import Recommender
from services.user_encoder.__main__ import main as user_encoder
from tests.conftest import Planted
from tests.rigs import publish, service_process


@pytest.fixture(scope="session")
def marquee(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recommender]:
    """Serves the planted bundle with the planted histories in the store; yields a client."""
    folder = tmp_path_factory.mktemp("served")
    registry = publish(folder / "registry", planted.bundle).root
    store = folder / "features.sqlite"
    assert user_encoder(["import-events", "--data", str(planted.data), "--store", str(store)]) == 0
    with contextlib.ExitStack() as stack:
        encoder = stack.enter_context(service_process("user_encoder", folder, registry, f"--store={store}"))
        retriever = stack.enter_context(service_process("retriever", folder, registry))
        addresses = (f"127.0.0.1:{encoder.port}", f"127.0.0.1:{retriever.port}")
        yield stack.enter_context(Recommender(*addresses, deadline_s=10.0))
