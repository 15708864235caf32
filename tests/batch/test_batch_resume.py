"""However a run is ended, the same command goes on: nothing twice, nothing lost, and no two bundles in one folder."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from clients.batch import remote
from clients.batch.arguments import PEOPLE_PER_CALL
from clients.batch.lists import Wanted
from clients.batch.remote import Remote
from clients.cli.connection import Connection
from marquee.bundle.format import MOVIE_IDS
from marquee.errors import RegistryError
from marquee.v1 import types_pb2
from services.user_encoder.stores.sqlite import SqliteStore
from tests.batch.conftest import PEOPLE, Served, World
from tests.batch.rigs import AS_OF, batch, read_lists, start_batch, write_ratings
from tests.bundles import make_bundle
from tests.encoder_rigs import encoder_on
from tests.rigs import DEADLINE_S, publish, retriever

Capsys = pytest.CaptureFixture[str]


def in_process(world: World, out: Path, *flags: str) -> tuple[str, ...]:
    return (f"--out={out}", f"--bundle={world.bundle.path}", f"--events={world.events}", f"--as-of={AS_OF}", *flags)


def parts_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def kill_at(parts: int, folder: Path, *arguments: str) -> None:
    """Starts a run and kills it once so many parts are there."""
    process = start_batch(*arguments)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while len(parts_of(folder)) < parts:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no parts came"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def many(world: World, tmp_path: Path) -> World:
    """Has people enough that a run can be caught in the middle."""
    return world._replace(events=write_ratings(tmp_path / "many", 300, world.bundle.array(MOVIE_IDS).tolist()))


@pytest.fixture
def whole(many: World, tmp_path: Path, capsys: Capsys) -> pd.DataFrame:
    assert batch(capsys, *in_process(many, tmp_path / "whole")).code == 0
    return read_lists(tmp_path / "whole")


def test_kill_9_again_and_again_loses_nothing_and_doubles_nothing(
    many: World, whole: pd.DataFrame, tmp_path: Path, capsys: Capsys
) -> None:
    out = tmp_path / "out"
    unfinished = tmp_path / "out.unfinished"
    command = in_process(many, out, "--people-per-part=10")
    for parts in (1, 8, 20):
        kill_at(parts, unfinished, *command)
        assert not out.exists()
    before = {path.name: path.stat().st_ino for path in parts_of(unfinished)[:20]}
    ended = batch(capsys, *command)
    assert ended.code == 0, ended.said
    pd.testing.assert_frame_equal(read_lists(out), whole)
    # The last one may have been there without being noted.
    kept = [path.stat().st_ino == before[path.name] for path in parts_of(out)[:19]]
    assert all(kept), "parts that were there were made again"
    assert not unfinished.exists()
    assert not list(out.glob("*.writing"))


@pytest.mark.parametrize("torn", ["part", "manifest", "half a part", "before anything"])
def test_every_place_where_a_run_may_end_can_be_gone_on_from(
    many: World, whole: pd.DataFrame, tmp_path: Path, capsys: Capsys, torn: str
) -> None:
    out, unfinished = tmp_path / "out", tmp_path / "out.unfinished"
    command = in_process(many, out, "--people-per-part=80")
    assert batch(capsys, *command).code == 0
    out.rename(unfinished)
    manifest = json.loads((unfinished / "_manifest.json").read_text())
    match torn:
        case "part":  # the last part is there and not noted
            manifest["parts"].pop()
            (unfinished / "_manifest.json").write_text(json.dumps(manifest))
        case "manifest":  # everything is noted, and the folder was not renamed
            (unfinished / "_manifest.json.writing").write_text("{")
        case "half a part":
            manifest["parts"] = manifest["parts"][:2]
            (unfinished / "_manifest.json").write_text(json.dumps(manifest))
            (unfinished / "part-00002.parquet").unlink()
            (unfinished / "part-00003.parquet").unlink()
            (unfinished / "part-00002.parquet.writing").write_bytes(b"PAR1 and no more")
        case "before anything":
            for path in unfinished.iterdir():
                path.unlink()
    assert batch(capsys, *command).code == 0
    pd.testing.assert_frame_equal(read_lists(out), whole)
    assert not list(out.glob("*.writing"))


def test_ctrl_c_says_how_to_go_on(many: World, whole: pd.DataFrame, tmp_path: Path, capsys: Capsys) -> None:
    out = tmp_path / "out"
    command = in_process(many, out, "--people-per-part=10")
    process = start_batch(*command)
    while not parts_of(tmp_path / "out.unfinished"):
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert said == "python -m clients.batch: interrupted; the same command goes on where it was\n"
    assert batch(capsys, *command).code == 0
    pd.testing.assert_frame_equal(read_lists(out), whole)


def test_a_finished_run_is_left_as_it_is(many: World, tmp_path: Path, capsys: Capsys) -> None:
    command = in_process(many, tmp_path / "out")
    assert batch(capsys, *command).code == 0
    before = (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns
    again = batch(capsys, *command)
    assert (again.code, "is there already, with all lists" in again.said) == (0, True)
    assert (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns == before


def test_two_processes_do_not_make_the_same_lists(many: World, tmp_path: Path, capsys: Capsys) -> None:
    command = in_process(many, tmp_path / "out", "--people-per-part=10")
    process = start_batch(*command)
    try:
        while not parts_of(tmp_path / "out.unfinished"):
            assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGSTOP)
        ended = batch(capsys, *command)
    finally:
        process.kill()
        process.communicate()
    assert ended.code == 1
    assert "another process makes lists there" in ended.said


@pytest.mark.parametrize(
    ("flag", "named"), [("-k3", "k 10, and this is 3"), ("--genre=Drama", "filter"), ("--include-seen", "exclude_seen")]
)
def test_a_run_is_not_gone_on_with_as_another(
    many: World, tmp_path: Path, capsys: Capsys, flag: str, named: str
) -> None:
    out = tmp_path / "out"
    command = in_process(many, out, "--people-per-part=10")
    kill_at(1, tmp_path / "out.unfinished", *command)
    ended = batch(capsys, *command, flag)
    assert ended.code == 1
    assert named in ended.said
    assert "name another folder with --out" in ended.said


def test_events_that_have_changed_are_another_run(many: World, tmp_path: Path, capsys: Capsys) -> None:
    command = in_process(many, tmp_path / "out", "--people-per-part=10")
    kill_at(1, tmp_path / "out.unfinished", *command)
    with (many.events / "ratings.csv").open("a") as stream:
        stream.write(",".join(("1", "1", "4.5", "1500000000\n")))
    ended = batch(capsys, *command)
    assert ended.code == 1
    assert "was begun with source 'events " in ended.said


def test_other_users_are_another_run(many: World, tmp_path: Path, capsys: Capsys) -> None:
    users = tmp_path / "users"
    users.write_text("\n".join(str(number) for number in range(1, 300)))
    command = in_process(many, tmp_path / "out", "--people-per-part=10", f"--users={users}")
    kill_at(1, tmp_path / "out.unfinished", *command)
    users.write_text("1\n2\n")
    ended = batch(capsys, *command)
    assert ended.code == 1
    assert "was begun with users " in ended.said


def test_another_bundle_half_way_is_refused(many: World, tmp_path: Path, capsys: Capsys) -> None:
    command = in_process(many, tmp_path / "out", "--people-per-part=10")
    kill_at(1, tmp_path / "out.unfinished", *command)
    other = make_bundle(tmp_path / "other", movies=60, seed=2)
    ended = batch(capsys, *in_process(many._replace(bundle=other), tmp_path / "out", "--people-per-part=10"))
    assert ended.code == 1
    assert f"was begun with bundle {many.bundle.id[:12]}, and this is {other.id[:12]}" in ended.said


def test_of_a_registry_a_run_goes_on_with_the_bundle_that_it_was_begun_with(
    many: World, whole: pd.DataFrame, tmp_path: Path, capsys: Capsys
) -> None:
    out = tmp_path / "out"
    command = (
        f"--out={out}",
        f"--registry={many.registry}",
        f"--events={many.events}",
        f"--as-of={AS_OF}",
        "--people-per-part=10",
    )
    kill_at(1, tmp_path / "out.unfinished", *command)
    publish(many.registry, make_bundle(tmp_path / "other", movies=60, seed=2))
    assert batch(capsys, *command).code == 0
    pd.testing.assert_frame_equal(read_lists(out), whole)


async def test_services_that_have_another_bundle_half_way_are_refused(served: Served, tmp_path: Path) -> None:
    encoder, retriever = (address.partition("=")[2] for address in served.addresses)
    scoring = Remote(Connection(encoder, retriever, DEADLINE_S, "", None), calls=2)
    wanted = Wanted(5, types_pb2.MovieFilter(), True, 0)
    try:
        origin = await asyncio.to_thread(scoring.origin, "")
        people = await asyncio.to_thread(scoring.people)
        made = await asyncio.to_thread(scoring.recommend, people, wanted, origin, lambda _: None)
        assert len(made.user_ids) == len(people)
        # A revision of the same space takes the bundle's place, in the retriever first.
        publish(served.world.registry, make_bundle(tmp_path / "revision", movies=60, dropped=3), activate=False)
        await served.retriever.spaces.poll()
        with pytest.raises(RegistryError, match=r"the retriever answers from bundle .* not mixed"):
            await asyncio.to_thread(scoring.recommend, people, wanted, origin, lambda _: None)
        with pytest.raises(RegistryError, match="is not loaded by both services"):
            await asyncio.to_thread(scoring.origin, origin.bundle_id)
    finally:
        scoring.close()


def test_a_call_of_people_with_all_that_they_may_have_seen_fits_into_a_message() -> None:
    seen_bytes = 8 * 10_000
    assert PEOPLE_PER_CALL * seen_bytes < 32 << 20


async def test_a_service_that_has_too_many_calls_is_waited_for(
    world: World, store: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote, "PEOPLE_PER_CALL", 2)
    sleep = time.sleep

    def short_sleep(seconds: float) -> None:
        waits.append(seconds)
        sleep(min(seconds, 0.02))

    monkeypatch.setattr(time, "sleep", short_sleep)
    opened = SqliteStore(store, write_timeout_s=0.05)
    async with (
        encoder_on(opened, world.registry, batch_calls=1, waiting_calls=2) as users,
        retriever(world.registry) as movies,
    ):
        addresses = (f"--encoder=127.0.0.1:{users.port}", f"--retriever=127.0.0.1:{movies.life.port}")
        out = tmp_path / "out"
        ended = await asyncio.to_thread(batch, capsys, f"--out={out}", *addresses, "--calls=24", f"--as-of={AS_OF}")
    assert ended.code == 0, ended.said
    assert waits, "nobody had to wait"
    assert read_lists(out)["user_id"].nunique() == PEOPLE
