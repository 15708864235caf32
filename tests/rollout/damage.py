"""Ways to damage a bundle, as a table: each names the file that an error has to name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marquee.bundle.format import (
    FILES,
    HISTORY_IDS,
    HISTORY_TABLE,
    ITEM_TOWER,
    ITEM_VECTORS,
    MANIFEST,
    USER_TOWER,
)

Fields = dict[str, Any]

# What `other` holds: a whole bundle of another space, in every file another one.
OTHER = "other"


class Damage(NamedTuple):
    """Is one way to damage the bundle in a folder; `OTHER` lies beside it. `file` is what an error must name."""

    name: str
    file: str
    apply: Callable[[Path], None]


def of_file(file: str) -> Iterator[Damage]:
    """Lists what can befall any file."""
    yield Damage(f"{file}-empty", file, lambda folder: _cut(folder / file, lambda size: 0))
    yield Damage(f"{file}-one-byte", file, lambda folder: _cut(folder / file, lambda size: 1))
    yield Damage(f"{file}-half", file, lambda folder: _cut(folder / file, lambda size: size // 2))
    yield Damage(f"{file}-less-a-byte", file, lambda folder: _cut(folder / file, lambda size: size - 1))
    yield Damage(f"{file}-a-byte-more", file, lambda folder: _append(folder / file))
    yield Damage(f"{file}-first-bit", file, partial(flip_bit, file=file, at=0, bit=0))
    yield Damage(f"{file}-last-bit", file, partial(flip_bit, file=file, at=-1, bit=7))
    yield Damage(f"{file}-missing", file, lambda folder: (folder / file).unlink())
    yield Damage(f"{file}-a-link", file, lambda folder: _link(folder / file))
    yield Damage(f"{file}-a-link-to-nothing", file, lambda folder: _replace_by_link(folder / file, Path("nowhere")))
    yield Damage(f"{file}-a-folder", file, lambda folder: _make_folder(folder / file))
    yield Damage(f"{file}-a-pipe", file, lambda folder: _make_pipe(folder / file))
    # Another bundle's manifest is a good one: the first file that it lists is what does not fit.
    yield Damage(f"{file}-of-another-bundle", min(FILES) if file == MANIFEST else file, partial(_take, file=file))


def of_listed_file(file: str) -> Iterator[Damage]:
    """Lists what can befall a file that the manifest lists."""
    yield from of_file(file)
    yield Damage(f"{file}-a-bit-inside", file, partial(flip_bit, file=file, at=300, bit=3))
    yield edited(f"{file}-not-listed", lambda fields: fields["files"].remove(entry(fields, file)))


def entry(fields: Fields, file: str) -> Fields:
    """Finds a file's line in a manifest."""
    found: Fields = next(one for one in fields["files"] if one["name"] == file)
    return found


def edited(name: str, change: Callable[[Fields], object], file: str = MANIFEST) -> Damage:
    """Makes an edit of the manifest."""
    return Damage(name, file, lambda folder: edit(folder, change))


def edit(folder: Path, change: Callable[[Fields], object]) -> None:
    """Changes the fields of a manifest in place."""
    fields = json.loads((folder / MANIFEST).read_text())
    change(fields)
    (folder / MANIFEST).write_text(json.dumps(fields, indent=1))


def flip_bit(folder: Path, file: str, at: int, bit: int) -> None:
    """Flips one bit."""
    data = bytearray((folder / file).read_bytes())
    data[at] ^= 1 << bit
    (folder / file).write_bytes(data)


def write(folder: Path, file: str, text: str) -> None:
    """Replaces a file."""
    (folder / file).write_text(text)


def relist(folder: Path, file: str) -> None:
    """Makes the manifest agree with a file that was changed."""
    data = (folder / file).read_bytes()
    edit(folder, lambda fields: entry(fields, file).update(_facts(data)))


def _facts(data: bytes) -> Fields:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _cut(file: Path, size: Callable[[int], int]) -> None:
    os.truncate(file, size(file.stat().st_size))


def _append(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"\0")


def _link(file: Path) -> None:
    """Puts a link where the file was, to the same bytes."""
    elsewhere = file.parent.parent / f"elsewhere-{file.name}"
    shutil.copyfile(file, elsewhere)
    _replace_by_link(file, elsewhere)


def _replace_by_link(file: Path, target: Path) -> None:
    file.unlink()
    file.symlink_to(target)


def _make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _take(folder: Path, file: str) -> None:
    theirs = folder.parent / OTHER / file
    assert theirs.read_bytes() != (folder / file).read_bytes()
    shutil.copyfile(theirs, folder / file)


def _take_and_relist(folder: Path, file: str) -> None:
    _take(folder, file)
    relist(folder, file)


