"""A damaged bundle is refused by name, wherever it is met; what was served stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import grpc.aio
import numpy as np
import pytest

from marquee.bundle.format import (
    CATALOG,
    EVALUATION,
    INDEX,
    ITEM_VECTORS,
    MANIFEST,
    MOVIE_IDS,
    PROBES,
    REPORT,
    USER_TOWER,
    Bundle,
    open_bundle,
    sha256_of,
)
from marquee.bundle.registry import Registry
from marquee.errors import BundleError, RegistryError
from marquee.features import LIKED
from marquee.v1 import retriever_pb2, retriever_pb2_grpc, types_pb2, user_encoder_pb2, user_encoder_pb2_grpc
from services.common.settings import CommonSettings
from services.common.spaces import Spaces
from services.retriever.retrieval import Retrieval
from tests.bundles import make_bundle
from tests.encoder_rigs import Row, columns, stubs
from tests.rigs import DEADLINE_S, publish, run_service_process, service_process
from tests.rollout.damage import BY_NAME, DAMAGES, OTHER, Damage, edit, flip_bit, of_file, write

SERVICES = ("user_encoder", "retriever")


class World(NamedTuple):
    """Is a folder of exported bundles, and a registry where `served` is active and `next` standby."""

    folder: Path
    served: Bundle
    next: Bundle

    @property
    def registry(self) -> Registry:
        return Registry(self.folder / "registry")

    @property
    def installed(self) -> Path:
        """Is the standby's folder in the registry."""
        return self.registry.bundle_path(self.next.id)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("pristine")
    served = make_bundle(folder / "served", movies=20, seed=1)
    following = make_bundle(folder / "next", movies=40, seed=2)
    make_bundle(folder / OTHER, movies=41, seed=3, quality=0.6)
    publish(folder / "registry", served)
    publish(folder / "registry", following, activate=False)
    shutil.copytree(folder / OTHER, folder / "registry" / "bundles" / OTHER)
    return World(folder, served, following)


@pytest.fixture
def world(pristine: World, tmp_path: Path) -> World:
    """Copies the pristine world, so that a test may damage it."""
    folder = tmp_path / "world"
    shutil.copytree(pristine.folder, folder)
    return World(folder, open_bundle(folder / "served"), open_bundle(folder / "next"))


@contextlib.contextmanager
def unchanged(registry: Registry) -> Iterator[None]:
    """Checks that neither the pointer nor any folder beside it changes."""

    def now() -> tuple[bytes, list[str]]:
        return (registry.root / "registry.json").read_bytes(), sorted(os.listdir(registry.root / "bundles"))

    before = now()
    yield
    assert now() == before


damages = pytest.mark.parametrize("damage", DAMAGES, ids=[damage.name for damage in DAMAGES])


def test_the_table_has_every_file_and_no_case_twice() -> None:
    assert len(BY_NAME) == len(DAMAGES)


@damages
def test_a_damaged_export_is_neither_opened_nor_published(world: World, damage: Damage) -> None:
    damage.apply(world.next.path)
    with pytest.raises(BundleError) as refused:
        open_bundle(world.next.path)
    assert damage.file in refused.value.message
    with unchanged(world.registry), pytest.raises(BundleError) as unpublished:
        world.registry.publish(world.next.path, check=None)
    assert unpublished.value.message == refused.value.message


@damages
def test_a_bundle_damaged_in_the_registry_is_not_activated_and_is_mended_by_publishing_it_again(
    world: World, damage: Damage
) -> None:
    damage.apply(world.installed)
    with unchanged(world.registry), pytest.raises((BundleError, RegistryError)) as refused:
        world.registry.activate(confirm=None)
    assert damage.file in refused.value.message or str(world.installed) in refused.value.message
    with unchanged(world.registry):
        world.registry.publish(world.next.path, check=None)
    assert world.registry.activate(confirm=None).active == world.next.id
    assert open_bundle(world.installed).id == world.next.id


def test_whichever_bit_of_the_manifest_is_flipped_the_bundle_is_not_what_its_id_says(
    pristine: World, tmp_path: Path
) -> None:
    folder = tmp_path / "next"
    shutil.copytree(pristine.next.path, folder)
    shutil.copytree(pristine.folder / OTHER, tmp_path / OTHER)
    manifest = (folder / MANIFEST).read_bytes()
    rng = np.random.default_rng(1)
    opened = 0
    for at in range(0, len(manifest), 5):
        flip_bit(folder, MANIFEST, at, int(rng.integers(8)))
        with contextlib.suppress(BundleError):
            assert open_bundle(folder).id != pristine.next.id
            opened += 1
        (folder / MANIFEST).write_bytes(manifest)
    # Some bits are of facts that nothing in the bundle can contradict: the seed, the name of the dataset.
    assert 0 < opened < len(manifest) / 20


