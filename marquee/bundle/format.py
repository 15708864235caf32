"""The bundle on disk: written once, verified before anything in it is parsed, never changed.

A bundle is a folder. `manifest.json` is the proto-JSON of `marquee.bundle.v1.Manifest` and names every other file with
its size and sha256, but for `report.json`, which holds times and dates and is part of no id. The sha256 of the
manifest's bytes is the bundle's id.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError
from types import TracebackType

import numpy as np
import numpy.typing as npt
from google.protobuf import json_format

from marquee.bundle.v1 import bundle_pb2
from marquee.errors import BundleError
from marquee.features import check_spec

FORMAT_MAJOR, FORMAT_MINOR = 1, 0
MANIFEST = "manifest.json"
REPORT = "report.json"
USER_TOWER = "user_tower.onnx"
ITEM_TOWER = "item_tower.onnx"
HISTORY_IDS = "history_ids.npy"
HISTORY_TABLE = "history_table.npy"
MOVIE_IDS = "movie_ids.npy"
ITEM_VECTORS = "item_vectors.npy"
INDEX = "items.faiss"
CATALOG = "catalog.sqlite"
PROBES = "probes.npz"
EVALUATION = "evaluation.npz"
FILES = frozenset(
    {USER_TOWER, ITEM_TOWER, HISTORY_IDS, HISTORY_TABLE, MOVIE_IDS, ITEM_VECTORS, INDEX, CATALOG, PROBES, EVALUATION}
)


# Narrow, so that a name is the same file wherever it is written and shows in a log as what it is: no folders, nothing
# hidden, no two names that one file system takes for one (by case, or by how an accent is written).
_FILE_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*", re.ASCII)


class Bundle:
    """Is a verified bundle, open for reading.

    Every file's bytes matched the manifest when `open_bundle` made this.
    """

    __slots__ = ("id", "manifest", "path")

    def __init__(self, path: Path, bundle_id: str, manifest: bundle_pb2.Manifest) -> None:
        self.path = path
        self.id = bundle_id
        self.manifest = manifest

    @property
    def space(self) -> str:
        """Names the embedding space."""
        return self.manifest.space

    @property
    def features(self) -> bundle_pb2.FeatureSpec:
        """Says how events become the user tower's input."""
        return self.manifest.features

    def file(self, name: str) -> Path:
        """Names the path of a file of the bundle."""
        return self.path / name

    def array(self, name: str) -> npt.NDArray[np.generic]:
        """Maps an .npy file into memory, read-only."""
        return load_array(self.file(name))

    def report(self) -> bundle_pb2.Report:
        """Reads report.json; empty where there is none. No id covers it, so nothing must depend on it."""
        file = self.file(REPORT)
        if not os.path.lexists(file):
            return bundle_pb2.Report()
        if not _is_plain(file):
            raise BundleError(f"{file}: is not a plain file; export the bundle again")
        try:
            return json_format.Parse(file.read_bytes(), bundle_pb2.Report(), ignore_unknown_fields=True)
        except (json_format.ParseError, UnicodeDecodeError, OSError) as error:
            raise BundleError(f"{file}: not a report ({error}); export the bundle again") from error

    def __repr__(self) -> str:
        return f"Bundle({self.id[:12]}, space={self.space[:12]}, {self.manifest.movies} movies)"


def load_array(file: Path) -> npt.NDArray[np.generic]:
    """Maps an .npy file into memory, read-only; raises BundleError where it is not one."""
    try:
        # Unlike np.load, reads no other format; the last two errors are of headers that are no Python literals.
        array: npt.NDArray[np.generic] = np.lib.format.open_memmap(file, mode="r")
        if array.ndim == 0:
            raise ValueError("it holds a single number")
    except (ValueError, OSError, SyntaxError, TokenError) as error:
        raise BundleError(f"{file}: not a readable .npy file ({error}); export the bundle again") from error
    return array


def open_bundle(path: Path) -> Bundle:
    """Verifies a bundle and opens it.

    Raises BundleError naming the file that is missing, cut off, edited, a link, or of a format that this code does not
    read. No file is parsed before its sha256 has matched.
    """
    manifest_bytes = _read_manifest(path)
    manifest = _parse_manifest(path, manifest_bytes)
    _check_names(path, manifest)
    for entry in manifest.files:
        _check_file(path, entry)
    if manifest.space != space_id(manifest, path):
        raise BundleError(f"{path / MANIFEST}: the towers and history rows are not those of space {manifest.space}")
    return Bundle(path, hashlib.sha256(manifest_bytes).hexdigest(), manifest)


def _read_manifest(path: Path) -> bytes:
    file = path / MANIFEST
    if os.path.lexists(file) and not _is_plain(file):
        raise BundleError(f"{file}: is not a plain file; publish the bundle again")
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error.strerror}); is {path} a bundle?") from error


