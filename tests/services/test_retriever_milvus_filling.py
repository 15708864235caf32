"""A bundle's collection: filled once, never half, whoever races and whatever is killed; dropped when nobody needs it.

Filled in three batches, by the code that ships, in a real Milvus Lite.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import trustme

from marquee.bundle.format import Bundle
from marquee.bundle.registry import Registry
from marquee.engine.kinds import EXACT, Spec
from marquee.errors import BundleError
from marquee.v1 import retriever_pb2, retriever_pb2_grpc
from services.common import spaces
from services.retriever import milvus_cleanup, milvus_filling
from services.retriever.__main__ import main
from services.retriever.milvus_filling import Filling, alias_of, aliases_of, fill_of
from tests.bundles import make_bundle
from tests.milvus_rigs import MilvusServer, needs_milvus
from tests.rigs import DEADLINE_S, ROOT, Rig, eventually, publish, retriever
from tests.secured import certified

if TYPE_CHECKING:
    from pymilvus import MilvusClient

pytestmark = needs_milvus

MOVIES, DIMENSION = 60, 8
BATCH = 4 * DIMENSION * 20


@pytest.fixture
def client(milvus_lite: MilvusServer) -> MilvusClient:
    """Connects to an empty Milvus."""
    client = milvus_lite.client()
    for name in client.list_collections():
        client.drop_collection(name)
    return client


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes fills of three batches, and whoever waits for one that stands still impatient."""
    monkeypatch.setattr(milvus_filling, "_BATCH", BATCH)
    monkeypatch.setattr(milvus_filling, "_STALLED_S", 0.5)
    monkeypatch.setattr(milvus_filling, "_LOOK_S", 0.02)


def filling(client: MilvusClient, number: int = 1, stopping: threading.Event | None = None) -> Filling:
    vectors_ND = np.random.default_rng(number).standard_normal((MOVIES, DIMENSION)).astype(np.float32)
    return Filling(client, bundle_id(number), Spec(EXACT, {}), vectors_ND, stopping or threading.Event())


def bundle_id(number: int) -> str:
    return f"{number:064x}"


def counted(client: MilvusClient) -> dict[str, int]:
    """Says how many movies each collection holds."""
    return {name: client.get_collection_stats(name)["row_count"] for name in client.list_collections()}


def pointed(client: MilvusClient, number: int = 1) -> str:
    alias = alias_of(bundle_id(number))
    (name,) = [name for name in client.list_collections() if alias in aliases_of(client, name)]
    return str(name)


def on_upsert(monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None]) -> None:
    """Calls `then` with the number of batches that were sent, after each."""
    from pymilvus import MilvusClient

    plain, lock, sent = MilvusClient.upsert, threading.Lock(), 0

    def upsert(*arguments: Any, **named: Any) -> Any:
        nonlocal sent
        done = plain(*arguments, **named)
        with lock:
            sent += 1
            now = sent
        then(now)
        return done

    monkeypatch.setattr(MilvusClient, "upsert", upsert)


def test_a_collection_is_filled_once(client: MilvusClient) -> None:
    filling(client).run()
    filling(client).run()
    assert counted(client) == {pointed(client): MOVIES}
    fill = fill_of(pointed(client))
    assert fill is not None
    assert fill.bundle_id == bundle_id(1)
    assert abs(fill.begun_ms / 1000 - time.time()) < DEADLINE_S
    (row,) = client.query(alias_of(bundle_id(1)), filter="", ids=[7], output_fields=["vector"])
    assert np.allclose(row["vector"], np.random.default_rng(1).standard_normal((MOVIES, DIMENSION))[7], atol=1e-6)