# Edits that leave a whole bundle, if another one: only the id tells that it is not the one that was published.
QUIET_EDIT: Callable[[Path], None] = partial(edit, change=lambda fields: fields.update(code_version="edited"))


def test_a_manifest_edited_in_the_registry_is_another_bundle_and_refused(world: World) -> None:
    QUIET_EDIT(world.installed)
    assert open_bundle(world.installed).id != world.next.id
    for order in (partial(world.registry.activate, confirm=None), partial(world.registry.manifest, world.next.id)):
        with unchanged(world.registry), pytest.raises(BundleError, match=f"{world.installed / MANIFEST}: .*edited"):
            order()
    with unchanged(world.registry):
        world.registry.publish(world.next.path, check=None)
    assert world.registry.activate(confirm=None).active == world.next.id


def test_a_bundle_that_is_a_link_in_the_registry_is_refused_and_replaced_by_publishing_it_again(world: World) -> None:
    elsewhere = world.folder / "elsewhere"
    world.installed.rename(elsewhere)
    world.installed.symlink_to(elsewhere, target_is_directory=True)
    with unchanged(world.registry), pytest.raises(BundleError, match=f"{world.installed}: is a link"):
        world.registry.activate(confirm=None)
    with unchanged(world.registry):
        world.registry.publish(world.next.path, check=None)
    assert not world.installed.is_symlink()
    assert open_bundle(elsewhere).id == world.next.id, "what the link led to was left alone"
    assert world.registry.activate(confirm=None).active == world.next.id


def test_what_a_link_leads_to_is_not_deleted_with_it(world: World) -> None:
    elsewhere = world.folder / "elsewhere"
    shutil.copytree(world.installed, elsewhere)
    stray = world.registry.bundle_path("0" * 64)
    stray.symlink_to(elsewhere, target_is_directory=True)
    assert world.registry.gc(keep=0) == [stray.name]
    assert not os.path.lexists(stray)
    assert open_bundle(elsewhere).id == world.next.id


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "..", "", "A" * 64, "a" * 63 + "/"])
def test_a_bundles_id_is_no_path(world: World, name: str) -> None:
    with pytest.raises(RegistryError, match="is not a bundle id"):
        world.registry.bundle_path(name)


def test_no_bundle_is_judged_by_an_active_one_that_was_edited(world: World) -> None:
    QUIET_EDIT(world.registry.bundle_path(world.served.id))
    before = world.registry.read()
    with pytest.raises(BundleError, match="edited"):
        world.registry.publish(world.folder / OTHER, check=lambda candidate, active: pytest.fail("it was judged"))
    assert world.registry.read() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(field_of_the_future={"any": ["thing"]}),
        lambda fields: fields["files"][0].update(field_of_the_future=1),
        lambda fields: fields["features"].update(field_of_the_future=1),
        lambda fields: fields["format"].update(minor=9),
    ],
    ids=["in-the-manifest", "in-a-file", "in-the-features", "minor-version"],
)
def test_what_a_newer_minor_version_added_is_ignored(world: World, change: Callable[[object], object]) -> None:
    edit(world.next.path, change)
    newer = open_bundle(world.next.path)
    assert newer.id != world.next.id
    assert newer.space == world.next.space
    assert world.registry.publish(world.next.path, check=None).standby == newer.id


def test_a_further_file_is_taken_along_where_it_is_listed_and_left_where_not(world: World) -> None:
    for name in ("listed.bin", "unlisted.bin"):
        (world.next.path / name).write_text(name)
    facts = {"size": len("listed.bin"), "sha256": "0" * 64}
    edit(world.next.path, lambda fields: fields["files"].append({"name": "listed.bin", **facts}))
    with pytest.raises(BundleError, match=r"listed\.bin: its sha256"):
        open_bundle(world.next.path)
    edit(world.next.path, lambda fields: fields["files"][-1].update(sha256=sha256_of(world.next.path / "listed.bin")))
    world.registry.publish(world.next.path, check=None)
    place = world.registry.bundle_path(world.registry.read().standby)
    assert (place / "listed.bin").read_text() == "listed.bin"
    assert not (place / "unlisted.bin").exists()


@pytest.mark.parametrize("folder", ["nowhere", "next/manifest.json"])
def test_what_is_no_folder_is_no_bundle(world: World, folder: str) -> None:
    with unchanged(world.registry), pytest.raises(BundleError, match=r"manifest\.json"):
        world.registry.publish(world.folder / folder, check=None)


