import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from marquee.bundle.__main__ import main
from marquee.bundle.format import FILES, HISTORY_IDS, HISTORY_TABLE, MANIFEST, Bundle, BundleWriter, open_bundle
from marquee.bundle.registry import HISTORY, NOTHING, Pointer, Registry
from marquee.bundle.v1 import bundle_pb2
from marquee.errors import BundleError, GateRefused, RegistryError
from marquee.features import feature_spec
from marquee.v1 import retriever_pb2, types_pb2, user_encoder_pb2

ROOT = Path(__file__).parents[2]


class Made:
    """Makes bundles that hold no model: `make("A", 2)` is revision 2 of space A."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, space: str, revision: int = 1) -> Bundle:
        place = self.folder / f"{space}{revision}"
        if place.exists():
            return open_bundle(place)
        with BundleWriter(place) as writer:
            for name in FILES:
                (writer.folder / name).write_text(f"{name} {revision}")
            for name in ("user_tower.onnx", "item_tower.onnx"):
                (writer.folder / name).write_text(f"{name} of {space}")
            np.save(writer.folder / HISTORY_IDS, np.array([1], np.int64))
            np.save(writer.folder / HISTORY_TABLE, np.zeros((1, 4), np.float32))
            manifest = bundle_pb2.Manifest(
                features=feature_spec(max_history=5, dimension=4, content_buckets=8, max_content_tokens=4),
                tower=bundle_pb2.TowerSpec(kind="pooled"),
                dataset=bundle_pb2.Dataset(name="toy", simulated=True),
                movies=3,
                trained_history_rows=1,
            )
            return writer.finish(manifest, bundle_pb2.Report(created_at="2024-01-01T00:00:00Z"))


@pytest.fixture
def make(tmp_path: Path) -> Made:
    return Made(tmp_path / "exported")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def publish(registry: Registry, *bundles: Bundle) -> Pointer:
    pointer = NOTHING
    for bundle in bundles:
        pointer = registry.publish(bundle.path, check=None)
    return pointer


def served(pointer: Pointer, *bundles: Bundle) -> str:
    """Names active and standby as the folders they were exported to, "-" for none."""
    names = {bundle.id: bundle.path.name for bundle in bundles}
    return " ".join(names.get(one, one or "-") for one in (pointer.active, pointer.standby))


@contextmanager
def unchanged(registry: Registry) -> Iterator[None]:
    before = (registry.root / "registry.json").read_bytes()
    yield
    assert (registry.root / "registry.json").read_bytes() == before


def age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def test_the_first_bundle_becomes_standby_and_then_active(registry: Registry, make: Made) -> None:
    bundle = make("A")
    pointer = publish(registry, bundle)
    assert (pointer.generation, served(pointer, bundle)) == (1, "- A1")
    pointer = registry.activate(confirm=lambda space: pytest.fail("nothing is served yet, so nobody is asked"))
    assert (pointer.generation, served(pointer, bundle)) == (2, "A1 -")
    assert registry.read() == pointer
    assert open_bundle(registry.bundle_path(bundle.id)).id == bundle.id


def test_the_exported_folder_is_copied_not_moved(registry: Registry, make: Made) -> None:
    bundle = make("A")
    publish(registry, bundle)
    copied = registry.bundle_path(bundle.id)
    assert open_bundle(bundle.path).id == bundle.id
    assert copied.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in copied.iterdir()) == sorted(path.name for path in bundle.path.iterdir())


def test_a_refresh_replaces_its_own_space_and_never_evicts_the_other(registry: Registry, make: Made) -> None:
    a1, a2, b1, b2 = make("A", 1), make("A", 2), make("B", 1), make("B", 2)
    publish(registry, a1)
    registry.activate(confirm=None)
    assert served(publish(registry, b1), a1, b1) == "A1 B1"
    assert served(publish(registry, a2), a2, b1) == "A2 B1"
    assert served(publish(registry, b2), a2, b2) == "A2 B2"


def test_a_new_space_takes_the_standbys_place(registry: Registry, make: Made) -> None:
    a, b, c = make("A"), make("B"), make("C")
    publish(registry, a)
    registry.activate(confirm=None)
    assert served(publish(registry, b, c), a, c) == "A1 C1"
    assert registry.bundle_path(b.id).is_dir()


def test_publishing_what_is_pointed_to_changes_nothing(registry: Registry, make: Made) -> None:
    bundle = make("A")
    publish(registry, bundle)
    with unchanged(registry):
        registry.publish(bundle.path, check=lambda candidate, active: pytest.fail("it was judged before"))
        registry.publish(registry.bundle_path(bundle.id), check=None)


def test_the_gate_sees_candidate_and_active_and_may_refuse(registry: Registry, make: Made) -> None:
    a, b = make("A"), make("B")
    seen = []

    def note(candidate: Bundle, active: Bundle | None) -> None:
        seen.append((candidate.id, active and active.id))

    def refuse(candidate: Bundle, active: Bundle | None) -> None:
        raise GateRefused("refused: worse")

    registry.publish(a.path, check=note)
    registry.activate(confirm=None)
    with unchanged(registry), pytest.raises(GateRefused, match="worse"):
        registry.publish(b.path, check=refuse)
    pointer = registry.publish(b.path, check=note)
    assert seen == [(a.id, None), (b.id, a.id)]
    assert pointer.history[-1].what == f"publish {b.id[:12]}"
    assert publish(registry, make("C")).history[-1].what.endswith("without the gate")


def test_the_gate_judges_again_where_the_active_bundle_changed_meanwhile(registry: Registry, make: Made) -> None:
    a, b, c = make("A"), make("B"), make("C")
    publish(registry, a)
    registry.activate(confirm=None)
    publish(registry, b)
    against = []

    def check(candidate: Bundle, active: Bundle | None) -> None:
        assert active is not None
        against.append(active.id)
        if len(against) == 1:
            registry.activate(confirm=None)

    pointer = registry.publish(c.path, check=check)
    assert against == [a.id, b.id]
    assert (pointer.generation, served(pointer, b, c)) == (5, "B1 C1")


def test_replicas_are_asked_for_the_space_and_may_refuse(registry: Registry, make: Made) -> None:
    a, b = make("A"), make("B")
    publish(registry, a)
    registry.activate(confirm=None)
    publish(registry, b)
    asked: list[str] = []

    def refuse(space: str) -> None:
        raise RegistryError("refused: localhost:1 does not list it")

    with unchanged(registry), pytest.raises(RegistryError, match="localhost:1"):
        registry.activate(confirm=refuse)
    assert served(registry.activate(confirm=asked.append), a, b) == "B1 A1"
    assert asked == [b.space]


def test_the_bundle_to_activate_is_named_by_id_space_or_their_first_digits(registry: Registry, make: Made) -> None:
    a, b = make("A"), make("B")
    publish(registry, a)
    registry.activate(a.id, confirm=None)
    publish(registry, b)
    for name, expected in [(b.space, "B1 A1"), (a.id, "A1 B1"), (b.id[:8], "B1 A1"), (a.space[:12], "A1 B1")]:
        assert served(registry.activate(name, confirm=None), a, b) == expected
    with unchanged(registry):
        registry.activate(a.id, confirm=None)
        for name in ("0" * 64, b.id[:7], "../../etc"):
            with pytest.raises(RegistryError, match="fits neither the active and the standby"):
                registry.activate(name, confirm=None)


def test_without_a_standby_there_is_nothing_to_activate(registry: Registry, make: Made) -> None:
    publish(registry, make("A"))
    registry.activate(confirm=None)
    with unchanged(registry), pytest.raises(RegistryError, match="no standby to activate"):
        registry.activate(confirm=None)


def test_a_flip_is_rolled_back_by_a_flip_and_never_forth_again(registry: Registry, make: Made) -> None:
    a, b = make("A"), make("B")
    publish(registry, a)
    registry.activate(confirm=None)
    publish(registry, b)
    registry.activate(confirm=None)
    assert served(registry.roll_back(), a, b) == "A1 B1"
    with unchanged(registry), pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.roll_back()
    assert served(registry.activate(confirm=None), a, b) == "B1 A1"
    assert served(registry.roll_back(), a, b) == "A1 B1"


def test_refreshes_are_rolled_back_one_by_one_and_the_standby_stays(registry: Registry, make: Made) -> None:
    a1, a2, a3, b = make("A", 1), make("A", 2), make("A", 3), make("B")
    publish(registry, a1)
    registry.activate(confirm=None)
    publish(registry, a2, a3, b)
    assert served(registry.roll_back(), a2, b) == "A2 B1"
    assert served(registry.roll_back(), a1, b) == "A1 B1"
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.roll_back()


def test_a_new_standby_does_not_make_a_roll_back_forget_what_it_left(registry: Registry, make: Made) -> None:
    a1, a2, b = make("A", 1), make("A", 2), make("B")
    publish(registry, a1)
    registry.activate(confirm=None)
    publish(registry, a2)
    registry.roll_back()
    publish(registry, b)
    with unchanged(registry), pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.roll_back()


def test_a_flip_is_rolled_back_to_the_standbys_own_revision(registry: Registry, make: Made) -> None:
    a1, a2, b = make("A", 1), make("A", 2), make("B")
    publish(registry, a1)
    registry.activate(confirm=None)
    publish(registry, b)
    registry.activate(confirm=None)
    publish(registry, a2)
    assert served(registry.roll_back(), a2, b) == "A2 B1"


def test_a_space_that_was_evicted_can_be_rolled_back_to(registry: Registry, make: Made) -> None:
    a, b, c = make("A"), make("B"), make("C")
    publish(registry, a)
    registry.activate(confirm=None)
    publish(registry, b)
    registry.activate(confirm=None)
    publish(registry, c)
    assert served(registry.roll_back(), a, b) == "A1 B1"


def test_a_standby_that_was_never_active_is_not_rolled_back_to(registry: Registry, make: Made) -> None:
    publish(registry, make("A"))
    registry.activate(confirm=None)
    publish(registry, make("B"))
    with unchanged(registry), pytest.raises(RegistryError, match="make the standby active, activate it"):
        registry.roll_back()


def test_rolling_back_to_a_damaged_bundle_is_refused(registry: Registry, make: Made) -> None:
    a1 = make("A", 1)
    publish(registry, a1)
    registry.activate(confirm=None)
    publish(registry, make("A", 2))
    (registry.bundle_path(a1.id) / "probes.npz").write_text("edited")
    with unchanged(registry), pytest.raises(BundleError, match=r"probes\.npz"):
        registry.roll_back()


def test_the_history_has_the_last_ten_changes(registry: Registry, make: Made) -> None:
    publish(registry, make("A"))
    registry.activate(confirm=None)
    publish(registry, make("B"))
    for _ in range(12):
        pointer = registry.activate(confirm=None)
    assert [change.generation for change in pointer.history] == list(range(6, 16))
    assert len(pointer.history) == HISTORY
    assert pointer.history[-1][:3] == pointer[:3]
    assert pointer.history[-1].at.endswith("+00:00")


def test_where_there_is_no_registry_it_says_how_to_make_one(registry: Registry) -> None:
    for order in (registry.read, registry.roll_back, registry.gc, lambda: registry.activate(confirm=None)):
        with pytest.raises(RegistryError, match=r"no registry here.*marquee\.bundle publish"):
            order()
    assert not registry.root.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "\xff",
        '{"format": 1}',
        '{"format": 2, "generation": 1, "active": "", "standby": "", "history": []}',
        '{"format": 1, "generation": "1", "active": "", "standby": "", "history": []}',
        '{"format": 1, "generation": 0, "active": "", "standby": "", "history": []}',
        '{"format": 1, "generation": 1, "active": "../../etc", "standby": "", "history": []}',
        '{"format": 1, "generation": 1, "active": null, "standby": "", "history": []}',
        '{"format": 1, "generation": 1, "active": "", "standby": "", "history": [{}]}',
    ],
)
def test_a_pointer_that_cannot_be_read_is_refused_by_readers_and_writers(
    registry: Registry, make: Made, text: str
) -> None:
    registry.root.mkdir()
    (registry.root / "registry.json").write_bytes(text.encode("latin-1"))
    with unchanged(registry):
        with pytest.raises(RegistryError, match=r"registry\.json: is not a pointer"):
            registry.read()
        with pytest.raises(RegistryError, match=r"registry\.json: is not a pointer"):
            registry.publish(make("A").path, check=None)


def test_a_disk_that_fails_is_a_sentence_and_not_the_end_of_who_looks(
    registry: Registry, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make("A")
    publish(registry, bundle)
    plain = os.stat

    def stale(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        if str(path).endswith(MANIFEST):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return plain(path, *rest, **more)

    # A network's disk that is gone cannot be had here.
    monkeypatch.setattr(os, "stat", stale)
    with pytest.raises(RegistryError, match=f"bundle {bundle.id}, which is not at "):
        registry.read()


def test_a_bundle_that_is_gone_is_named_and_can_be_published_again(registry: Registry, make: Made) -> None:
    bundle = make("A")
    publish(registry, bundle)
    registry.bundle_path(bundle.id).rename(registry.root / "elsewhere")
    with pytest.raises(RegistryError, match=f"bundle {bundle.id}, which is not at {registry.bundle_path(bundle.id)}"):
        registry.read()
    publish(registry, bundle)
    assert registry.read().standby == bundle.id


def test_a_damaged_bundle_in_the_registry_is_mended_by_publishing_it_again(registry: Registry, make: Made) -> None:
    bundle = make("A")
    publish(registry, bundle)
    (registry.bundle_path(bundle.id) / "probes.npz").write_text("edited")
    with unchanged(registry):
        publish(registry, bundle)
    assert open_bundle(registry.bundle_path(bundle.id)).id == bundle.id


def test_a_damaged_export_is_refused_before_anything_is_made(registry: Registry, make: Made, tmp_path: Path) -> None:
    bundle = make("A")
    (bundle.path / "probes.npz").write_text("edited")
    for folder in (bundle.path, tmp_path / "missing"):
        with pytest.raises(BundleError):
            registry.publish(folder, check=None)
    assert not registry.root.exists()


@pytest.mark.parametrize("name", ["", "..", "../x", "a" * 63, "A" * 64, "a" * 64 + "\n", "a" * 64 + "/..", "/etc"])
def test_an_id_is_64_hexadecimal_digits_and_no_path(registry: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match="is not a bundle id"):
        registry.bundle_path(name)
    assert registry.bundle_path("a" * 64).parent == registry.root / "bundles"


def test_gc_deletes_what_nothing_names_and_keeps_what_is_pointed_to(registry: Registry, make: Made) -> None:
    a1, a2, a3, b, c = make("A", 1), make("A", 2), make("A", 3), make("B"), make("C")
    publish(registry, a1)
    registry.activate(confirm=None)
    publish(registry, a2, a3, b, c)
    with unchanged(registry):
        assert registry.gc(keep=4) == [a1.id]
        assert registry.gc(keep=3) == [a2.id]  # the last three changes name a3, b and c
        assert registry.gc(keep=0) == [b.id]
        assert registry.gc(keep=0) == []
    assert registry.bundle_ids() == sorted([a3.id, c.id])
    assert {path.name for path in (registry.root / "bundles").iterdir()} == {a3.id, c.id}


def test_gc_keeps_leftovers_for_an_hour(registry: Registry, make: Made) -> None:
    publish(registry, make("A"))
    new = registry.root / "bundles" / ".incoming-new"
    old = registry.root / "bundles" / ".incoming-old"
    pointer = registry.root / ".registry-old"
    for folder in (new, old):
        folder.mkdir()
        (folder / "half").write_text("a fil")
    pointer.write_text('{"gener')
    age(new, 0.9)
    age(old, 1.1)
    age(pointer, 1.1)
    registry.gc()
    assert new.exists()
    assert not old.exists()
    assert not pointer.exists()


def test_leftovers_of_killed_writers_are_no_bundles(registry: Registry, make: Made) -> None:
    publish(registry, make("A"))
    (registry.root / "bundles" / ".incoming-x").mkdir()
    (registry.root / ".registry-x").write_text("{")
    assert registry.bundle_ids() == [make("A").id]
    assert served(publish(registry, make("B")), make("B")) == "- B1"


FLIP = """
import sys
from pathlib import Path
from marquee.bundle.registry import Registry
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    Registry(Path(sys.argv[1])).activate(confirm=None)
"""

# Kills a publish just before its n-th call that changes the disk, for every n until one ends by itself.
KILL = """
import os, shutil, sys
from pathlib import Path
from marquee.bundle.registry import Registry

