"""Both services on one registry, under a load that checks every list, while what they are told to load is damaged."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from marquee.bundle.format import MANIFEST, Bundle
from marquee.bundle.registry import POINTER, Registry
from marquee.client import AsyncRecommender, BundleRole, ReplicaState
from tests.bundles import make_bundle
from tests.chaos.load import RIGHT, Load, expect, loading, record_people
from tests.rigs import DEADLINE_S, Process, service_process
from tests.rollout.damage import OTHER

MOVIES = 50
BOTH = ("user_encoder", "retriever")
_RATE = 20
# Nothing here is to be slow, but a machine may be.
PATIENT_S = 2.5
_generations = itertools.count(100)


class Bundles(NamedTuple):
    """Are what the tests copy: `served` is active, `next` is of another space, `other` beside it of a third."""

    folder: Path
    served: Bundle
    next: Bundle


def make_bundles(folder: Path) -> Bundles:
    """Makes them."""
    served = make_bundle(folder / "served", movies=MOVIES, seed=1)
    following = make_bundle(folder / "next", movies=40, seed=2)
    make_bundle(folder / OTHER, movies=41, seed=3, dimension=8, quality=0.6)
    return Bundles(folder, served, following)


class Services(NamedTuple):
    """Are both services as a test damages what they read."""

    sdk: AsyncRecommender
    load: Load
    registry: Registry
    bundles: Bundles

    async def states(self) -> dict[str, ReplicaState]:
        """Asks both what they have loaded."""
        encoder = await self.sdk.encoder_state(deadline_s=DEADLINE_S)
        return {"user_encoder": encoder, "retriever": await self.sdk.retriever_state(deadline_s=DEADLINE_S)}

    async def until(self, holds: Callable[[ReplicaState], bool], *services: str) -> None:
        """Waits until something holds of some services, or of both."""
        async with asyncio.timeout(DEADLINE_S):
            while not all(holds(state) for name, state in (await self.states()).items() if name in (services or BOTH)):
                await asyncio.sleep(0.02)

    async def keep(self, complaint: str, *services: str) -> None:
        """Waits until services say what is wrong, and checks that they serve what they had and nothing else."""
        await self.until(lambda state: complaint in (state.reload_error or ""), *services)
        for name, state in (await self.states()).items():
            if name in (services or BOTH):
                roles = [(one.bundle_id, one.role) for one in state.bundles]
                assert roles == [(self.bundles.served.id, BundleRole.ACTIVE)]

    async def follow(self, active: Bundle, standby: Bundle | None = None) -> None:
        """Points to bundles, and waits until both services have them and nothing to complain of."""
        ids = [one.id for one in (active, standby) if one is not None]
        self.point_to(active.id, standby.id if standby else "")
        generation = self.registry.read().generation
        await self.until(lambda state: state.reload_error is None and state.generation == generation)
        # What has left retires first.
        await self.until(lambda state: [one.bundle_id for one in state.bundles] == ids)

    def point_to(self, active: str, standby: str = "", generation: int | None = None) -> None:
        """Writes a pointer where no command would, as a program that copies a registry might."""
        if generation is None:
            generation = next(_generations)
        fields = {"format": 1, "generation": generation, "active": active, "standby": standby, "history": []}
        self.write_pointer(json.dumps(fields).encode())

    def write_pointer(self, data: bytes) -> None:
        """Replaces the pointer by any bytes."""
        aside = self.registry.root / "aside"
        aside.write_bytes(data)
        aside.rename(self.registry.root / POINTER)

    def install(self, change: Callable[[Path], object] = lambda folder: None, *, renamed: bool = False) -> Path:
        """Puts a copy of the next bundle, changed so, into the registry, in the place of one that is there.

        Under the bundle's own id or, renamed, under that of the manifest as it was changed.
        """
        folder = self.bundles.folder / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.bundles.next.path, folder)
        change(folder)
        manifest = (folder / MANIFEST).read_bytes() if renamed else b""
        bundle_id = hashlib.sha256(manifest).hexdigest() if renamed else self.bundles.next.id
        place = self.registry.bundle_path(bundle_id)
        shutil.rmtree(place, ignore_errors=True)
        folder.rename(place)
        return place


def start_both(stack: contextlib.ExitStack, folder: Path, registry: Path) -> list[Process]:
    """Starts both services; all that they log has room in a pipe that nobody reads before their end."""
    told = ("--poll-s=0.02", "--drain-s=0", "--retire-quiet-s=0", "--log-level=error")
    store = f"--store={folder / 'features.sqlite'}"
    starting = (("user_encoder", *told, store), ("retriever", *told))
    with ThreadPoolExecutor(len(starting)) as threads:
        return list(threads.map(lambda one: _started(stack, folder, registry, *one), starting))


def _started(stack: contextlib.ExitStack, folder: Path, registry: Path, service: str, *told: str) -> Process:
    return stack.enter_context(service_process(service, folder, registry, *told))


@contextlib.asynccontextmanager
async def under_load(bundles: Bundles, registry: Registry, processes: list[Process]) -> AsyncIterator[Services]:
    """Loads both services to the end of the block, where every list was right and the next good bundle is taken in."""
    addresses = [f"127.0.0.1:{process.port}" for process in processes]
    async with AsyncRecommender(*addresses, deadline_s=PATIENT_S) as sdk:
        await record_people(sdk)
        async with loading(sdk, expect(bundles.served, MOVIES), rate=_RATE) as load:
            services = Services(sdk, load, registry, bundles)
            yield services
            services.install()
            await services.follow(bundles.served, bundles.next)
            await services.follow(bundles.served)
            await load.until(RIGHT)
    assert set(load.count()) == {RIGHT}, load.others()
