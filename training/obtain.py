"""Finds data to train on, and prints its folder: `python -m training.obtain`.

In this order: the folder that was named; data/ml-latest-small; a download of MovieLens latest-small, checked against
known checksums; and, with no network, the embedded sample with its simulated viewers.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from marquee.errors import DataError
from training.sample import SIMULATED_NOTICE, write_sample

SAMPLE = "sample"
URL = "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"
SIZE_MB = 1
_TIMEOUT_S = 20.0
_MAX_BYTES = 20 << 20
# sha256 of the files in the archive of September 26, 2018.
_CHECKSUMS = {
    "ratings.csv": "80da8b3393dae325bbba5a31f291a6ba55d8d4f4396de3c456f2c1635b1b70e8",
    "movies.csv": "5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07",
    "links.csv": "97ad18e4e56a09363c65676b6cb3482ce3e2cea2372a24620c1599c843325f31",
}
LICENCE = "MovieLens data is GroupLens': for research, not for commercial use; its README.txt states the conditions."


def obtain(named: str, into: Path) -> Path:
    """Returns a folder of data; `named` is a folder, "sample", or "" for the best that can be had.

    Says on stderr what it took. Raises DataError where a named folder is not there.
    """
    if named and named != SAMPLE:
        if not Path(named).is_dir():
            raise DataError(f"{named} is not a folder: set DATA to a folder with ratings.csv and movies.csv")
        return _told(Path(named), "as named")
    if named == SAMPLE:
        return _sample(into)
    local = into / "ml-latest-small"
    if local.is_dir():
        return _told(local, "found here")
    try:
        _say(f"downloading MovieLens latest-small ({SIZE_MB} MB) from {URL}. {LICENCE}")
        download(URL, local)
    except (OSError, DataError) as error:
        _say(f"no download ({error}); taking the embedded sample instead")
        return _sample(into)
    return _told(local, "downloaded, checksums match")


def download(url: str, folder: Path) -> None:
    """Downloads and unpacks an archive; raises OSError, or DataError where a file's checksum is not the known one."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        data = answer.read(_MAX_BYTES + 1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".download-", dir=folder.parent))
    try:
        _unpack(data, scratch)
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack(data: bytes, scratch: Path) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    (scratch / Path(info.filename).name).write_bytes(archive.read(info))
    except zipfile.BadZipFile as error:
        raise DataError(f"what came is not a zip archive: {error}") from error
    for name, expected in _CHECKSUMS.items():
        file = scratch / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise DataError(f"the archive's {name} is not the one that is known")


def _sample(into: Path) -> Path:
    folder = into / "sample"
    if not folder.is_dir():
        write_sample(folder)
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
