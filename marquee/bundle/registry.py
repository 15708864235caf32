"""The registry: a folder with `bundles/<id>/` and one pointer file that says which of them are active and standby.

Readers need no lock: the pointer is replaced in one step, and a bundle's folder has its name only when it is whole. A
writer works from a pointer that it has read and replaces it only if it is still of that generation, under a file lock;
so no update is lost, and no lock is held while bundles are copied, judged, or replicas asked. A writer may be killed at
any point: what it leaves under a temporary name is ignored, and swept up by `gc`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import json_format

from marquee.bundle.format import MANIFEST, REPORT, Bundle, open_bundle, replace_folder, sync_folder
from marquee.bundle.v1 import bundle_pb2
from marquee.errors import BundleError, RegistryError
from marquee.whole_files import write_whole

POINTER = "registry.json"
BUNDLES = "bundles"
HISTORY = 10
KEEP = 3
POINTER_FORMAT = 1
LEFTOVER_AGE_S = 3600.0

_ID = re.compile(r"[0-9a-f]{64}")
_CHANGES = "registry.lock"
_FOLDERS = "bundles.lock"

Check = Callable[[Bundle, Bundle | None], None]
Confirm = Callable[[str], None]


class Change(NamedTuple):
    """Is one line of the history: what the pointer became, when (UTC, ISO 8601), and by what.

    `restored` is the generation that the last roll-back went back to, while what it made active still is; otherwise 0.
    """

    generation: int
    active: str
    standby: str
    at: str
    what: str
    restored: int = 0


class Pointer(NamedTuple):
    """Says which bundles are served: ids, "" for none.

    `history` has the newest changes, oldest first; the last one made this pointer.
    """

    generation: int
    active: str
    standby: str
    history: tuple[Change, ...]

    def role(self, bundle_id: str) -> str:
        """Names a bundle's part: "active", "standby" or ""."""
        return {self.active: "active", self.standby: "standby"}.get(bundle_id, "")

    def changed(self, active: str, standby: str, what: str, restored: int = 0) -> Pointer:
        """Builds the next generation."""
        if active == self.active and self.history:
            restored = self.history[-1].restored
        at = datetime.now(UTC).isoformat(timespec="seconds")
        change = Change(self.generation + 1, active, standby, at, what, restored)
        return Pointer(change.generation, active, standby, (*self.history, change)[-HISTORY:])


NOTHING = Pointer(0, "", "", ())