# No id covers the report: whatever becomes of it, the bundle is served.
REPORT_DAMAGES = [
    *of_file(REPORT),
    Damage("report.json-no-utf8", REPORT, partial(flip_bit, file=REPORT, at=10, bit=7)),
    Damage("report.json-no-report", REPORT, partial(write, file=REPORT, text='{"metrics": 5}')),
]
report_damages = pytest.mark.parametrize("damage", REPORT_DAMAGES, ids=[damage.name for damage in REPORT_DAMAGES])


@report_damages
def test_a_bundle_with_a_broken_report_is_published(world: World, damage: Damage) -> None:
    damage.apply(world.next.path)
    registry = Registry(world.folder / "fresh")
    assert registry.publish(world.next.path, check=None).standby == world.next.id
    arrived = registry.bundle_path(world.next.id) / REPORT
    assert not arrived.is_symlink()
    assert arrived.is_file() or not arrived.exists()


@report_damages
async def test_a_bundle_whose_report_breaks_in_the_registry_is_served(world: World, damage: Damage) -> None:
    damage.apply(world.installed)
    world.registry.activate(confirm=None)
    spaces = Spaces(world.registry, Retrieval, CommonSettings())
    await spaces.start()
    assert spaces.get("").bundle.id == world.next.id
    assert spaces.state() == (world.registry.read().generation, "")


class Service(NamedTuple):
    """Calls a service in the space of a bundle."""

    name: str
    channel: grpc.aio.Channel

    async def state(self) -> types_pb2.ReplicaState:
        if self.name == "user_encoder":
            return (await self._encoder.GetModel(user_encoder_pb2.GetModelRequest(), timeout=DEADLINE_S)).state
        return (await self._retriever.GetIndex(retriever_pb2.GetIndexRequest(), timeout=DEADLINE_S)).state

    async def answer(self, bundle: Bundle) -> str:
        """Makes a call in a bundle's space; returns the id of the bundle that answered."""
        if self.name == "user_encoder":
            events = columns(Row(1, LIKED, 0, 1000))
            encode = user_encoder_pb2.EncodeRequest(events=events, space=bundle.space)
            return (await self._encoder.Encode(encode, timeout=DEADLINE_S)).bundle_id
        search = retriever_pb2.SearchRequest(vector=b"\0\0\x80?" * 16, space=bundle.space, k=3)
        search.details.paths.append("title")
        found = await self._retriever.Search(search, timeout=DEADLINE_S)
        assert all(movie.title for movie in found.movies)
        return found.bundle_id

    async def until(self, wanted: Callable[[types_pb2.ReplicaState], bool]) -> types_pb2.ReplicaState:
        async with asyncio.timeout(DEADLINE_S):
            while not wanted(state := await self.state()):
                await asyncio.sleep(0.02)
        return state

    async def keeps(self, bundle: Bundle, *complaint: str) -> None:
        """Waits for a complaint, and checks that the bundle is served as before."""
        state = await self.until(lambda state: all(text in state.reload_error for text in complaint))
        assert [(one.bundle_id, one.role) for one in state.bundles] == [(bundle.id, types_pb2.BUNDLE_ROLE_ACTIVE)]
        assert await self.answer(bundle) == bundle.id

    @property
    def _encoder(self) -> user_encoder_pb2_grpc.UserEncoderServiceAsyncStub:
        return stubs(self.channel).users

    @property
    def _retriever(self) -> retriever_pb2_grpc.RetrieverServiceAsyncStub:
        return cast(
            "retriever_pb2_grpc.RetrieverServiceAsyncStub", retriever_pb2_grpc.RetrieverServiceStub(self.channel)
        )


class Pointing:
    """Points a registry where no command would, as a program that syncs it might, or a hand."""

    def __init__(self, registry: Registry) -> None:
        self.file = registry.root / "registry.json"
        self._generation = registry.read().generation

    def to(self, active: str, standby: str = "") -> None:
        self._generation += 1
        fields = {"format": 1, "generation": self._generation, "active": active, "standby": standby, "history": []}
        self.write(json.dumps(fields))

    def write(self, text: str) -> None:
        aside = self.file.with_name("aside")
        aside.write_text(text)
        aside.rename(self.file)


