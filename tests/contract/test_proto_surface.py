"""The contract on the wire, as a list that changes only on purpose, and with a comment on everything in it."""

from __future__ import annotations

import difflib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from tests.contract.compiled import ACCEPT, ROOT, SURFACE, surface

_ADDED = FieldDescriptorProto(name="live", number=99, type=FieldDescriptorProto.TYPE_BOOL)


def test_the_surface_is_the_one_that_was_agreed(compiled: FileDescriptorSet) -> None:
    agreed, now = SURFACE.read_text().splitlines(), surface(compiled).splitlines()
    difference = "\n".join(difflib.unified_diff(agreed, now, "agreed", "protos", lineterm="", n=0))
    assert not difference, (
        f"the protos say something else than {SURFACE.relative_to(ROOT)}:\n{difference}\n"
        f"Where it is meant, and old callers still work, run `{ACCEPT}` and commit the list with the change."
    )


def test_the_list_shows_a_change(compiled: FileDescriptorSet) -> None:
    changed = FileDescriptorSet.FromString(compiled.SerializeToString())
    catalog = next(file for file in changed.file if file.name == "marquee/v1/catalog.proto")
    catalog.message_type[0].field.append(_ADDED)
    catalog.service[0].method[0].server_streaming = True
    added = set(surface(changed).splitlines()) - set(surface(compiled).splitlines())
    name = catalog.message_type[0].name
    assert f"field marquee.v1.{name}.live = 99 bool" in added
    assert any(line.startswith("rpc marquee.v1.CatalogService/") and "(stream " in line for line in added)


def test_everything_in_the_protos_has_a_comment_and_its_name_is_right() -> None:
    done = check(ROOT / "protos")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["service", "rpc", "message", "enum", "  int64", "  EVENT_KIND_"])
def test_the_check_misses_no_comment(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "protos"
    shutil.copytree(ROOT / "protos", folder, ignore=shutil.ignore_patterns("__pycache__"))
    name = uncomment(folder, kind)
    done = check(folder)
    assert done.returncode == 1, f"{name} has no comment, and nobody said so"
    assert "comment" in done.stderr


def uncomment(folder: Path, kind: str) -> str:
    """Takes the comment off the first line, in any proto, that begins with `kind`; returns that line."""
    for path in sorted(folder.rglob("*.proto")):
        lines = path.read_text().splitlines()
        for at, line in enumerate(lines):
            if line.startswith(kind) or (kind == "rpc" and line.startswith("  rpc")):
                kept = lines[:at]
                while kept and kept[-1].lstrip().startswith("//"):
                    kept.pop()
                path.write_text("\n".join([*kept, line.split(" //")[0], *lines[at + 1 :], ""]))
                return line
    raise AssertionError(f"no proto has a line that begins with {kind!r}")


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "check.py")], capture_output=True, text=True, check=False, timeout=60
    )
