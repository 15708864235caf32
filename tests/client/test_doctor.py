"""The doctor and `why`, on real services, some of them broken on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clients.cli import certificates
from clients.cli.replicas import Replica, replicas, split
from marquee import errors
from marquee.bundle.registry import Registry
from marquee.client import ConfigError, Recommender, Tls
from marquee.v1 import types_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.client.fakes import ROOT, Finished, RunCli, Services, cli_environment, refusing
from tests.client.live import Live, live_services
from tests.rigs import publish, service_process

ADA = 'ada 🎬 "quoted"'


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "blocked.txt").write_text("4\n")
    with live_services(folder, f"--block-list={folder / 'blocked.txt'}") as services:
        with Recommender(services.encoder, services.retriever, deadline_s=20) as marquee:
            marquee.like(ADA, 7)
            marquee.rate(ADA, 10, 1.0)
        yield services


def run(live: Live, *arguments: str) -> Finished:
    environment = cli_environment(
        MARQUEE_ENCODER=f"{live.encoder},{live.second_encoder}", MARQUEE_RETRIEVER=live.retriever
    )
    command = [sys.executable, "-m", "clients.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)


def found(done: Finished) -> list[dict[str, Any]]:
    findings: list[dict[str, Any]] = json.loads(done.out)["findings"]
    return findings


class TestDoctor:
    def test_nothing_is_wrong(self, live: Live) -> None:
        done = run(live, "doctor", "--registry", str(live.registry))
        assert (done.code, done.err) == (0, "")
        assert done.out.rstrip().endswith("Nothing is wrong.")
        replicas = [line.split()[:2] for line in done.out.splitlines()[1:4]]
        assert replicas == [
            ["user_encoder", live.encoder],
            ["user_encoder", live.second_encoder],
            ["retriever", live.retriever],
        ]
        assert done.out.count(live.bundle.id[:12]) == 3

    def test_json_has_every_replica(self, live: Live) -> None:
        told = json.loads(run(live, "doctor", "--json").out)
        assert [one["service"] for one in told["replicas"]] == ["user_encoder", "user_encoder", "retriever"]
        assert all(abs(one["skew_s"]) < 5 for one in told["replicas"][:2])
        assert told["replicas"][0]["state"]["store"]["kind"] == "sqlite"

    def test_a_replica_that_is_away(self, live: Live) -> None:
        with refusing() as nobody:
            done = run(live, "doctor", "--json", "--retriever", f"{live.retriever},{nobody}")
        assert done.code == 1
        [away] = [one for one in found(done) if one["where"] == f"retriever {nobody}"]
        assert (away["grade"], away["what"]) == ("wrong", "it does not answer")
        assert "Start it with python -m services.retriever" in away["cure"]

    def test_a_space_that_a_retriever_lacks(self, live: Live, tmp_path: Path) -> None:
        with another_space(tmp_path) as retriever:
            done = run(live, "doctor", "--retriever", retriever)
        assert done.code == 1
        assert f"its active space {live.bundle.space[:12]} is not loaded by retriever {retriever}" in done.out
        assert "give both the same registry" in done.out

    def test_a_pointer_that_nobody_follows(self, live: Live, tmp_path: Path) -> None:
        registry = Registry(tmp_path / "registry")
        registry.publish(live.bundle.path, check=None)
        done = run(live, "doctor", "--json", "--registry", str(registry.root))
        assert done.code == 1
        assert "no bundle is active" in [one["what"] for one in found(done)]
        assert sum("the pointer is at 1" in one["what"] for one in found(done)) == 3

    def test_a_bundle_that_was_cut_off(self, live: Live, tmp_path: Path) -> None:
        registry = Registry(tmp_path / "registry")
        registry.publish(live.bundle.path, check=None)
        registry.activate(live.bundle.id, confirm=None)
        (registry.bundle_path(live.bundle.id) / "items.faiss").write_bytes(b"")
        done = run(live, "doctor", "--json", "--registry", str(registry.root))
        [cut] = [one for one in found(done) if one["where"].startswith("registry")]
        assert done.code == 1
        assert "items.faiss" in cut["what"]

    async def test_a_store_and_a_clock_that_are_wrong(self, cli: RunCli, services: Services) -> None:
        bundle = types_pb2.LoadedBundle(space="a" * 8, role=types_pb2.BUNDLE_ROLE_ACTIVE)
        state = types_pb2.ReplicaState(bundles=[bundle], reload_error="bundle b is cut off")
        store = user_encoder_pb2.StoreState(kind="redis", last_error="Connection refused")
        services.fake.then("GetModel", user_encoder_pb2.GetModelResponse(state=state, store=store))
        done = await cli("doctor", "--json")
        # The fake's clock stands in November 2023.
        told = {one["what"].partition(":")[0]: one["grade"] for one in found(done)}
        assert told["the newest bundle cannot be loaded"] == "wrong"
        assert told["the store (redis) cannot be reached"] == "wrong"
        assert any("behind this machine's" in what and grade == "wrong" for what, grade in told.items())
        assert done.code == 1

    async def test_a_key_that_is_missing(self, cli: RunCli, services: Services) -> None:
        services.fake.then("GetModel", errors.Unauthenticated("the call has no key; send one"))
        done = await cli("doctor", "--json")
        assert "the call has no key; send one" in [one["cure"] for one in found(done)]

    def test_a_name_that_nobody_has(self, live: Live) -> None:
        done = run(live, "doctor", "--encoder", "nobody.invalid:5")
        assert done.code == 2
        assert "there is no host 'nobody.invalid'" in done.err


@contextmanager
def another_space(folder: Path) -> Iterator[str]:
    """Starts a retriever on a bundle of another space; yields its address."""
    registry = publish(folder / "registry", make_bundle(folder / "bundle", seed=2)).root
    with service_process("retriever", folder, registry) as process:
        yield f"127.0.0.1:{process.port}"


class TestReplicas:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("127.0.0.1:5", [Replica("127.0.0.1:5", "")]),
            ("127.0.0.1:5,127.0.0.1:6", [Replica("127.0.0.1:5", ""), Replica("127.0.0.1:6", "")]),
            ("ipv4:127.0.0.1:5,127.0.0.1:6", [Replica("127.0.0.1:5", ""), Replica("127.0.0.1:6", "")]),
            ("localhost:5", [Replica("127.0.0.1:5", "localhost")]),
            ("dns:///localhost:5", [Replica("127.0.0.1:5", "localhost")]),
            ("[::1]:5", [Replica("[::1]:5", "")]),
            ("unix:/run/encoder", [Replica("unix:/run/encoder", "")]),
        ],
    )
    def test_an_address_stands_for_its_replicas(self, text: str, expected: list[Replica]) -> None:
        assert replicas(text) == expected

    @pytest.mark.parametrize("text", ["nowhere", "a b:5", "nobody.invalid:5", ""])
    def test_what_is_no_address(self, text: str) -> None:
        with pytest.raises(ConfigError):
            replicas(text)

    def test_several_are_a_list_to_the_sdk(self) -> None:
        assert split("127.0.0.1:5,127.0.0.1:6") == ["127.0.0.1:5", "127.0.0.1:6"]
        assert split("ipv4:127.0.0.1:5,127.0.0.1:6") == "ipv4:127.0.0.1:5,127.0.0.1:6"


class TestWhy:
    def why(self, live: Live, *arguments: str) -> dict[str, Any]:
        done = run(live, "why", *arguments, "--json")
        assert done.code == 0, done.err
        told: dict[str, Any] = json.loads(done.out)
        return told

    def test_a_film_that_was_seen(self, live: Live) -> None:
        told = self.why(live, ADA, "7")
        assert told["verdict"] == "not shown: they have seen it"
        assert [(event["movie_id"], event["kind"]) for event in told["events"]] == [(7, "liked")]
        assert told["rank"] is not None

    def test_a_film_that_is_blocked(self, live: Live) -> None:
        told = self.why(live, ADA, "4")
        assert (told["verdict"], told["blocked"], told["score"]) == ("not shown: the block list has it", True, None)

    def test_a_film_that_a_filter_drops(self, live: Live) -> None:
        with Recommender(live.encoder, live.retriever, deadline_s=20) as marquee:
            film = marquee.movie(13)
        told = self.why(live, ADA, "13", "--without-genre", film.genres[0], "--year", "1900-")
        assert told["verdict"] == "not shown: it does not pass without_genres"
        assert (told["dropped_by"], told["rank"]) == (["without_genres"], None)

    def test_where_a_film_stands_and_what_speaks_for_it(self, live: Live) -> None:
        with Recommender(live.encoder, live.retriever, deadline_s=20) as marquee:
            shown = marquee.recommend(ADA, k=60)
            first, last = shown.items[0], shown.items[-1]
        told = self.why(live, ADA, str(first.movie.movie_id))
        assert (told["verdict"], told["rank"]) == ("shown: number 1 of 10", 1)
        assert told["score"] == pytest.approx(first.score, abs=2e-6)
        assert {one["event"]["movie_id"] for one in told["contributions"]} == {7, 10}
        far = self.why(live, ADA, str(last.movie.movie_id), "-k", "5")
        assert far["rank"] == len(shown)
        assert far["verdict"] == f"not shown among 5: {len(shown) - 1} movies are nearer to them"

    def test_a_person_whom_nobody_knows(self, live: Live) -> None:
        told = self.why(live, "nobody", "7")
        assert (told["seen"], told["contributions"], told["source"]) == (False, [], "cold_start")

    def test_for_people_to_read(self, live: Live) -> None:
        done = run(live, "why", ADA, "13")
        assert f" for {ADA}: " in done.out.splitlines()[0]
        assert "known to the model  yes" in done.out
        assert "Effect" in done.out

    def test_a_film_that_nobody_has(self, live: Live) -> None:
        done = run(live, "why", ADA, "2")
        assert (done.code, done.out) == (1, "")
        assert "no loaded bundle has the movie 2" in done.err


def test_no_certificate_is_no_days() -> None:
    with refusing() as nobody:
        assert certificates.days_left(nobody, Tls()) is None
