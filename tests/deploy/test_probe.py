"""The probe for engines that have none of gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.common.probe import main
from tests.bundles import make_bundle
from tests.rigs import publish, retriever


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return publish(tmp_path / "registry", make_bundle(tmp_path / "bundle")).root


async def test_it_says_whether_the_service_is_ready(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with retriever(registry, health_port=0) as rig:
        told = {"MARQUEE_HEALTH_PORT": str(rig.life.health_port)}
        assert await asyncio.to_thread(main, told) == 0
        rig.life.health.set_serving(False)
        assert await asyncio.to_thread(main, told) == 1
        assert "not ready" in capsys.readouterr().err
    assert main(told) == 1
    assert "does not answer" in capsys.readouterr().err


def test_without_a_port_it_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main({}) == 1
    assert "MARQUEE_HEALTH_PORT is not set" in capsys.readouterr().err
