"""Bundles and pointers that are damaged in every way, met by services that serve."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from marquee.bundle.format import (
    FILES,
    HISTORY_TABLE,
    INDEX,
    ITEM_VECTORS,
    MANIFEST,
    PROBES,
)
from marquee.bundle.registry import POINTER
from marquee.engine.kinds import write_index
from tests.bundles import EXACTLY
from tests.chaos.damaged import BOTH, Bundles, Services, make_bundles, start_both, under_load
from tests.chaos.promises import Happened, promise
from tests.rigs import publish
from tests.rollout.damage import BY_NAME, Damage, relist

EVERY_FILE = (*sorted(FILES), MANIFEST)
KEPT = (
    "both services go on with what they have, say which file is wrong, and take in the next good bundle; no call fails"
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return make_bundles(tmp_path_factory.mktemp("damaged"))


@pytest.fixture
async def services(bundles: Bundles, tmp_path: Path) -> AsyncIterator[Services]:
    with contextlib.ExitStack() as stack:
        registry = publish(tmp_path / "registry", bundles.served)
        processes = start_both(stack, tmp_path, registry.root)
        async with under_load(bundles, registry, processes) as loaded:
            yield loaded
        for process in processes:
            code, log = await asyncio.to_thread(process.stop)
            assert (code, "Traceback" in log) == (0, False), log


def of_every_file(*kinds: str) -> list[Damage]:
    return [BY_NAME[f"{file}-{kind}"] for file in EVERY_FILE for kind in kinds if f"{file}-{kind}" in BY_NAME]


async def check_damages(services: Services, damages: list[Damage]) -> str:
    """Points to a bundle with each damage, as standby and as active in turn; says what happened."""
    served, following = services.bundles.served, services.bundles.next
    for number, damage in enumerate(damages):
        place = services.install(damage.apply)
        services.point_to(*((served.id, following.id), (following.id, served.id))[number % 2])
        # Without a manifest there is no bundle to name a file of.
        await services.keep(damage.file if (place / MANIFEST).is_file() else f"is not at {place}")
        await services.follow(served)
    return f"{len(damages)} bundles refused by both services; {services.load.summary()}"


@promise("each file of a new bundle is cut off: empty, one byte, half, all but a byte", KEPT)
async def test_files_that_are_cut_off(services: Services, happened: Happened) -> None:
    happened(await check_damages(services, of_every_file("empty", "one-byte", "half", "less-a-byte")))


@promise("a bit of each file of a new bundle is flipped: the first, the last, one inside", KEPT)
async def test_flipped_bits(services: Services, happened: Happened) -> None:
    happened(await check_damages(services, of_every_file("first-bit", "last-bit", "a-bit-inside")))


@promise("each file of a new bundle is missing, a link, a folder, a pipe", KEPT)
async def test_files_that_are_none(services: Services, happened: Happened) -> None:
    happened(await check_damages(services, of_every_file("missing", "a-link", "a-folder", "a-pipe")))


@promise("files of two bundles are swapped, each file in its turn, and two inside of a bundle", KEPT)
async def test_files_of_two_bundles(services: Services, happened: Happened) -> None:
    damages = [*of_every_file("of-another-bundle"), BY_NAME["two-files-swapped"]]
    happened(await check_damages(services, damages))


def narrow(folder: Path, file: str) -> None:
    """Halves the dimension of an array, and lists it so."""
    np.save(folder / file, np.load(folder / file)[:, :8])
    relist(folder, file)


def narrow_index(folder: Path) -> None:
    """Makes the index of vectors of half the dimension, and lists it so."""
    write_index(folder / INDEX, np.load(folder / ITEM_VECTORS)[:, :8], EXACTLY)
    relist(folder, INDEX)


def narrow_probes(folder: Path) -> None:
    """Takes the probes of a bundle of another dimension, and lists them."""
    shutil.copyfile(folder.parent / "other" / PROBES, folder / PROBES)
    relist(folder, PROBES)


# What is wrong, who reads it, and which file they name.
WRONG_DIMENSIONS = (
    (partial(narrow, file=ITEM_VECTORS), ("retriever",), ITEM_VECTORS),
    (narrow_index, ("retriever",), INDEX),
    (narrow_probes, BOTH, PROBES),
    (partial(narrow, file=HISTORY_TABLE), BOTH, MANIFEST),
)


@promise(
    "vectors, index, probes or rows of a new bundle have another dimension, and its manifest lists them so",
    "who reads the file refuses the bundle and names it; no call fails",
)
async def test_wrong_dimensions(services: Services, happened: Happened) -> None:
    served = services.bundles.served
    for change, readers, file in WRONG_DIMENSIONS:
        place = services.install(change, renamed=True)
        services.point_to(served.id, place.name)
        await services.keep(file, *readers)
        await services.follow(served)
    happened(f"{len(WRONG_DIMENSIONS)} bundles refused; {services.load.summary()}")


@promise(
    "the registry's pointer is half written: cut off at every tenth byte, empty, of NUL bytes, garbled; or gone",
    "both services go on with what they have and say so; they follow the next good pointer; no call fails",
)
async def test_a_pointer_that_cannot_be_read(services: Services, happened: Happened) -> None:
    served, file = services.bundles.served, services.registry.root / POINTER
    await services.follow(served)
    good = file.read_bytes()
    bad = [good[:size] for size in range(0, len(good), 10)]
    bad += [bytes(len(good)), good[:-20] + bytes(20), good.replace(b":", b"\xff"), b"[]", good.replace(b"a", b"A")]
    for data in bad:
        services.write_pointer(data)
        await services.keep(f"{file}: is not a pointer that can be read here")
        await services.follow(served)
    file.unlink()
    await services.keep(f"{services.registry.root}: there is no registry here")
    await services.follow(served)
    happened(f"{len(bad) + 1} pointers refused by both services; {services.load.summary()}")


@promise(
    "the registry's pointer goes back to an older generation",
    "where its bundles are there, services serve them; where one is gone, they keep what they have and say which",
)
async def test_an_older_pointer(services: Services, happened: Happened) -> None:
    served, following = services.bundles.served, services.bundles.next
    services.install()
    await services.follow(served)
    services.point_to(served.id, following.id, generation=1)
    await services.until(lambda state: state.generation == 1 and len(state.bundles) == 2)
    await services.follow(served)
    gone = "0" * 64
    services.point_to(gone, served.id, generation=2)
    await services.until(lambda state: f"points to bundle {gone}, which is not at" in (state.reload_error or ""))
    happened(f"followed, and refused where its bundle was gone; {services.load.summary()}")