class Registry:
    """Reads and changes a registry.

    Every refusal is a RegistryError or a BundleError and leaves the pointer as it was.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pointer = root / POINTER
        self._bundles = root / BUNDLES

    def read(self) -> Pointer:
        """Reads the pointer.

        Raises RegistryError where there is no registry, the pointer cannot be read, or a bundle that it names is gone.
        """
        pointer = self._load()
        if pointer.generation == 0:
            raise RegistryError(
                f"{self.root}: there is no registry here (no {POINTER}); make one with "
                f"`python -m marquee.bundle publish BUNDLE_DIR --registry {self.root}`"
            )
        self._check_present(pointer.active, pointer.standby)
        return pointer

    def bundle_path(self, bundle_id: str) -> Path:
        """Names the folder of a bundle; raises RegistryError where the id is not 64 hexadecimal digits."""
        if not _ID.fullmatch(bundle_id):
            raise RegistryError(f"{bundle_id!r} is not a bundle id: it must be 64 lower-case hexadecimal digits")
        return self._bundles / bundle_id

    def bundle_ids(self) -> list[str]:
        """Lists the bundles that have a folder, pointed to or not, ascending."""
        if not self._bundles.is_dir():
            return []
        return sorted(path.name for path in self._bundles.iterdir() if _ID.fullmatch(path.name) and path.is_dir())

    def manifest(self, bundle_id: str) -> bundle_pb2.Manifest:
        """Reads a bundle's manifest alone, without verifying the files that it lists.

        Raises BundleError where it is not the manifest that the id was made from.
        """
        path = self.bundle_path(bundle_id) / MANIFEST
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}); publish the bundle again") from error
        if hashlib.sha256(data).hexdigest() != bundle_id:
            raise BundleError(f"{path}: its sha256 is not the bundle's id: it was edited; publish the bundle again")
        return json_format.Parse(data, bundle_pb2.Manifest(), ignore_unknown_fields=True)

    def open(self, bundle_id: str) -> Bundle:
        """Verifies a bundle of the registry and opens it; raises BundleError where it is not the one its id names."""
        path = self.bundle_path(bundle_id)
        if path.is_symlink():
            raise BundleError(f"{path}: is a link, and what it leads to may change; publish the bundle again")
        bundle = open_bundle(path)
        if bundle.id != bundle_id:
            raise BundleError(f"{path / MANIFEST}: is of bundle {bundle.id}: it was edited; publish the bundle again")
        return bundle

    def publish(self, bundle_dir: Path, *, check: Check | None) -> Pointer:
        """Copies a bundle into the registry and points to it.

        `check` gets the candidate and the active bundle and raises GateRefused; None publishes without. A bundle of
        the active's or the standby's space replaces that one. One of a new space becomes standby, as does the first
        ever, and whatever was standby is no longer pointed to. Publishing what is pointed to already changes nothing.
        """
        source = open_bundle(bundle_dir)
        with self._writing(), self._lock(_FOLDERS, fcntl.LOCK_SH):
            candidate = self._install(source)
            judged: set[str] = set()

            def step(pointer: Pointer) -> Pointer:
                if check is not None and not pointer.role(candidate.id) and pointer.active not in judged:
                    check(candidate, self.open(pointer.active) if pointer.active else None)
                    judged.add(pointer.active)
                return self._published(pointer, candidate, "" if check else ", without the gate")

            return self._change(self._load, step)

    def activate(self, bundle_id_or_space: str = "", *, confirm: Confirm | None) -> Pointer:
        """Makes the standby active and the active standby.

        The bundle may be named by its id or its space, or eight or more leading digits of one; "" is the standby.
        `confirm` gets the space and raises where a replica does not list it; None activates regardless. The first
        activation asks nobody, as nothing is served yet. Activating what is active changes nothing.
        """
        return self._change(self.read, lambda pointer: self._activated(pointer, bundle_id_or_space, confirm))

    def roll_back(self) -> Pointer:
        """Brings back the last other bundle of the history that was active and still has its folder.

        A refresh is undone inside its space, and the standby stays. A flip is undone by a flip: the space that was
        active is so again, in the standby's revision where the standby has that space, and what was active becomes
        standby. Rolling back again goes on to what was before; it never brings back what was just left.
        """
        return self._change(self.read, self._rolled_back)

    def follow(self, source: Registry) -> Pointer:
        """Becomes a copy of what another registry points to: first its bundles, verified, and then its pointer.

        Only reads the other one. Whatever goes wrong there leaves the pointer here as it was. A bundle that was lost
        here, or a file of it, is copied again.
        """
        pointer = source.read()
        named = [bundle_id for bundle_id in (pointer.active, pointer.standby) if bundle_id]
        if self._load() != pointer or not all(self._has_all_files(one, source) for one in named):
            with self._writing(), self._lock(_FOLDERS, fcntl.LOCK_SH):
                for bundle_id in named:
                    self._install(source.open(bundle_id))
                self._change(self._load, lambda _: pointer)
        return pointer

    def gc(self, keep: int = KEEP) -> list[str]:
        """Deletes bundles that neither the pointer nor its last `keep` changes name; returns their ids.

        Also deletes what writers that were killed left behind, once it is an hour old. Waits for running publishes.
        """
        self.read()
        with self._lock(_FOLDERS, fcntl.LOCK_EX):
            with self._lock(_CHANGES, fcntl.LOCK_EX):
                pointer = self.read()
                recent = pointer.history[-keep:] if keep > 0 else ()
                named = {pointer.active, pointer.standby, *(id for one in recent for id in (one.active, one.standby))}
                doomed = [bundle_id for bundle_id in self.bundle_ids() if bundle_id not in named]
                aside = [self._set_aside(bundle_id) for bundle_id in doomed]
            for folder in {*aside, *self._leftovers()}:
                _remove(folder)
        return doomed

    def _change(self, read: Callable[[], Pointer], step: Callable[[Pointer], Pointer]) -> Pointer:
        """Replaces the pointer by what `step` makes of it, starting over while other writers are faster."""
        while True:
            old = read()
            new = step(old)
            with self._writing():
                if new == old or self._replace(old, new):
                    return new

    def _published(self, pointer: Pointer, candidate: Bundle, how: str) -> Pointer:
        if pointer.role(candidate.id):
            return pointer
        what = f"publish {candidate.id[:12]}{how}"
        if pointer.active and self.manifest(pointer.active).space == candidate.space:
            return pointer.changed(candidate.id, pointer.standby, what)
        return pointer.changed(pointer.active, candidate.id, what)

    def _activated(self, pointer: Pointer, name: str, confirm: Confirm | None) -> Pointer:
        chosen = self._choose(pointer, name)
        if chosen == pointer.active:
            return pointer
        space = self.open(chosen).space
        if confirm is not None and pointer.active:
            confirm(space)
        how = "" if confirm or not pointer.active else ", without asking replicas"
        return pointer.changed(chosen, pointer.active, f"activate {chosen[:12]}{how}")

    def _choose(self, pointer: Pointer, name: str) -> str:
        if not name:
            if pointer.standby:
                return pointer.standby
            raise RegistryError(
                f"{self.root}: there is no standby to activate; publish a bundle of another space first"
            )
        pointed = [bundle_id for bundle_id in (pointer.active, pointer.standby) if bundle_id]
        named = [one for one in pointed if len(name) >= 8 and self._answers_to(one, name)]
        if len(named) == 1:
            return named[0]
        raise RegistryError(
            f"{self.root}: {name!r} fits {'both' if named else 'neither'} the active and the standby; give the id or "
            "space of one that `python -m marquee.bundle list` shows with a role, or publish the bundle first"
        )

    def _answers_to(self, bundle_id: str, name: str) -> bool:
        return bundle_id.startswith(name) or self.manifest(bundle_id).space.startswith(name)

    def _rolled_back(self, pointer: Pointer) -> Pointer:
        earlier = self._earlier(pointer)
        space = self.open(earlier.active).space
        what = f"roll back to generation {earlier.generation}"
        if space == self.manifest(pointer.active).space:
            return pointer.changed(earlier.active, pointer.standby, what, earlier.generation)
        standby_has_it = bool(pointer.standby) and self.manifest(pointer.standby).space == space
        target = pointer.standby if standby_has_it else earlier.active
        return pointer.changed(target, pointer.active, what, earlier.generation)

    def _earlier(self, pointer: Pointer) -> Change:
        newest = pointer.history[-1] if pointer.history else None
        before = newest.restored if newest and newest.restored else pointer.generation
        for change in reversed(pointer.history):
            other = change.active and change.active != pointer.active
            if change.generation < before and other and self.bundle_path(change.active).is_dir():
                return change
        raise RegistryError(
            f"{self.root}: there is nothing to roll back to: the last {HISTORY} changes name no other active bundle "
            "that is still there; to make the standby active, activate it"
        )

    def _install(self, bundle: Bundle) -> Bundle:
        """Copies a bundle to its place and verifies the copy; one that is there and whole gets its report at most."""
        place = self.bundle_path(bundle.id)
        if whole := self._open_whole(bundle.id):
            if _has_report(bundle.path) and not _has_report(whole.path):
                with self._lock(_CHANGES, fcntl.LOCK_EX):
                    write_whole(whole.file(REPORT), lambda temporary: shutil.copyfile(bundle.file(REPORT), temporary))
            return whole
        copy = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self._bundles))
        try:
            self._copy(bundle, copy)
            with self._lock(_CHANGES, fcntl.LOCK_EX):
                # Somebody else may have published the same bundle meanwhile, and it may be in use.
                if self._open_whole(bundle.id) is None:
                    replace_folder(copy, place)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return self.open(bundle.id)

    def _copy(self, bundle: Bundle, folder: Path) -> None:
        names = [MANIFEST, *(entry.name for entry in bundle.manifest.files)]
        names += [REPORT] if _has_report(bundle.path) else []
        for name in names:
            shutil.copyfile(bundle.file(name), folder / name)
        sync_folder(folder, names)
        folder.chmod(0o755)
        if open_bundle(folder).id != bundle.id:
            raise BundleError(f"{bundle.path}: changed while it was copied; publish it again")

    def _open_whole(self, bundle_id: str) -> Bundle | None:
        try:
            return self.open(bundle_id)
        except BundleError:
            return None

    def _has_all_files(self, bundle_id: str, source: Registry) -> bool:
        """Looks at names and sizes alone: whoever follows asks every few seconds, and hashes take seconds.

        The report is in no manifest: it is one of the files where the source has it.
        """
        try:
            files = self.manifest(bundle_id).files
            place = self.bundle_path(bundle_id)
            same = all(os.path.getsize(place / file.name) == file.size for file in files)
            return same and (_has_report(place) or not _has_report(source.bundle_path(bundle_id)))
        except (BundleError, OSError):
            return False

    def _check_present(self, *bundle_ids: str) -> None:
        for bundle_id in bundle_ids:
            if bundle_id and not os.path.isfile(self.bundle_path(bundle_id) / MANIFEST):
                raise RegistryError(
                    f"{self._pointer}: points to bundle {bundle_id}, which is not at {self.bundle_path(bundle_id)}; "
                    "put that folder back, or publish the bundle again"
                )

    def _load(self) -> Pointer:
        try:
            data = self._pointer.read_bytes()
        except FileNotFoundError:
            return NOTHING
        except OSError as error:
            raise RegistryError(
                f"{self._pointer}: cannot be read ({error.strerror}); look at its permissions"
            ) from error
        try:
            return _parse(json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(
                f"{self._pointer}: is not a pointer that can be read here ({error}); restore it, or remove it and "
                "publish again"
            ) from error

    def _replace(self, old: Pointer, new: Pointer) -> bool:
        """Replaces the pointer, unless it is no longer `old`."""
        with self._lock(_CHANGES, fcntl.LOCK_EX):
            if self._load().generation != old.generation:
                return False
            # Only what gets a new part: a bundle that is gone must not hinder the publishing of another.
            moved = [now for now, before in zip(new[1:3], old[1:3], strict=True) if now != before]
            self._check_present(*moved)
            self._write(new)
        return True

    def _write(self, pointer: Pointer) -> None:
        fields = {"format": POINTER_FORMAT, **pointer._asdict()}
        fields["history"] = [change._asdict() for change in pointer.history]
        handle, temporary = tempfile.mkstemp(prefix=".registry-", dir=self.root)
        try:
            with os.fdopen(handle, "w") as stream:
                json.dump(fields, stream, indent=1)
                stream.flush()
                os.fchmod(handle, 0o644)
                os.fsync(handle)
            os.replace(temporary, self._pointer)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(self.root, [])

    def _set_aside(self, bundle_id: str) -> Path:
        """Takes a bundle's name away in one step, so that a deletion cut short never leaves half a bundle."""
        aside = Path(tempfile.mkdtemp(prefix=".gone-", dir=self._bundles))
        os.rename(self.bundle_path(bundle_id), aside / bundle_id)
        return aside

    def _leftovers(self) -> list[Path]:
        old = time.time() - LEFTOVER_AGE_S
        temporary = [*self._bundles.glob(".*"), *self.root.glob(".registry-*")]
        return [path for path in temporary if path.lstat().st_mtime < old]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Says what the system does not: that it is the registry's disk that is full, and what to do."""
        try:
            yield
        except OSError as error:
            raise RegistryError(
                f"{self.root}: cannot be written ({error.strerror or error}), and is as it was; see that its disk has "
                "room and this user may write there, then give the order again"
            ) from error

    @contextmanager
    def _lock(self, name: str, how: int) -> Iterator[None]:
        self._bundles.mkdir(parents=True, exist_ok=True)
        with (self.root / name).open("a") as stream:
            fcntl.flock(stream, how)
            yield


def _has_report(folder: Path) -> bool:
    report = folder / REPORT
    return report.is_file() and not report.is_symlink()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _parse(fields: dict[str, Any]) -> Pointer:
    """Builds a pointer from JSON; raises ValueError, KeyError or TypeError where it is none."""
    if fields["format"] != POINTER_FORMAT:
        raise ValueError(f"format {fields['format']}, this code reads {POINTER_FORMAT}")
    history = tuple(Change(**{name: one[name] for name in Change._fields}) for one in fields["history"])
    pointer = Pointer(fields["generation"], fields["active"], fields["standby"], history)
    _check_fields(pointer.generation, pointer.active, pointer.standby)
    for change in history:
        _check_fields(change.generation, change.active, change.standby)
    return pointer


def _check_fields(generation: int, *bundle_ids: str) -> None:
    if not isinstance(generation, int) or generation < 1:
        raise ValueError(f"generation {generation!r} is not a positive number")
    for bundle_id in bundle_ids:
        if bundle_id != "" and not _ID.fullmatch(bundle_id):
            raise ValueError(f"{bundle_id!r} is not a bundle id")
