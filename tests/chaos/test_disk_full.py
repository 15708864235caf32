"""A disk that is full: nothing is half-written, what was acknowledged stays, and with room it goes on."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet
import pytest

from marquee.bundle.format import Bundle
from marquee.bundle.registry import Registry
from marquee.client import Event, EventKind, Recommender
from marquee.errors import RegistryError, StoreUnavailable, UserUnknown
from tests.bundles import make_bundle
from tests.chaos.promises import Happened, promise
from tests.chaos.small_disk import PAGE, fill, make_room, small_disk
from tests.rigs import DEADLINE_S, ROOT, Process, publish, service_process

REGISTRY_FILES = {"registry.json", "registry.lock", "bundles.lock", "bundles"}
NOWHERE = "127.0.0.1:1"
PEOPLE, EVENTS = 30, 40
PEOPLE_WHO_DO_NOT_FIT = 10_000
LIKES = [Event(number, EventKind.LIKED) for number in range(1, EVENTS + 1)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as mounted:
        yield mounted


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", movies=40)


def check_whole(registry: Registry) -> None:
    """Checks that there is nothing but whole bundles, pointed to or not, and the files beside them."""
    assert {path.name for path in registry.root.iterdir()} == REGISTRY_FILES
    for path in (registry.root / "bundles").iterdir():
        assert registry.open(path.name).id == path.name


def refusal_of(registry: Registry, bundle: Bundle) -> str | None:
    """Publishes a bundle; returns why not."""
    try:
        registry.publish(bundle.path, check=None)
    except RegistryError as error:
        return error.message
    return None


@promise(
    "the disk is full while a bundle is published, at every step",
    "it is refused, with where there must be room; nothing half-written is left, the pointer is as it was; with room "
    "the same order works",
)
def test_publishing(disk: Path, bundle: Bundle, tmp_path: Path, happened: Happened) -> None:
    registry = publish(disk / "registry", bundle)
    following = make_bundle(tmp_path / "next", movies=41, seed=2)
    before = registry.read()
    for refused in itertools.count():
        fill(disk, refused * PAGE)
        refusal = refusal_of(registry, following)
        make_room(disk)
        check_whole(registry)
        if refusal is None:
            break
        assert refusal.startswith(f"{registry.root}: cannot be written (No space left on device)")
        assert "see that its disk has room" in refusal
        assert registry.read() == before
    pointer = registry.read()
    assert (pointer.active, pointer.standby) == (bundle.id, following.id)
    happened(f"refused with room for 0 to {refused - 1} pages of {PAGE} bytes, published with {refused}")


class Store:
    """Is an encoder on a store of a small disk."""

    def __init__(self, folder: Path, registry: Path, path: Path) -> None:
        self._folder, self._registry, self.path = folder, registry, path
        self._stack = ExitStack()
        self.people = 0
        self.process: Process
        self.sdk: Recommender

    def __enter__(self) -> Store:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def start(self) -> None:
        flags = (f"--store={self.path}", "--drain-s=0")
        self.process = self._stack.enter_context(service_process("user_encoder", self._folder, self._registry, *flags))
        address = f"127.0.0.1:{self.process.port}"
        self.sdk = self._stack.enter_context(Recommender(address, NOWHERE, deadline_s=DEADLINE_S))

    def kill(self) -> None:
        self.process.process.kill()
        self.process.process.wait()

    def record(self, people: int) -> None:
        """Records more people; `people` counts those who were acknowledged."""
        for number in range(self.people, self.people + people):
            assert self.sdk.record(f"person-{number}", LIKES).recorded == EVENTS
            self.people += 1

    def check(self) -> None:
        """Checks that all events of those who were acknowledged are there, and nobody else's."""
        for number in range(self.people):
            assert len(list(self.sdk.history(f"person-{number}"))) == EVENTS
        with pytest.raises(UserUnknown):
            list(self.sdk.history(f"person-{self.people}"))


@pytest.fixture
def store(disk: Path, bundle: Bundle, tmp_path: Path) -> Iterator[Store]:
    registry = publish(tmp_path / "registry", bundle).root
    with Store(tmp_path, registry, disk / "features.sqlite") as running:
        running.record(PEOPLE)
        yield running


@promise(
    "the disk is full while events are recorded, and the encoder is killed then",
    "they are refused with the cure; all that was acknowledged is there, before and after; with room more is recorded",
)
def test_recording(store: Store, disk: Path, happened: Happened) -> None:
    fill(disk, 20 * PAGE)
    with pytest.raises(StoreUnavailable, match="nothing was recorded; see that the disk has room"):
        store.record(PEOPLE_WHO_DO_NOT_FIT)
    with pytest.raises(StoreUnavailable, match="nothing was deleted; see that the disk has room"):
        store.sdk.forget("person-0")
    store.check()
    store.kill()
    make_room(disk)
    store.start()
    store.check()
    acknowledged = store.people
    store.record(5)
    store.check()
    happened(f"{acknowledged} people of {EVENTS} events acknowledged, all of them there; the next ones with room")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of the encoder's."""
    command = [sys.executable, "-W", "error", "-m", "services.user_encoder", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def until_it_works(disk: Path, order: Callable[[], subprocess.CompletedProcess[str]], check: Callable[[], None]) -> int:
    """Gives an order with more and more room until it is followed; checks what a refused one leaves."""
    for refused in itertools.count():
        fill(disk, refused * 8 * PAGE)
        done = order()
        make_room(disk)
        if done.returncode == 0:
            return refused
        assert done.returncode == 1, done.stderr
        assert "room" in done.stderr
        assert "Traceback" not in done.stderr
        check()
    raise AssertionError


@promise(
    "the disk is full while events are exported",
    "the command says so and what to do; no export has its name until it is whole; the same command goes on",
)
def test_exporting(store: Store, disk: Path, happened: Happened) -> None:
    out = disk / "export"
    order = ("export-events", "--store", store.path, "--out", out)
    refused = until_it_works(disk, lambda: run(*order), lambda: check_none(out / "events"))
    tables = [pyarrow.parquet.read_table(file) for file in (out / "events").glob("*.parquet")]
    assert sum(table.num_rows for table in tables) == PEOPLE * EVENTS
    happened(f"{refused} times refused; then {PEOPLE * EVENTS:,} of {PEOPLE * EVENTS:,} events")


@promise(
    "the disk is full while the store is backed up",
    "the command says so; no backup has its name until it is whole; the same command works with room",
)
def test_backing_up(store: Store, disk: Path, happened: Happened) -> None:
    out = disk / "backup.sqlite"
    order = ("back-up", "--store", store.path, "--out", out)
    before = set(os.listdir(disk))
    refused = until_it_works(disk, lambda: run(*order), lambda: check_only(disk, before))
    happened(f"{refused} times refused, no file left; then {out.stat().st_size // 1024} KiB")


def check_none(path: Path) -> None:
    assert not path.exists()


def check_only(disk: Path, names: set[str]) -> None:
    assert set(os.listdir(disk)) == names
