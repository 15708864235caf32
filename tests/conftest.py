"""What several folders of tests share: a bundle that was really trained, once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from marquee.bundle.format import Bundle, open_bundle
from tests.milvus_rigs import MilvusServer, milvus_server
from tests.planted import write_planted
from tests.redis_rigs import RedisCluster, RedisServer, redis_cluster, redis_server


class Planted(NamedTuple):
    """Is a bundle trained on planted tastes, and the data it was trained on."""

    data: Path
    bundle: Bundle


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Trains the pooled tower on planted tastes."""
    # Not at the top: most tests need no PyTorch, whose import takes seconds.
    from training.__main__ import main

    folder = tmp_path_factory.mktemp("planted")
    data = write_planted(folder / "data")
    assert main(["--data", str(data), "--out", str(folder / "bundle"), "--dimension", "32"]) == 0
    return Planted(data, open_bundle(folder / "bundle"))


@pytest.fixture(scope="session")
def redis_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Is a Redis that the tests share; one who breaks it starts their own."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_six(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Is a Redis Cluster that the tests share; one who breaks it starts their own."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def milvus_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """Is a Milvus for those who do not break it."""
    with milvus_server(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture
def milvus_lite(milvus_process: MilvusServer) -> Iterator[MilvusServer]:
    """Is a Milvus that the tests share, and may break."""
    yield milvus_process
    milvus_process.bring_back()


def pytest_addoption(parser: pytest.Parser) -> None:
    # Here and not in tests/chaos: options are known before its conftest is read.
    parser.addoption("--write-reliability", action="store_true", help="write what happened into docs/reliability.md")