def test_an_index_that_nobody_builds_is_a_sentence_and_goes_on_later(
    client: MilvusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymilvus import MilvusClient

    # Milvus Lite builds an index at once; a cluster without index nodes answers so.
    with monkeypatch.context() as stuck:
        stuck.setattr(milvus_filling, "_INDEX_STALLED_S", 0.1)
        stuck.setattr(MilvusClient, "describe_index", lambda *_, **__: {"pending_index_rows": MOVIES})
        with pytest.raises(BundleError, match=rf"{MOVIES} movies have waited for their index for 0.1 s; see that"):
            filling(client).run()
    assert len(counted(client)) == 1
    filling(client).run()
    assert counted(client) == {pointed(client): MOVIES}


def test_each_bundle_has_its_own(client: MilvusClient) -> None:
    filling(client, 1).run()
    filling(client, 2).run()
    assert counted(client) == {pointed(client, 1): MOVIES, pointed(client, 2): MOVIES}


def test_of_two_that_fill_at_once_one_wins_and_one_cleans_up(
    client: MilvusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neither sees the other's collection before it makes its own.
    together = threading.Barrier(2, timeout=DEADLINE_S)
    create = Filling._create

    def created(self: Filling, name: str) -> None:
        together.wait()
        create(self, name)

    monkeypatch.setattr(Filling, "_create", created)
    with ThreadPoolExecutor(2) as threads:
        for thread in [threads.submit(filling(client).run) for _ in range(2)]:
            thread.result(DEADLINE_S)
    assert counted(client) == {pointed(client): MOVIES}


def test_who_comes_later_waits_for_who_fills(client: MilvusClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def hold(sent: int) -> None:
        begun.set()
        if sent == 2:
            assert goes_on.wait(DEADLINE_S)

    on_upsert(monkeypatch, hold)
    monkeypatch.setattr(milvus_filling, "_STALLED_S", DEADLINE_S)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(filling(client).run)
        assert begun.wait(DEADLINE_S)
        second = threads.submit(filling(client).run)
        assert not second.done()
        goes_on.set()
        first.result(DEADLINE_S)
        second.result(DEADLINE_S)
    assert counted(client) == {pointed(client): MOVIES}


def test_what_was_filled_and_not_finished_is_taken_over(client: MilvusClient) -> None:
    name = filling(client)._fill()
    filling(client).run()
    assert counted(client) == {name: MOVIES}
    assert pointed(client) == name


def test_what_lost_movies_is_filled_anew(client: MilvusClient) -> None:
    filling(client).run()
    lacking = pointed(client)
    client.delete(lacking, ids=[3])
    filling(client).run()
    assert pointed(client) != lacking
    (count,) = client.query(alias_of(bundle_id(1)), filter="", output_fields=["count(*)"], consistency_level="Strong")
    assert count["count(*)"] == MOVIES


def test_a_process_that_stops_leaves_nothing(client: MilvusClient, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()
    on_upsert(monkeypatch, lambda sent: stopping.set())
    with pytest.raises(BundleError, match="the process stops"):
        filling(client, stopping=stopping).run()
    assert counted(client) == {}


# A retriever whose fill stands still after the first batch.
HALFWAY = f"""
import sys, threading, pymilvus
from services.retriever import __main__, milvus_filling

plain = pymilvus.MilvusClient.upsert
def upsert(*arguments, **named):
    plain(*arguments, **named)
    print("halfway", flush=True)
    threading.Event().wait()
pymilvus.MilvusClient.upsert = upsert
milvus_filling._BATCH = {BATCH}
sys.exit(__main__.main(sys.argv[1:]))
"""


@contextlib.contextmanager
def filling_process(registry: Path, milvus_lite: MilvusServer) -> Iterator[subprocess.Popen[str]]:
    flags = ["--listen=127.0.0.1:0", f"--registry={registry}", f"--milvus-uri={milvus_lite.uri}"]
    command = [sys.executable, "-c", HALFWAY, *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def world(folder: Path, seed: int = 1) -> Bundle:
    return make_bundle(folder / f"bundle-{seed}", movies=MOVIES, dimension=DIMENSION, seed=seed)


async def found_in(rig: Rig, bundle: Bundle) -> str:
    """Searches for everything, and says what looked."""
    asked = retriever_pb2.SearchRequest(vector=np.ones(DIMENSION, "<f4").tobytes(), space=bundle.space, k=MOVIES)
    asked.options.debug = True
    answer = await rig.search.Search(asked, timeout=DEADLINE_S)
    assert len(answer.movie_ids) == MOVIES
    return answer.debug.path


async def test_a_retriever_killed_amid_its_fill_leaves_none_that_is_searched(
    tmp_path: Path, milvus_lite: MilvusServer, client: MilvusClient
) -> None:
    bundle = world(tmp_path)
    registry = publish(tmp_path / "registry", bundle).root
    with filling_process(registry, milvus_lite) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
    ((left_behind, rows),) = counted(client).items()
    assert 0 < rows < MOVIES
    assert aliases_of(client, left_behind) == []
    with milvus_lite.connection() as milvus:
        async with retriever(registry, milvus=milvus) as rig:
            assert await found_in(rig, bundle) == "milvus"
    whole = next(name for name in client.list_collections() if name != left_behind)
    assert (counted(client)[whole], aliases_of(client, whole)) == (MOVIES, [alias_of(bundle.id)])


async def test_a_milvus_killed_amid_a_fill_keeps_a_standby_from_being_listed(
    tmp_path: Path, milvus_lite: MilvusServer, client: MilvusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is back: then the bundle is tried again, and listed once its collection is whole."""
    active, standby = world(tmp_path, 1), world(tmp_path, 2)
    registry = publish(tmp_path / "registry", active)
    monkeypatch.setattr(spaces, "_RETRY_S", 0.0)
    with milvus_lite.connection() as milvus:
        async with retriever(registry.root, milvus=milvus) as rig:
            registry.publish(standby.path, check=None)
            on_upsert(monkeypatch, lambda sent: milvus_lite.signal(signal.SIGKILL))
            await rig.spaces.poll()
            assert await listed(rig) == [active.id]
            error = (await rig.search.GetIndex(retriever_pb2.GetIndexRequest())).state.reload_error
            assert (
                f"the collection of bundle {standby.id[:12]} cannot be filled: Milvus at {milvus_lite.uri}: " in error
            )
            assert await found_in(rig, active) == "exact"
            monkeypatch.undo()
            monkeypatch.setattr(spaces, "_RETRY_S", 0.0)
            monkeypatch.setattr(milvus_filling, "_STALLED_S", 0.5)
            milvus_lite.start()
            await eventually(partial(lists, rig, [active.id, standby.id]))
            assert await found_in(rig, standby) == "milvus"


async def lists(rig: Rig, bundles: list[str]) -> bool:
    await rig.spaces.poll()
    return await listed(rig) == bundles


async def listed(rig: Rig) -> list[str]:
    state = (await rig.search.GetIndex(retriever_pb2.GetIndexRequest())).state
    return [bundle.bundle_id for bundle in state.bundles]


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every fill be old enough to be dropped."""
    monkeypatch.setattr(milvus_cleanup, "YOUNG_S", -1.0)


def drop(registry: Path, milvus_lite: MilvusServer, *flags: str) -> int:
    return main([milvus_cleanup.NAME, f"--registry={registry}", f"--milvus-uri={milvus_lite.uri}", *flags])


async def dropped(registry: Path, milvus_lite: MilvusServer, *flags: str) -> int:
    """Runs the command beside the retriever that serves in this process."""
    return await asyncio.to_thread(partial(drop, registry, milvus_lite, *flags))


@pytest.mark.usefixtures("old")
async def test_collections_of_bundles_that_nobody_needs_are_dropped(
    tmp_path: Path, milvus_lite: MilvusServer, client: MilvusClient, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = world(tmp_path)
    registry = publish(tmp_path / "registry", bundle).root
    client.create_collection("somebody_elses", dimension=4)
    gone = pointed_after(client, 7)
    unfinished = filling(client, 8)._fill()
    with milvus_lite.connection() as milvus:
        async with retriever(registry, milvus=milvus) as rig:
            replica = f"--replica=127.0.0.1:{rig.life.port}"
            left = set(client.list_collections()) - {gone, unfinished}
            assert await dropped(registry, milvus_lite, replica, "--dry-run") == 0
            assert capsys.readouterr().out == f"would drop 2 collections\n{gone}\n{unfinished}\n"
            assert await dropped(registry, milvus_lite, replica) == 0
            assert capsys.readouterr().out == f"dropped 2 collections\n{gone}\n{unfinished}\n"
            assert set(client.list_collections()) == left
            assert await found_in(rig, bundle) == "milvus"
            assert await dropped(registry, milvus_lite, replica) == 0
            assert capsys.readouterr().out == "dropped 0 collections\n"


def pointed_after(client: MilvusClient, number: int) -> str:
    filling(client, number).run()
    return pointed(client, number)


@pytest.mark.usefixtures("old")
async def test_what_another_replica_still_serves_is_kept(
    tmp_path: Path, milvus_lite: MilvusServer, client: MilvusClient
) -> None:
    """Its registry is behind: the one that the command reads has never heard of the bundle."""
    served, other = world(tmp_path, 1), world(tmp_path, 2)
    behind, ahead = publish(tmp_path / "behind", served).root, publish(tmp_path / "ahead", other).root
    with milvus_lite.connection() as milvus:
        async with retriever(behind, milvus=milvus) as rig:
            assert await dropped(ahead, milvus_lite, f"--replica=127.0.0.1:{rig.life.port}") == 0
            assert await found_in(rig, served) == "milvus"
        assert len(client.list_collections()) == 1
        async with retriever(ahead, milvus=milvus) as rig:
            assert await dropped(ahead, milvus_lite, f"--replica=127.0.0.1:{rig.life.port}") == 0
            assert await found_in(rig, other) == "milvus"
    assert [fill.bundle_id for name in client.list_collections() if (fill := fill_of(name))] == [other.id]


async def test_what_may_still_be_filled_is_kept(
    tmp_path: Path, milvus_lite: MilvusServer, client: MilvusClient, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = publish(tmp_path / "registry", world(tmp_path)).root
    name = filling(client, 7)._fill()
    with milvus_lite.connection() as milvus:
        async with retriever(registry, milvus=milvus) as rig:
            assert await dropped(registry, milvus_lite, f"--replica=127.0.0.1:{rig.life.port}") == 0
    assert capsys.readouterr().out == "dropped 0 collections\n"
    assert name in client.list_collections()


@pytest.mark.usefixtures("old")
def test_bundles_that_a_roll_back_may_bring_back_keep_theirs(
    tmp_path: Path, milvus_lite: MilvusServer, client: MilvusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = [world(tmp_path, seed) for seed in (1, 2, 3)]
    registry = Registry(tmp_path / "registry")
    for bundle in bundles:
        publish(registry.root, bundle)
        Filling(client, bundle.id, Spec(EXACT, {}), np.eye(8, dtype=np.float32), threading.Event()).run()
    monkeypatch.setattr(milvus_cleanup, "_loaded_by", lambda replica, options: set())

    def left() -> list[str]:
        return [fill.bundle_id for name in client.list_collections() if (fill := fill_of(name))]

    assert drop(registry.root, milvus_lite, "--replica=127.0.0.1:1", "--keep=6") == 0
    assert sorted(left()) == sorted(bundle.id for bundle in bundles)
    assert drop(registry.root, milvus_lite, "--replica=127.0.0.1:1", "--keep=0") == 0
    # Active and standby.
    assert sorted(left()) == sorted(bundle.id for bundle in bundles[1:])


class _OneBundle(retriever_pb2_grpc.RetrieverServiceServicer):
    """Has a bundle loaded, and says so to who has the key."""

    def GetIndex(  # noqa: N802
        self, request: retriever_pb2.GetIndexRequest, context: grpc.ServicerContext
    ) -> retriever_pb2.GetIndexResponse:
        if ("authorization", "Bearer hunter2") not in [tuple(pair) for pair in context.invocation_metadata()]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "send a key")
        answer = retriever_pb2.GetIndexResponse()
        answer.state.bundles.add(bundle_id=bundle_id(7))
        return answer


@pytest.mark.usefixtures("old")
def test_replicas_are_asked_over_tls_and_with_the_key(
    tmp_path: Path, milvus_lite: MilvusServer, client: MilvusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = certified(tmp_path, ca.issue_cert("localhost"))
    kept, gone = pointed_after(client, 7), pointed_after(client, 8)
    server = grpc.server(ThreadPoolExecutor(1))
    retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(_OneBundle(), server)  # type: ignore[abstract]
    pair = (files.key.read_bytes(), files.cert.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    replica = [f"--replica=127.0.0.1:{port}", f"--tls-ca={tmp_path / 'ca.pem'}", "--tls-name=localhost"]
    try:
        assert main([milvus_cleanup.NAME, f"--milvus-uri={milvus_lite.uri}", *replica]) == 1
        assert set(client.list_collections()) == {kept, gone}
        monkeypatch.setenv("MARQUEE_API_KEY", "hunter2")
        # Without a registry, what is loaded is all that counts.
        assert main([milvus_cleanup.NAME, f"--milvus-uri={milvus_lite.uri}", *replica]) == 0
    finally:
        server.stop(0).wait()
    assert client.list_collections() == [kept]


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        ([], 2, "--replica: name every retriever that uses this Milvus"),
        (["--replica=127.0.0.1:1"], 1, "nothing was dropped: 127.0.0.1:1 does not say what it has loaded (UNAVAILABLE"),
        (["--replica=nowhere"], 2, "--replica: 'nowhere' is no address"),
        (["--replica=127.0.0.1:1", "--milvus-uri="], 2, "--milvus-uri: is not set; name the Milvus"),
    ],
)
def test_nothing_is_dropped_where_something_is_unknown(
    tmp_path: Path,
    milvus_lite: MilvusServer,
    client: MilvusClient,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    code: int,
    text: str,
) -> None:
    registry = publish(tmp_path / "registry", world(tmp_path)).root
    name = pointed_after(client, 7)
    assert drop(registry, milvus_lite, *flags) == code
    assert text in capsys.readouterr().err
    assert client.list_collections() == [name]


def test_a_milvus_that_is_away_is_told(
    tmp_path: Path, milvus_lite: MilvusServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = publish(tmp_path / "registry", world(tmp_path)).root
    monkeypatch.setattr(milvus_cleanup, "_loaded_by", lambda replica, options: set())
    assert drop(registry, milvus_lite, "--replica=127.0.0.1:1", "--milvus-uri=http://127.0.0.1:1") == 1
    error = capsys.readouterr().err
    assert "Milvus at http://127.0.0.1:1: Fail connecting to server" in error
    assert "run this again: that is safe" in error
