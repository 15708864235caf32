"""What a replica has loaded follows the registry's pointer, and a bad bundle changes nothing."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from marquee.bundle.format import INDEX, REPORT, Bundle
from marquee.bundle.registry import Registry
from marquee.errors import BundleError, RegistryError, SpaceNotLoaded
from marquee.v1 import types_pb2
from services.common.settings import CommonSettings
from services.common.spaces import Spaces
from services.retriever.retrieval import Retrieval
from tests.bundles import make_bundle


class Bundles(NamedTuple):
    """Holds bundles of four spaces, and a revision of the first."""

    one: Bundle
    one_refreshed: Bundle
    two: Bundle
    three: Bundle
    four: Bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    folder = tmp_path_factory.mktemp("bundles")
    return Bundles(
        make_bundle(folder / "1", movies=20, seed=1),
        make_bundle(folder / "1-refreshed", movies=20, seed=1, added=2),
        *(make_bundle(folder / str(seed), movies=20, seed=seed) for seed in (2, 3, 4)),
    )


class World:
    """Is an empty registry and a replica that reads it."""

    def __init__(self, root: Path, **settings: float) -> None:
        self.registry = Registry(root)
        self.spaces = Spaces(self.registry, Retrieval, CommonSettings(registry=root, **settings))  # type: ignore[arg-type]

    def publish(self, bundle: Bundle, *, activate: bool = False) -> None:
        self.registry.publish(bundle.path, check=None)
        if activate:
            self.registry.activate(bundle.id, confirm=None)

    def damage(self, bundle: Bundle) -> None:
        file = self.registry.bundle_path(bundle.id) / INDEX
        file.write_bytes(file.read_bytes()[:-1] + b"?")

    def repair(self, bundle: Bundle) -> None:
        shutil.copyfile(bundle.file(INDEX), self.registry.bundle_path(bundle.id) / INDEX)

    def roles(self) -> dict[str, str]:
        """Lists the bundles that are loaded, in order, and their parts."""
        return {
            loaded.bundle.id: types_pb2.BundleRole.Name(loaded.role).removeprefix("BUNDLE_ROLE_").lower()
            for loaded in self.spaces.loaded()
        }


@pytest.fixture
async def started(tmp_path: Path, bundles: Bundles) -> World:
    """Serves bundle one, with nothing beside it."""
    world = World(tmp_path / "registry")
    world.publish(bundles.one, activate=True)
    await world.spaces.start()
    return world


async def test_active_and_standby_are_loaded(tmp_path: Path, bundles: Bundles) -> None:
    world = World(tmp_path / "registry")
    world.publish(bundles.one, activate=True)
    world.publish(bundles.two)
    await world.spaces.start()
    assert world.roles() == {bundles.one.id: "active", bundles.two.id: "standby"}
    assert world.spaces.get("").bundle.id == bundles.one.id
    assert world.spaces.get(bundles.two.space).model.index.space == bundles.two.space
    assert world.spaces.state() == (3, "")


async def test_a_space_that_is_not_loaded_is_refused_with_those_that_are(started: World, bundles: Bundles) -> None:
    started.publish(bundles.two)
    await started.spaces.poll()
    with pytest.raises(SpaceNotLoaded, match=bundles.one.space) as failure:
        started.spaces.get(bundles.three.space)
    assert failure.value.metadata == {
        "space": bundles.three.space,
        "loaded": f"{bundles.one.space},{bundles.two.space}",
    }


async def test_no_registry_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="there is no registry here"):
        await World(tmp_path / "nowhere").spaces.start()


async def test_no_active_bundle_is_no_start(tmp_path: Path, bundles: Bundles) -> None:
    world = World(tmp_path / "registry")
    world.publish(bundles.one)
    with pytest.raises(RegistryError, match="has no active bundle; make the standby active with"):
        await world.spaces.start()


async def test_a_bundle_that_is_gone_is_no_start(tmp_path: Path, bundles: Bundles) -> None:
    world = World(tmp_path / "registry")
    world.publish(bundles.one, activate=True)
    shutil.rmtree(world.registry.bundle_path(bundles.one.id))
    with pytest.raises(RegistryError, match="put that folder back, or publish the bundle again"):
        await world.spaces.start()


async def test_a_damaged_active_bundle_is_no_start(tmp_path: Path, bundles: Bundles) -> None:
    world = World(tmp_path / "registry")
    world.publish(bundles.one, activate=True)
    world.damage(bundles.one)
    with pytest.raises(BundleError, match=f"{INDEX}: its sha256 is not the manifest's"):
        await world.spaces.start()


async def test_a_damaged_standby_does_not_keep_the_active_from_serving(tmp_path: Path, bundles: Bundles) -> None:
    world = World(tmp_path / "registry")
    world.publish(bundles.one, activate=True)
    world.publish(bundles.two)
    world.damage(bundles.two)
    await world.spaces.start()
    assert world.roles() == {bundles.one.id: "active"}
    generation, error = world.spaces.state()
    assert generation == 0
    assert INDEX in error


async def test_a_flip_changes_roles_and_loads_nothing(started: World, bundles: Bundles) -> None:
    started.publish(bundles.two)
    await started.spaces.poll()
    before = {loaded.bundle.id: loaded.model for loaded in started.spaces.loaded()}
    started.registry.activate(confirm=None)
    await started.spaces.poll()
    assert started.roles() == {bundles.two.id: "active", bundles.one.id: "standby"}
    assert started.spaces.get("").bundle.id == bundles.two.id
    assert {loaded.bundle.id: loaded.model for loaded in started.spaces.loaded()} == before


async def test_a_refresh_replaces_its_own_space_in_place(started: World, bundles: Bundles) -> None:
    started.publish(bundles.two)
    await started.spaces.poll()
    in_a_call = started.spaces.get(bundles.one.space)
    started.publish(bundles.one_refreshed)
    await started.spaces.poll()
    assert started.roles() == {bundles.one_refreshed.id: "active", bundles.two.id: "standby"}
    assert started.spaces.get(bundles.one.space).model.index.count == 22
    # The call that runs meanwhile keeps what it got.
    assert in_a_call.model.index.count == in_a_call.model.catalog.count == 20
    assert in_a_call.model.catalog.get(1) is not None


async def test_a_space_that_left_the_pointer_answers_until_it_is_quiet(tmp_path: Path, bundles: Bundles) -> None:
    world = World(tmp_path / "registry", retire_quiet_s=1000.0)
    world.publish(bundles.one, activate=True)
    world.publish(bundles.two)
    await world.spaces.start()
    world.publish(bundles.three)
    await world.spaces.poll()
    assert world.roles() == {bundles.one.id: "active", bundles.three.id: "standby", bundles.two.id: "retiring"}
    assert world.spaces.get(bundles.two.space).bundle.id == bundles.two.id
    await world.spaces.poll()
    assert bundles.two.id in world.roles()


async def test_a_quiet_space_is_dropped_and_logged(
    tmp_path: Path, bundles: Bundles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = World(tmp_path / "registry", retire_quiet_s=0.0)
    world.publish(bundles.one, activate=True)
    world.publish(bundles.two)
    await world.spaces.start()
    world.publish(bundles.three)
    await world.spaces.poll()
    assert world.roles() == {bundles.one.id: "active", bundles.three.id: "standby"}
    assert f"dropped {bundles.two!r}" in caplog.text
    with pytest.raises(SpaceNotLoaded):
        world.spaces.get(bundles.two.space)


async def test_one_space_retires_at_a_time(started: World, bundles: Bundles) -> None:
    for standby in (bundles.two, bundles.three, bundles.four):
        started.publish(standby)
        await started.spaces.poll()
    assert started.roles() == {bundles.one.id: "active", bundles.four.id: "standby", bundles.three.id: "retiring"}


async def test_the_space_that_was_active_outlasts_standbys_that_never_were(started: World, bundles: Bundles) -> None:
    started.publish(bundles.two, activate=True)
    await started.spaces.poll()
    # Encoders that lag behind still answer in the first space, in whichever revision.
    started.publish(bundles.one_refreshed)
    for standby in (bundles.three, bundles.four):
        await started.spaces.poll()
        started.publish(standby)
    await started.spaces.poll()
    roles = {bundles.two.id: "active", bundles.four.id: "standby", bundles.one_refreshed.id: "retiring"}
    assert started.roles() == roles


async def test_a_retiring_space_that_comes_back_is_not_loaded_again(started: World, bundles: Bundles) -> None:
    for standby in (bundles.two, bundles.three):
        started.publish(standby)
        await started.spaces.poll()
    retiring = started.spaces.get(bundles.two.space)
    assert retiring.role == types_pb2.BUNDLE_ROLE_RETIRING
    started.publish(bundles.two)
    await started.spaces.poll()
    back = started.spaces.get(bundles.two.space)
    assert (back.role, back.model) == (types_pb2.BUNDLE_ROLE_STANDBY, retiring.model)


async def test_a_bad_bundle_is_kept_out_told_once_and_taken_in_when_it_is_whole(
    started: World, bundles: Bundles, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = started.spaces.state().generation
    started.publish(bundles.two)
    started.damage(bundles.two)
    for _ in range(3):
        await started.spaces.poll()
    assert started.roles() == {bundles.one.id: "active"}
    generation, error = started.spaces.state()
    assert (generation, "its sha256 is not the manifest's" in error) == (before, True)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1

    # The pointer has not changed: the bundle is looked at again after a while, and not before.
    started.repair(bundles.two)
    await started.spaces.poll()
    assert started.roles() == {bundles.one.id: "active"}
    monkeypatch.setattr("services.common.spaces._RETRY_S", 0.0)
    await started.spaces.poll()
    assert started.roles() == {bundles.one.id: "active", bundles.two.id: "standby"}
    assert started.spaces.state() == (before + 1, "")


async def test_a_bad_refresh_of_the_active_leaves_the_active(started: World, bundles: Bundles) -> None:
    started.publish(bundles.one_refreshed)
    started.damage(bundles.one_refreshed)
    await started.spaces.poll()
    assert started.roles() == {bundles.one.id: "active"}
    assert started.spaces.state().reload_error != ""


async def test_an_active_that_cannot_be_loaded_leaves_the_old_one_beside_a_good_standby(
    started: World, bundles: Bundles
) -> None:
    started.publish(bundles.two, activate=True)
    started.publish(bundles.three)
    started.damage(bundles.two)
    await started.spaces.poll()
    assert started.roles() == {bundles.one.id: "active", bundles.three.id: "standby"}
    assert started.spaces.state().reload_error != ""


async def test_a_registry_that_cannot_be_read_changes_nothing(started: World, bundles: Bundles) -> None:
    pointer = started.registry.root / "registry.json"
    text = pointer.read_text()
    pointer.write_text("{")
    await started.spaces.poll()
    assert started.roles() == {bundles.one.id: "active"}
    assert "registry.json" in started.spaces.state().reload_error
    pointer.write_text(text)
    await started.spaces.poll()
    assert started.spaces.state().reload_error == ""


async def test_a_registry_made_anew_without_an_active_bundle_changes_nothing(started: World, bundles: Bundles) -> None:
    shutil.rmtree(started.registry.root)
    started.publish(bundles.two)
    await started.spaces.poll()
    assert started.spaces.get("").bundle.id == bundles.one.id
    assert "has no active bundle" in started.spaces.state().reload_error


async def test_whatever_a_parser_raises_is_a_bundle_error(tmp_path: Path, bundles: Bundles) -> None:
    def load(bundle: Bundle) -> None:
        raise ValueError("odd bytes")

    registry = Registry(tmp_path)
    registry.publish(bundles.one.path, check=None)
    registry.activate(confirm=None)
    with pytest.raises(BundleError, match=r"cannot be loaded \(ValueError: odd bytes\); publish the bundle again"):
        await Spaces(registry, load, CommonSettings()).start()


async def test_a_damaged_report_keeps_no_bundle_out(tmp_path: Path, bundles: Bundles) -> None:
    world = World(tmp_path)
    world.publish(bundles.one, activate=True)
    (world.registry.bundle_path(bundles.one.id) / REPORT).write_text("{")
    await world.spaces.start()
    assert len(world.spaces.replica_state().bundles[0].metrics) == 0


async def test_watch_follows_the_pointer_by_itself(tmp_path: Path, bundles: Bundles) -> None:
    world = World(tmp_path, poll_s=0.01, reload_delay_s=0.01)
    world.publish(bundles.one, activate=True)
    await world.spaces.start()
    watch = asyncio.ensure_future(world.spaces.watch())
    world.publish(bundles.two, activate=True)
    async with asyncio.timeout(20):
        while world.spaces.get("").bundle.id != bundles.two.id:
            await asyncio.sleep(0.01)
    watch.cancel()
    assert world.roles() == {bundles.two.id: "active", bundles.one.id: "standby"}