def deadly(call, left=[0]):
    def wrapped(*arguments, **options):
        calls[0] += 1
        if calls[0] == deadline:
            os._exit(9)
        return call(*arguments, **options)
    return wrapped

deadline = calls = None
registry, bundle = Registry(Path(sys.argv[1])), Path(sys.argv[2])
for deadline in range(1, 1000):
    child = os.fork()
    if child == 0:
        calls = [0]
        for module, name in [(os, "fsync"), (os, "rename"), (os, "replace"), (os, "fchmod"), (shutil, "copyfile")]:
            setattr(module, name, deadly(getattr(module, name)))
        registry.publish(bundle, check=None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    pointer = registry.read()
    print(os.waitstatus_to_exitcode(status), pointer.generation, pointer.standby, flush=True)
    if os.waitstatus_to_exitcode(status) != 9:
        break
"""


def python(code: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def is_locked(path: Path) -> bool:
    with path.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_two_processes_lose_no_update_and_readers_see_whole_pointers(registry: Registry, make: Made) -> None:
    publish(registry, make("A"))
    registry.activate(confirm=None)
    publish(registry, make("B"))
    with python(FLIP, registry.root) as one, python(FLIP, registry.root) as two:
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        start(one)
        start(two)
        seen = [3]
        while one.poll() is None or two.poll() is None:
            seen.append(registry.read().generation)
    assert (one.returncode, two.returncode) == (0, 0)
    assert seen == sorted(seen)
    pointer = registry.read()
    assert pointer.generation == 3 + 80
    assert {pointer.active, pointer.standby} == {make("A").id, make("B").id}


def test_the_generation_is_checked_and_the_pointer_replaced_under_a_lock(
    registry: Registry, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = []
    replace = os.replace

    def note(source: Path, target: Path) -> None:
        locked.append(is_locked(registry.root / "registry.lock"))
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    publish(registry, make("A"))
    registry.activate(confirm=None)
    assert locked == [True, True]
    assert not is_locked(registry.root / "registry.lock")


def test_gc_waits_while_a_candidate_is_judged_but_others_may_write(registry: Registry, make: Made) -> None:
    locked = []

    def check(candidate: Bundle, active: Bundle | None) -> None:
        locked.append([is_locked(registry.root / name) for name in ("bundles.lock", "registry.lock")])

    registry.publish(make("A").path, check=check)
    assert locked == [[True, False]]
    assert not is_locked(registry.root / "bundles.lock")


def test_many_publishers_of_one_bundle_install_it_once(registry: Registry, make: Made) -> None:
    bundle = make("A")
    with ThreadPoolExecutor(4) as pool:
        pointers = list(pool.map(lambda _: publish(registry, bundle), range(8)))
    assert {pointer.generation for pointer in pointers} == {1}
    assert [path.name for path in (registry.root / "bundles").iterdir()] == [bundle.id]


def test_a_publish_killed_at_any_point_leaves_the_old_pointer_or_the_new(registry: Registry, make: Made) -> None:
    publish(registry, make("A"))
    old, new = make("A", 1).id, make("A", 2).id
    with python(KILL, registry.root, make("A", 2).path) as process:
        lines = [line.split() for line in process.communicate()[0].splitlines()]
    assert process.returncode == 0
    assert len(lines) > len(FILES)
    assert lines[0] == ["9", "1", old]
    assert lines[-1] == ["0", "2", new]
    assert {tuple(line[1:]) for line in lines} == {("1", old), ("2", new)}
    assert open_bundle(registry.bundle_path(new)).id == new
    for leftover in (registry.root / "bundles").glob(".*"):
        age(leftover, 2)
    assert registry.gc(keep=0) == [old]
    assert {path.name for path in (registry.root / "bundles").iterdir()} == {new}


def state(*bundles: tuple[str, "types_pb2.BundleRole"]) -> types_pb2.ReplicaState:
    return types_pb2.ReplicaState(bundles=[types_pb2.LoadedBundle(space=space, role=role) for space, role in bundles])


class Replicas:
    """Runs an encoder and a retriever, each on a socket of its own, that only say what they have loaded."""

    def __init__(self) -> None:
        self.encoder = self.retriever = types_pb2.ReplicaState()
        self._servers = [grpc.server(ThreadPoolExecutor(1)) for _ in range(2)]
        get_model = grpc.unary_unary_rpc_method_handler(
            lambda request, context: user_encoder_pb2.GetModelResponse(state=self.encoder),
            user_encoder_pb2.GetModelRequest.FromString,
            user_encoder_pb2.GetModelResponse.SerializeToString,
        )
        get_index = grpc.unary_unary_rpc_method_handler(
            lambda request, context: retriever_pb2.GetIndexResponse(state=self.retriever),
            retriever_pb2.GetIndexRequest.FromString,
            retriever_pb2.GetIndexResponse.SerializeToString,
        )
        encoder = grpc.method_handlers_generic_handler("marquee.v1.UserEncoderService", {"GetModel": get_model})
        retriever = grpc.method_handlers_generic_handler("marquee.v1.RetrieverService", {"GetIndex": get_index})
        self.addresses = [f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}" for server in self._servers]
        self.flags = [flag for address in self.addresses for flag in ("--replica", address)]
        for server, handler in zip(self._servers, (encoder, retriever), strict=True):
            server.add_generic_rpc_handlers((handler,))
            server.start()

    def stop(self) -> None:
        for server in self._servers:
            server.stop(None).wait()


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    running = Replicas()
    yield running
    running.stop()


@pytest.fixture
def two(registry: Registry, make: Made) -> tuple[Bundle, Bundle]:
    """Publishes A, active, and B, standby."""
    publish(registry, make("A"))
    registry.activate(confirm=None)
    publish(registry, make("B"))
    return make("A"), make("B")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_commands_publish_activate_roll_back_and_sweep(
    registry: Registry, make: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--registry", str(registry.root)]
    a, b = make("A"), make("B")
    assert main(["publish", str(a.path), "--force", *place]) == 0
    assert main(["activate", *place]) == 0
    assert main(["publish", str(b.path), "--force", *place]) == 0
    assert main(["activate", b.id[:12], "--force", *place]) == 0
    assert served(registry.read(), a, b) == "B1 A1"
    assert main(["roll-back", *place]) == 0
    assert main(["gc", "--keep", "1", *place]) == 0
    assert served(registry.read(), a, b) == "A1 B1"
    out = capsys.readouterr().out
    assert "publishing without the gate (--force)" in out
    assert "activating without asking replicas (--force)" in out
    assert "roll back to generation 3" in out
    assert "deleted 0 bundles" in out


def test_publish_asks_the_gate(registry: Registry, make: Made, capsys: pytest.CaptureFixture[str]) -> None:
    # The towers are no ONNX files: the gate is what says so.
    refused(capsys, "publish", str(make("A").path), "--registry", str(registry.root))
    assert not (registry.root / "registry.json").exists()


def test_the_registry_comes_from_the_environment(
    registry: Registry, make: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARQUEE_REGISTRY", str(registry.root))
    assert main(["publish", str(make("A").path), "--force"]) == 0
    assert registry.read().standby == make("A").id
    monkeypatch.delenv("MARQUEE_REGISTRY")
    monkeypatch.chdir(make.folder)
    assert refused(capsys, "list").startswith(".marquee/registry: there is no registry here")


@pytest.mark.usefixtures("two")
def test_an_active_bundle_is_not_replaced_without_asking(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    with unchanged(registry):
        error = refused(capsys, "activate", "--registry", str(registry.root))
    assert "--replica HOST:PORT" in error
    assert "--force" in error


def test_activate_asks_encoders_and_retrievers(
    registry: Registry, two: tuple[Bundle, Bundle], replicas: Replicas, capsys: pytest.CaptureFixture[str]
) -> None:
    active, standby = two
    order = ["activate", "--registry", str(registry.root), *replicas.flags]
    here, there = replicas.addresses
    replicas.encoder = state((active.space, types_pb2.BUNDLE_ROLE_ACTIVE))
    replicas.retriever = types_pb2.ReplicaState(reload_error="disk full")
    with unchanged(registry):
        error = refused(capsys, *order)
        assert f"{here} has loaded {active.space[:12]}; {there} has loaded nothing (disk full)" in error
        ready = state((active.space, types_pb2.BUNDLE_ROLE_ACTIVE), (standby.space, types_pb2.BUNDLE_ROLE_STANDBY))
        replicas.encoder = ready
        replicas.retriever = state((standby.space, types_pb2.BUNDLE_ROLE_RETIRING))
        error = refused(capsys, *order)
        assert here not in error
        assert there in error
    replicas.retriever = ready
    assert main(order) == 0
    assert registry.read().active == standby.id


def test_activate_names_replicas_that_do_not_answer(
    registry: Registry, two: tuple[Bundle, Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = Replicas()
    stopped.stop()
    with unchanged(registry):
        error = refused(capsys, "activate", two[1].id, "--registry", str(registry.root), *stopped.flags)
    for address in stopped.addresses:
        assert f"{address} does not answer (UNAVAILABLE" in error


def test_list_shows_the_pointer_and_every_bundle(
    registry: Registry, make: Made, two: tuple[Bundle, Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    active, standby = two
    unused = publish(registry, make("A", 2)) and active
    (registry.bundle_path(unused.id) / MANIFEST).write_text("{}")
    assert main(["list", "--registry", str(registry.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == [f"active   {make('A', 2).id}", f"standby  {standby.id}"]
    assert lines[3].startswith(f"{make('A', 2).id[:12]}  active   space {active.space[:12]}  pooled  toy (simulated)")
    assert lines[4].startswith(f"{standby.id[:12]}  standby")
    assert lines[5].startswith(f"{unused.id[:12]}  -        unreadable")


def test_list_json_holds_what_a_program_needs(
    registry: Registry, two: tuple[Bundle, Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--json", "--registry", str(registry.root)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["generation"], listed["active"], listed["standby"]) == (3, two[0].id, two[1].id)
    assert [change["generation"] for change in listed["history"]] == [1, 2, 3]
    assert listed["bundles"][0] == {
        "id": two[0].id,
        "role": "active",
        "space": two[0].space,
        "revision": two[0].manifest.revision,
        "tower": "pooled",
        "dataset": "toy",
        "simulated": True,
        "movies": 3,
        "bytes": sum((two[0].path / name).stat().st_size for name in FILES),
    }


def test_a_folder_that_cannot_be_written_is_one_sentence(
    make: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    error = refused(capsys, "gc", "--registry", str(tmp_path / "file"))
    assert str(tmp_path / "file") in error
    capsys.readouterr()
    assert main(["publish", str(make("A").path), "--force", "--registry", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "marquee.bundle", "list", "--registry", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{tmp_path}: there is no registry here")
