"""Everything that Marquee is built and tested with has one version, and this environment has it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.contract.compiled import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TORCH = "torch==2.13.0"
# What a build of PyTorch for an accelerator brings along; PyTorch pins it.
_ACCELERATOR = re.compile(r"(nvidia|cuda|triton|pytorch-triton)\b")


def test_pytorch_is_pinned_to_one_version_everywhere() -> None:
    assert [text for text in PROJECT["optional-dependencies"]["training"] if "torch" in text] == [TORCH]
    assert TORCH in (ROOT / "constraints.txt").read_text().splitlines()
    assert re.findall(r"torch==[\w.+]+", (ROOT / "Makefile").read_text()) == [TORCH]


def test_every_constraint_is_one_version_of_one_distribution() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    # A local version ("+cpu") names one index's build, and pip would ask for that very one.
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len(pins()) == len(lines)


def test_what_is_installed_is_what_is_pinned() -> None:
    installed = {name: version for name in pins() if (version := installed_version(name))}
    wrong = {name: version for name, version in installed.items() if version.public != pins()[name].public}
    assert not wrong, f"make this environment anew (`make setup`), or pin what is in it (`make lock`): {wrong}"
    assert "pytest" in installed


def test_every_dependency_is_pinned() -> None:
    needed = needs_of(Requirement("marquee[dev]"))
    unpinned = sorted(f"{name} (for {why})" for name, why in needed.items() if name not in pins())
    assert not unpinned, f"constraints.txt has no version of {', '.join(unpinned)}"
    assert {"grpcio", "onnxruntime", "faiss-cpu", "torch", "flatbuffers"} <= needed.keys()


def test_every_pin_is_of_something_that_is_needed() -> None:
    needed = needs_of(Requirement("marquee[dev]"))
    assert sorted(name for name in pins() if name not in needed and installed_version(name)) == []


def pins() -> dict[str, Version]:
    """Reads constraints.txt, by canonical name."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def installed_version(name: str) -> Version | None:
    try:
        return Version(distribution(name).version)
    except PackageNotFoundError:
        return None


def needs_of(wanted: Requirement) -> dict[str, str]:
    """Lists all that a requirement comes to here, by canonical name, each with one that needs it."""
    found: dict[str, str] = {}
    waiting, seen = [wanted], set()
    while waiting:
        need = waiting.pop()
        if str(need) in seen:
            continue
        seen.add(str(need))
        for one in map(Requirement, requirements_of(need.name)):
            name = canonicalize_name(one.name)
            if applies(one, need.extras) and not _ACCELERATOR.match(name):
                waiting.append(one)
                if name != "marquee":
                    found.setdefault(name, need.name)
    return found


def requirements_of(name: str) -> list[str]:
    """Lists a distribution's requirements; ours are those of pyproject.toml, whatever was installed before."""
    if name == "marquee":
        extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
        ours = [f'{text}; extra == "{extra}"' for extra, texts in extras.items() for text in texts]
        return [*PROJECT["dependencies"], *ours]
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return []


def applies(need: Requirement, extras: Iterable[str]) -> bool:
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
