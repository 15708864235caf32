"""Finds data to train on, and prints its folder: `python -m training.obtain`.

In this order: the folder that was named; data/ml-latest-small; a download of MovieLens latest-small, checked against
known checksums; and, with no network, the embedded sample with its simulated viewers.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import shutil
import struct
import sys
import tempfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from marquee.errors import DataError
from training.sample import SIMULATED_NOTICE, write_sample

SAMPLE = "sample"
URL = "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"
SIZE_MB = 1
_TIMEOUT_S = 20.0
# What a shell reports for a program that Ctrl-C ended.
_EXIT_INTERRUPTED = 130
_MAX_BYTES = 20 << 20
# sha256 of the files in the archive of September 26, 2018.
CHECKSUMS = {
    "ratings.csv": "80da8b3393dae325bbba5a31f291a6ba55d8d4f4396de3c456f2c1635b1b70e8",
    "movies.csv": "5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07",
    "links.csv": "97ad18e4e56a09363c65676b6cb3482ce3e2cea2372a24620c1599c843325f31",
}
# All that urllib and zipfile are known to raise for a bad network or a bad archive. RuntimeError is an encrypted one,
# its child NotImplementedError an unknown compression; a ValueError is in the address or in a header.
_FAILURES = (
    OSError,
    http.client.HTTPException,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
)
LICENCE = "MovieLens data is GroupLens': for research, not for commercial use; its README.txt states the conditions."


def obtain(named: str, into: Path, url: str = URL, checksums: Mapping[str, str] = CHECKSUMS) -> Path:
    """Returns a folder of data; `named` is a folder, "sample", or "" for the best that can be had.

    Says on stderr what it took. Raises DataError where a named folder is not there, or the sample cannot be written.
    """
    if named and named != SAMPLE:
        if not Path(named).is_dir():
            raise DataError(f"{named} is not a folder: set DATA to a folder with your ratings and movies")
        return _told(Path(named), "as named")
    if named == SAMPLE:
        return _sample(into)
    local = into / "ml-latest-small"
    if local.is_dir():
        return _told(local, "found here")
    try:
        _say(f"downloading MovieLens latest-small ({SIZE_MB} MB) from {url}. {LICENCE}")
        download(url, local, checksums)
    except DataError as error:
        _say(f"no download ({error.message}); taking the embedded sample instead")
        return _sample(into)
    return _told(local, "downloaded, checksums match")


def download(url: str, folder: Path, checksums: Mapping[str, str], timeout_s: float = _TIMEOUT_S) -> None:
    """Downloads and unpacks an archive; `folder` appears whole or not at all.

    `timeout_s` is the longest silence of the server; ten times that is the longest download. Raises DataError for
    whatever goes wrong.
    """
    try:
        _place(_fetch(url, timeout_s), folder, checksums)
    except _FAILURES as error:
        raise DataError(f"{type(error).__name__}: {error}") from error


def _fetch(url: str, timeout_s: float) -> bytes:
    data, deadline = bytearray(), time.monotonic() + 10 * timeout_s
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        while part := answer.read1(1 << 16):
            data += part
            if len(data) > _MAX_BYTES or time.monotonic() > deadline:
                raise DataError(f"the answer is larger than {_MAX_BYTES >> 20} MiB, or takes too long")
        expected = answer.headers["Content-Length"]
    if expected is not None and len(data) != int(expected):
        raise DataError(f"the answer was cut off after {len(data):,} of {expected} bytes")
    return bytes(data)


def _place(data: bytes, folder: Path, checksums: Mapping[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".download-", dir=folder.parent))
    try:
        _unpack(data, scratch, checksums)
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack(data: bytes, scratch: Path, checksums: Mapping[str, str]) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        if sum(info.file_size for info in members) > _MAX_BYTES:
            raise DataError(f"the archive holds more than {_MAX_BYTES >> 20} MiB")
        for info in members:
            (scratch / Path(info.filename).name).write_bytes(archive.read(info))
    for name, expected in checksums.items():
        file = scratch / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise DataError(f"the archive's {name} is not the one that is known")


def _sample(into: Path) -> Path:
    folder = into / "sample"
    try:
        if not (folder / "ratings.csv").is_file():
            write_sample(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: the sample cannot be written there ({error.strerror or error}); remove what is in the way, "
            f"make {into} writable, or name another folder with --into"
        ) from error
    return _told(folder, SIMULATED_NOTICE)


def _told(folder: Path, what: str) -> Path:
    _say(f"{folder}: {what}")
    return folder


def _say(text: str) -> None:
    print(f"data: {text}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.obtain", description=__doc__)
    parser.add_argument("--data", default="", help='a folder, or "sample" (default: the best that can be had)')
    parser.add_argument("--into", type=Path, default=Path("data"), help="where data is kept (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        print(obtain(options.data, options.into))
    except DataError as error:
        print(f"obtain: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("obtain: interrupted; nothing half-written is left", file=sys.stderr)
        return _EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