# One of each kind, and the files that matter most.
SAMPLE = [
    BY_NAME[name]
    for name in (
        f"{USER_TOWER}-half",
        f"{INDEX}-a-bit-inside",
        f"{PROBES}-missing",
        f"{CATALOG}-a-link",
        f"{MOVIE_IDS}-of-another-bundle",
        f"{ITEM_VECTORS}-less-a-byte",
        f"{EVALUATION}-empty",
        f"{MANIFEST}-half",
        f"{MANIFEST}-of-another-bundle",
        "another-space",
        "newer-format",
        "newer-features",
        "lists-../x",
    )
]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_running_service_keeps_its_bundle_and_says_what_is_wrong(world: World, service: str) -> None:
    pointing = Pointing(world.registry)
    pointing.to(world.served.id)
    arguments = ["--poll-s=0.02", "--drain-s=0", *store_of(service, world.folder)]
    with service_process(service, world.folder, world.registry.root, *arguments) as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            running = Service(service, channel)
            await check_damages(world, pointing, running)
            await check_registry_faults(world, pointing, running)
            # After all that, a good bundle is taken in.
            pointing.to(world.next.id, world.served.id)
            state = await running.until(lambda state: state.reload_error == "" and len(state.bundles) == 2)
            assert [one.bundle_id for one in state.bundles] == [world.next.id, world.served.id]
        code, log = await asyncio.to_thread(process.stop)
    assert (code, "Traceback" in log) == (0, False), log


async def check_damages(world: World, pointing: Pointing, running: Service) -> None:
    whole = world.folder / "whole"
    shutil.copytree(world.installed, whole)
    for number, damage in enumerate(SAMPLE):
        damage.apply(world.installed)
        # As a new standby and as the new active.
        pointing.to(*((world.served.id, world.next.id), (world.next.id, world.served.id))[number % 2])
        await running.keeps(world.served, damage.file)
        pointing.to(world.served.id)
        await running.until(lambda state: state.reload_error == "")
        shutil.rmtree(world.installed)
        shutil.copytree(whole, world.installed)


async def check_registry_faults(world: World, pointing: Pointing, running: Service) -> None:
    gone = "0" * 64
    bundles = world.registry.root / "bundles"
    good = pointing.file.read_text()
    for active, standby in ((gone, world.served.id), (world.served.id, gone)):
        pointing.to(active, standby)
        await running.keeps(world.served, f"points to bundle {gone}, which is not at {bundles / gone}; ")
    pointing.write(good[: len(good) // 2])
    await running.keeps(world.served, f"{pointing.file}: is not a pointer")
    pointing.file.unlink()
    await running.keeps(world.served, f"{world.registry.root}: there is no registry here")
    pointing.write(good)
    await running.until(lambda state: state.reload_error == "")
    bundles.rename(bundles.with_name("elsewhere"))
    await running.keeps(world.served, f"points to bundle {world.served.id}, which is not at ")
    bundles.with_name("elsewhere").rename(bundles)
    await running.until(lambda state: state.reload_error == "")


def store_of(service: str, folder: Path) -> list[str]:
    return [f"--store={folder / 'features.sqlite'}"] if service == "user_encoder" else []


def refused_start(service: str, world: World) -> str:
    """Starts a service that must refuse; returns its last words."""
    arguments = ["--listen=127.0.0.1:0", f"--registry={world.registry.root}", *store_of(service, world.folder)]
    ended = run_service_process(service, *arguments)
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["level"] for line in lines if line["level"] != "INFO"] == ["ERROR"]
    message: str = lines[-1]["message"]
    assert "\n" not in message
    return message


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", [f"{USER_TOWER}-half", f"{INDEX}-a-bit-inside", f"{CATALOG}-a-link", "newer-format"])
def test_a_service_does_not_start_on_a_damaged_bundle(world: World, service: str, name: str) -> None:
    damage = BY_NAME[name]
    Pointing(world.registry).to(world.next.id)
    damage.apply(world.installed)
    assert f"{world.installed / damage.file}: " in refused_start(service, world)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_does_not_start_without_its_registry(world: World, service: str) -> None:
    pointing = Pointing(world.registry)
    good = pointing.file.read_text()
    gone = "0" * 64
    pointing.to(gone)
    place = world.registry.bundle_path(gone)
    assert f"points to bundle {gone}, which is not at {place}; " in refused_start(service, world)
    pointing.write(good[: len(good) // 2])
    assert f"{pointing.file}: is not a pointer that can be read here" in refused_start(service, world)
    pointing.file.unlink()
    assert f"{world.registry.root}: there is no registry here" in refused_start(service, world)


@damages
async def test_no_replica_starts_on_a_damaged_bundle(world: World, damage: Damage) -> None:
    Pointing(world.registry).to(world.next.id)
    damage.apply(world.installed)
    with pytest.raises((BundleError, RegistryError)) as refused:
        await Spaces(world.registry, Retrieval, CommonSettings()).start()
    assert damage.file in refused.value.message or str(world.installed) in refused.value.message
