"""What other services install: the contract package, whole and alone."""

from __future__ import annotations

import email
import email.message
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.contract.compiled import ROOT


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_the_package_and_nothing_else(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert tops == {"marquee", dist_info(names)}


def test_the_wheel_holds_every_file_of_the_package(names: set[str]) -> None:
    files = [path for path in (ROOT / "marquee").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {str(path.relative_to(ROOT)) for path in files}
    assert {name for name in names if name.startswith("marquee/")} == expected
    data = {"marquee/py.typed", "marquee/client/service_config.json", "marquee/v1/types_pb2.pyi"}
    assert data | {"marquee/bundle/v1/bundle_pb2.pyi", "marquee/v1/retriever_pb2_grpc.pyi"} <= expected


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_the_wheel_carries_its_licence(wheel: Path, names: set[str], name: str) -> None:
    path = f"{dist_info(names)}/licenses/{name}"
    assert path in names, f"the repository has no {name}, which pyproject.toml promises"
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(path) == (ROOT / name).read_bytes()


def test_the_wheel_says_what_it_needs(wheel: Path, names: set[str]) -> None:
    metadata = read_metadata(wheel, names)
    needs = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    always = {need.name for need in needs if need.marker is None}
    assert always == {"grpcio", "protobuf", "googleapis-common-protos", "numpy"}
    assert {"encoder", "retriever", "clients", "training"} <= set(metadata.get_all("Provides-Extra", []))
    assert metadata["Requires-Python"] == ">=3.11"


def read_metadata(wheel: Path, names: set[str]) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{dist_info(names)}/METADATA"))


def dist_info(names: set[str]) -> str:
    (folder,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
    return folder