def _swap(folder: Path) -> None:
    one, two = folder / HISTORY_TABLE, folder / ITEM_VECTORS
    assert one.stat().st_size == two.stat().st_size
    aside = folder.parent / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def _no_array(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"no array")
    relist(folder, file)


def _pickled(folder: Path, file: str) -> None:
    np.save(folder / file, np.array([{}], object), allow_pickle=True)
    relist(folder, file)


def _listed_at(path: str, target: Callable[[Path], Path]) -> Damage:
    """Makes the manifest list a file elsewhere, with its true size and sha256."""

    def apply(folder: Path) -> None:
        file = target(folder)
        if not file.exists():
            shutil.copyfile(folder / USER_TOWER, file)
        edit(folder, lambda fields: fields["files"].append({"name": path, **_facts(file.read_bytes())}))

    return Damage(f"lists-{path}", MANIFEST, apply)


def _exchange_names(fields: Fields) -> None:
    one, two = entry(fields, USER_TOWER), entry(fields, ITEM_TOWER)
    one["name"], two["name"] = two["name"], one["name"]


# Names that lead elsewhere on some machine, are another file's on some file system, or look like another's in a log.
_NO_NAMES = (
    "x\0y",
    "x\n",
    "x/",
    "a/../x",
    "..\\x",
    "C:x",
    "//host/x",
    "%2e%2e/x",
    "~",
    "User_Tower.onnx",
    "user_tower.onnx ",
    "\u0443ser_tower.onnx",
    "caf\u00e9",
    "cafe\u0301",
    "x\u202exnno",
    "\uff0e\uff0e\uff0fx",
)


def _list(fields: Fields, name: str) -> None:
    fields["files"].append({"name": name, "size": 0, "sha256": hashlib.sha256().hexdigest()})


def _of_manifest() -> Iterator[Damage]:
    yield from of_file(MANIFEST)
    yield _listed_at("../x", lambda folder: folder.parent / "x")
    yield _listed_at("/etc/passwd", lambda folder: Path("/etc/passwd"))
    yield _listed_at("./x", lambda folder: folder / "x")
    yield _listed_at(".x", lambda folder: folder / ".x")
    yield edited("lists-nothing-by-name", lambda fields: fields["files"].append({"name": "", "size": 0}))
    yield edited("lists-its-parent", lambda fields: fields["files"].append({"name": "..", "size": 0}))
    yield edited("lists-a-long-name", lambda fields: fields["files"].append({"name": "x" * 300}), "x" * 300)
    for name in _NO_NAMES:
        yield edited(f"lists-{name!a}", partial(_list, name=name))
    yield edited("lists-a-file-twice", lambda fields: fields["files"].append(fields["files"][0]))
    yield edited("lists-no-file", lambda fields: fields.pop("files"))
    yield edited("exchanges-two-names", _exchange_names, USER_TOWER)
    yield edited("another-size", lambda fields: entry(fields, USER_TOWER).update(size="1"), USER_TOWER)
    yield edited("another-sha256", lambda fields: entry(fields, USER_TOWER).update(sha256="0" * 64), USER_TOWER)
    yield edited("no-sha256", lambda fields: entry(fields, USER_TOWER).pop("sha256"), USER_TOWER)
    yield edited("newer-format", lambda fields: fields["format"].update(major=2))
    yield edited("no-format", lambda fields: fields.pop("format"))
    yield edited("newer-features", lambda fields: fields["features"].update(version=2))
    yield edited("no-features", lambda fields: fields.pop("features"))
    yield edited("other-features", lambda fields: fields["features"].update(max_history=21))
    yield edited("another-space", lambda fields: fields.update(space="0" * 64))
    yield edited("fewer-rows-of-the-space", lambda fields: fields.update(trained_history_rows="39"))
    yield edited("less-than-no-rows-of-the-space", lambda fields: fields.update(trained_history_rows="-1"))
    for text in ("[]", "null", "5", '"manifest"', '{"files": 5}', "[" * 100_000):
        yield Damage(f"is-{text[:12]}", MANIFEST, partial(write, file=MANIFEST, text=text))


def _of_pieces() -> Iterator[Damage]:
    yield Damage("two-files-swapped", HISTORY_TABLE, _swap)
    for file in (USER_TOWER, ITEM_TOWER, HISTORY_TABLE):
        yield Damage(f"{file}-of-another-space-and-listed", MANIFEST, partial(_take_and_relist, file=file))
    for file in (HISTORY_IDS, HISTORY_TABLE):
        yield Damage(f"{file}-no-array-and-listed", file, partial(_no_array, file=file))
        yield Damage(f"{file}-pickled-and-listed", file, partial(_pickled, file=file))


DAMAGES = [*(damage for file in sorted(FILES) for damage in of_listed_file(file)), *_of_manifest(), *_of_pieces()]
BY_NAME = {damage.name: damage for damage in DAMAGES}
