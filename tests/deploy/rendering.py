"""Renders the manifests as an engineer would change them: an overlay with more components in its list."""

from __future__ import annotations

import functools
import itertools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.rigs import ROOT

DEPLOY = ROOT / "deploy"
OVERLAYS = ("dev", "prod")
# The order that deploy/README.md gives: what adds programs comes before what changes them.
COMPONENTS = (
    "canary",
    "web",
    "redis",
    "milvus",
    "training",
    "distributed-training",
    "served-lists",
    "autoscaling",
    "monitoring",
    "network-policies",
    "mtls",
)
NEEDS_KUBECTL = (
    "needs kubectl 1.27 or newer: the manifests were not rendered, so nothing here shows that they are whole"
)

Object = dict[str, Any]


class Choice(NamedTuple):
    """Is an overlay with the components that are named beside its own."""

    overlay: str
    components: tuple[str, ...]

    def __str__(self) -> str:
        return "+".join((self.overlay, *self.components))


def kustomization(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return content


def own_components(overlay: str) -> list[str]:
    return [Path(path).name for path in kustomization(DEPLOY / "overlays" / overlay)["components"]]


def choices() -> list[Choice]:
    """Lists each overlay as it is, with each other component alone, with all pairs, and with all together."""
    found = []
    for overlay in OVERLAYS:
        others = [name for name in COMPONENTS if name not in own_components(overlay)]
        for count in sorted({0, 1, 2, len(others)}):
            found += [Choice(overlay, chosen) for chosen in itertools.combinations(others, count)]
    return found


@functools.cache
def rendered(choice: Choice) -> tuple[Object, ...]:
    """Renders a choice; skips the test where there is no kubectl."""
    if not _has_kubectl():
        pytest.skip(NEEDS_KUBECTL)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(DEPLOY, Path(folder) / "deploy"))
        place = copy / "overlays" / choice.overlay
        content = kustomization(place)
        wanted = {*own_components(choice.overlay), *choice.components}
        content["components"] = [f"../../components/{name}" for name in COMPONENTS if name in wanted]
        (place / "kustomization.yaml").write_text(yaml.safe_dump(content))
        done = subprocess.run(
            ["kubectl", "kustomize", str(place)], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, f"{choice}: {done.stderr}"
    # kubectl writes to stderr what is deprecated.
    assert done.stderr == "", f"{choice}: {done.stderr}"
    return tuple(yaml.safe_load_all(done.stdout))


@functools.cache
def _has_kubectl() -> bool:
    if shutil.which("kubectl") is None:
        return False
    done = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"v1\.(\d+)", done.stdout)
    return found is not None and int(found[1]) >= 27


def everything(overlay: str) -> tuple[Object, ...]:
    """Renders an overlay with all components."""
    return rendered(Choice(overlay, tuple(name for name in COMPONENTS if name not in own_components(overlay))))


def of_kind(objects: tuple[Object, ...], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def named(objects: tuple[Object, ...], kind: str, name: str) -> Object:
    """Finds the one object of a kind with a name, or with a name that kustomize put a hash behind."""
    pattern = re.compile(rf"{re.escape(name)}(-[a-z0-9]{{10}})?")
    (found,) = [one for one in of_kind(objects, kind) if pattern.fullmatch(one["metadata"]["name"])]
    return found


def pod_of(one: Object) -> Object:
    """Is the template of the pods that an object makes."""
    holder = one["spec"]["jobTemplate"] if one["kind"] == "CronJob" else one
    template: Object = holder["spec"]["template"]
    return template


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[Object, Object]]:
    """Lists what makes pods, with the pod's template."""
    for one in of_kind(objects, "CronJob", "Deployment", "StatefulSet", "Job"):
        yield one, pod_of(one)


def containers(template: Object) -> list[Object]:
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(objects: tuple[Object, ...], container: Object) -> Mapping[str, str]:
    """Reads what a container's environment is: literal values, and "secret:NAME:KEY" for those of Secrets."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", []):
        if "value" in entry:
            found[entry["name"]] = entry["value"]
        else:
            reference = entry["valueFrom"]["secretKeyRef"]
            found[entry["name"]] = f"secret:{reference['name']}:{reference['key']}"
    return found


def label(one: Object) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"
