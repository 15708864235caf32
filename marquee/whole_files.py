"""Files that are whole or not there, however the process that writes them ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from marquee.bundle.format import sync_folder
from marquee.errors import DataError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file: `write` gets a path beside it, with nothing there, and what it has written takes the file's place.

    Where it raises, nothing of it stays.
    """
    temporary = path.with_name(f"{path.name}.writing")
    temporary.unlink(missing_ok=True)
    try:
        write(temporary)
        sync_folder(path.parent, [temporary.name])
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent, [])


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Writes a JSON object as a whole file."""
    text = json.dumps(values, indent=1)
    write_whole(path, lambda temporary: temporary.write_text(f"{text}\n"))


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object, None where there is no file; raises DataError where it cannot, or holds something else."""
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); see that this user may, or remove it") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); remove it to begin anew") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is not a JSON object; remove it to begin anew")
    return values