def _parse_manifest(path: Path, data: bytes) -> bundle_pb2.Manifest:
    try:
        manifest = json_format.Parse(data, bundle_pb2.Manifest(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise BundleError(f"{path / MANIFEST}: not a manifest ({error}); publish the bundle again") from error
    if manifest.format.major != FORMAT_MAJOR:
        raise BundleError(
            f"{path / MANIFEST}: format {manifest.format.major}.{manifest.format.minor} is not read here (this code "
            f"reads {FORMAT_MAJOR}.x); run a Marquee that does, or export the bundle with this version"
        )
    check_spec(manifest.features)
    return manifest


def _check_names(path: Path, manifest: bundle_pb2.Manifest) -> None:
    names = [entry.name for entry in manifest.files]
    for name in names:
        if not _FILE_NAME.fullmatch(name):
            raise BundleError(
                f"{path / MANIFEST}: {name!r} is not a plain file name: small letters, digits and _ - . only; publish "
                "the bundle again from where it was exported"
            )
    missing = sorted(FILES - set(names))
    if missing or len(set(names)) != len(names):
        raise BundleError(f"{path / MANIFEST}: must list each file once; not listed: {', '.join(missing) or 'none'}")


def _check_file(path: Path, entry: bundle_pb2.File) -> None:
    file = path / entry.name
    if not _is_plain(file):
        raise BundleError(f"{file}: is missing, or is not a plain file; publish the bundle again")
    size = file.stat().st_size
    if size != entry.size:
        raise BundleError(f"{file}: has {size} bytes, the manifest says {entry.size}; publish the bundle again")
    if sha256_of(file) != entry.sha256:
        raise BundleError(f"{file}: its sha256 is not the manifest's: it was edited or damaged; publish it again")


def _is_plain(file: Path) -> bool:
    # os.path and not Path: a name that no file system takes is answered with False.
    return os.path.isfile(file) and not os.path.islink(file)


def sha256_of(file: Path) -> str:
    """Hashes a file's bytes, hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def space_id(manifest: bundle_pb2.Manifest, path: Path) -> str:
    """Hashes what makes an embedding space: both towers, the trained history rows, the feature spec."""
    rows = manifest.trained_history_rows
    ids = load_array(path / HISTORY_IDS)[:rows]
    table = load_array(path / HISTORY_TABLE)[:rows]
    digest = hashlib.sha256()
    digest.update(_canonical(manifest.features).encode())
    for part in (sha256_of(path / USER_TOWER), sha256_of(path / ITEM_TOWER)):
        digest.update(part.encode())
    digest.update(np.ascontiguousarray(ids).tobytes())
    digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()


def _revision_id(manifest: bundle_pb2.Manifest) -> str:
    digest = hashlib.sha256(manifest.space.encode())
    for entry in manifest.files:
        digest.update(f"{entry.name}:{entry.sha256}\n".encode())
    digest.update(_canonical(manifest.index).encode())
    return digest.hexdigest()


def _canonical(message: bundle_pb2.Manifest | bundle_pb2.FeatureSpec | bundle_pb2.IndexSpec | bundle_pb2.Report) -> str:
    return json.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True), sort_keys=True, indent=1)


def check_destination(path: Path) -> None:
    """Raises BundleError where something stands at `path` that is no bundle and would be replaced by one."""
    is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not is_free and not (path / MANIFEST).is_file():
        raise BundleError(f"{path}: holds something that is not a bundle; name a folder that is new, empty or a bundle")


class BundleWriter:
    """Writes a bundle: fill `folder`, then `finish`.

    Used as a context manager. Until `finish` has renamed it, the folder has a temporary name beside its destination;
    where the block is left early it is removed, so nothing half-written ever has a bundle's name.
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self.folder = Path()

    def __enter__(self) -> BundleWriter:
        check_destination(self._destination)
        self._destination.parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=".bundle-", dir=self._destination.parent))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def finish(self, manifest: bundle_pb2.Manifest, report: bundle_pb2.Report) -> Bundle:
        """Lists the files in `manifest`, derives its ids, writes it, and moves the folder to its destination.

        `manifest` comes with everything but format, files, space and revision.
        """
        manifest.format.CopyFrom(bundle_pb2.FormatVersion(major=FORMAT_MAJOR, minor=FORMAT_MINOR))
        del manifest.files[:]
        manifest.files.extend(self._entry(name) for name in sorted(FILES))
        manifest.space = space_id(manifest, self.folder)
        manifest.revision = _revision_id(manifest)
        (self.folder / MANIFEST).write_text(_canonical(manifest))
        (self.folder / REPORT).write_text(_canonical(report))
        sync_folder(self.folder, sorted([*FILES, MANIFEST, REPORT]))
        self.folder.chmod(0o755)
        replace_folder(self.folder, self._destination)
        return open_bundle(self._destination)

    def _entry(self, name: str) -> bundle_pb2.File:
        file = self.folder / name
        return bundle_pb2.File(name=name, size=file.stat().st_size, sha256=sha256_of(file))


def replace_folder(source: Path, destination: Path) -> None:
    """Renames a folder to its place; one that stands there is moved aside first and then removed."""
    if destination.exists():
        aside = Path(tempfile.mkdtemp(prefix=".old-", dir=destination.parent))
        os.rename(destination, aside / "folder")
        os.rename(source, destination)
        shutil.rmtree(aside)
    else:
        os.rename(source, destination)
    _sync(destination.parent)


def sync_folder(folder: Path, names: Iterable[str]) -> None:
    """Forces files and their folder to disk."""
    for name in names:
        _sync(folder / name)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
