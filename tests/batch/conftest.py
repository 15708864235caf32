"""A small bundle, events of people, and both services over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from marquee.bundle.format import MOVIE_IDS, Bundle
from tests.batch.rigs import write_ratings
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, encoder
from tests.rigs import Rig, publish, retriever, run_service_process

PEOPLE = 90


class World(NamedTuple):
    """Is a bundle in a registry, and a folder with events of people."""

    bundle: Bundle
    registry: Path
    events: Path


class Served(NamedTuple):
    """Is a world whose events are in a store, with both services over it."""

    world: World
    encoder: EncoderRig
    retriever: Rig

    @property
    def addresses(self) -> tuple[str, ...]:
        """Says to the command where they are."""
        return (
            f"--encoder=127.0.0.1:{self.encoder.port}",
            f"--retriever=127.0.0.1:{self.retriever.life.port}",
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    bundle = make_bundle(tmp_path / "bundle", movies=60)
    publish(tmp_path / "registry", bundle)
    # Some are of movies that the bundle has not.
    movie_ids = [*bundle.array(MOVIE_IDS).tolist(), 9_000_001, 9_000_002]
    return World(bundle, tmp_path / "registry", write_ratings(tmp_path / "events", PEOPLE, movie_ids))


@pytest.fixture
def store(world: World, tmp_path: Path) -> Path:
    path = tmp_path / "features.sqlite"
    done = run_service_process("user_encoder", "import-events", f"--data={world.events}", f"--store={path}")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
async def served(world: World, store: Path) -> AsyncIterator[Served]:
    async with encoder(world.registry, store) as users, retriever(world.registry) as movies:
        yield Served(world, users, movies)
