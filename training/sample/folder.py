"""Makes a folder of data that appears whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a scratch folder to fill, which becomes `folder` at the end of the block.

    Raises FileExistsError where `folder` already holds something.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists; remove it or name another folder for the data")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename stays on one file system.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        staged = Path(scratch) / folder.name
        staged.mkdir()
        yield staged
        staged.rename(folder)
