"""A local copy of a registry follows the one on a shared volume, and never points to what it does not have."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marquee.bundle.__main__ import main
from marquee.bundle.format import Bundle
from marquee.bundle.registry import POINTER, Registry
from marquee.bundle.replicas import addresses
from marquee.errors import ConfigError
from tests.bundles import make_bundle
from tests.rigs import ROOT, publish


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [make_bundle(folder / str(seed), seed=seed) for seed in (1, 2, 3, 4, 5)]


@pytest.fixture
def source(tmp_path: Path, bundles: list[Bundle]) -> Registry:
    return publish(tmp_path / "source", bundles[0])


@pytest.fixture
def copy(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "copy")


def sync(copy: Registry, source: Registry) -> int:
    return main(["sync", "--registry", str(copy.root), "--from", str(source.root)])


def test_the_copy_has_the_pointer_and_what_it_names(copy: Registry, source: Registry, bundles: list[Bundle]) -> None:
    publish(source.root, bundles[1], activate=False)
    assert sync(copy, source) == 0
    assert copy.read() == source.read()
    assert copy.open(bundles[0].id).space == bundles[0].space
    assert copy.bundle_ids() == sorted(bundle.id for bundle in bundles[:2])


def test_it_goes_back_where_the_source_does(copy: Registry, source: Registry, bundles: list[Bundle]) -> None:
    publish(source.root, bundles[1])
    sync(copy, source)
    source.roll_back()
    sync(copy, source)
    assert copy.read().active == bundles[0].id


def test_what_nothing_names_any_more_is_deleted(copy: Registry, source: Registry, bundles: list[Bundle]) -> None:
    sync(copy, source)
    for bundle in bundles[1:]:
        publish(source.root, bundle)
        sync(copy, source)
    assert len(source.bundle_ids()) == 5
    assert bundles[0].id not in copy.bundle_ids()


@pytest.mark.parametrize("lost", ["", "manifest.json", "items.faiss", "report.json"])
def test_what_was_lost_here_is_copied_again(copy: Registry, source: Registry, bundles: list[Bundle], lost: str) -> None:
    publish(source.root, bundles[1])
    sync(copy, source)
    before = copy.read()
    for bundle in bundles[:2]:
        place = copy.bundle_path(bundle.id) / lost
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert sync(copy, source) == 0
    assert [copy.open(bundle.id).space for bundle in bundles[:2]] == [bundle.space for bundle in bundles[:2]]
    assert [copy.open(bundle.id).report() for bundle in bundles[:2]] == [bundle.report() for bundle in bundles[:2]]
    assert copy.read() == before


def test_a_file_that_was_cut_off_here_is_copied_again(copy: Registry, source: Registry, bundles: list[Bundle]) -> None:
    sync(copy, source)
    (copy.bundle_path(bundles[0].id) / "items.faiss").write_bytes(b"")
    assert sync(copy, source) == 0
    assert copy.open(bundles[0].id).id == bundles[0].id


def test_a_source_that_is_only_readable_is_enough(copy: Registry, source: Registry) -> None:
    before = sorted(path.name for path in source.root.iterdir())
    (source.root / "registry.lock").unlink()
    sync(copy, source)
    assert sorted(path.name for path in source.root.iterdir()) == [name for name in before if name != "registry.lock"]


def test_a_damaged_bundle_leaves_the_copy_as_it_was(
    copy: Registry, source: Registry, bundles: list[Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    sync(copy, source)
    before = (copy.root / POINTER).read_bytes()
    publish(source.root, bundles[1])
    damaged = source.bundle_path(bundles[1].id) / "items.faiss"
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    assert sync(copy, source) == 1
    assert str(damaged) in capsys.readouterr().err
    assert (copy.root / POINTER).read_bytes() == before
    assert copy.bundle_ids() == [bundles[0].id]


def test_a_source_without_a_registry_is_said_with_the_cure(
    copy: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sync(copy, Registry(tmp_path / "empty")) == 1
    assert "marquee.bundle publish" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "often"])
def test_a_time_that_cannot_be_waited_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sync", "--from", "here", f"--every={text}"])
    assert "--every" in capsys.readouterr().err


def test_waiting_without_looking_again_is_refused(
    copy: Registry, source: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sync", f"--registry={copy.root}", f"--from={source.root}", "--until-active"]) == 1
    assert "say with --every after how many seconds" in capsys.readouterr().err


@contextmanager
def following(copy: Registry, source: Registry, *flags: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "marquee.bundle", "sync", f"--registry={copy.root}", f"--from={source.root}"]
    process = subprocess.Popen([*command, "--every=0.05", *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_follows_until_sigterm_and_says_each_change_and_problem_once(
    copy: Registry, source: Registry, bundles: list[Bundle]
) -> None:
    with following(copy, source) as process:
        assert process.stderr is not None
        assert bundles[0].id in process.stderr.readline()
        aside = source.root.with_name("aside")
        os.rename(source.root, aside)
        assert "there is no registry here" in process.stderr.readline()
        publish(aside, bundles[1])
        shutil.move(aside, source.root)
        assert f"active {bundles[1].id}" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
    assert copy.read() == source.read()


def test_it_waits_for_an_active_bundle_and_ends(copy: Registry, tmp_path: Path, bundles: list[Bundle]) -> None:
    shared = Registry(tmp_path / "shared")
    with following(copy, shared, "--until-active") as process:
        assert process.stderr is not None
        assert "there is no registry here" in process.stderr.readline()
        publish(shared.root, bundles[0], activate=False)
        assert f"active none, standby {bundles[0].id}" in process.stderr.readline()
        shared.activate(confirm=None)
        assert f"active {bundles[0].id}" in process.stderr.readline()
        assert process.wait(30) == 0
    assert copy.read() == shared.read()


def test_a_name_stands_for_every_address_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (ip, 50051)) for ip in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    assert addresses("user-encoder-headless:50051") == ["10.0.0.1:50051", "10.0.0.2:50051"]
    assert addresses("localhost:50051") == ["localhost:50051"]


@pytest.mark.parametrize("replica", ["10.0.0.1", ":50051", "10.0.0.1:http"])
def test_what_is_no_address_is_refused(replica: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        addresses(replica)
