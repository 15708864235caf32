"""The SDK and the command line against real services that ask for TLS and a key."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from marquee import errors
from marquee.client import Recommender, Tls
from services.common.policy import Role
from tests.client.fakes import ROOT, Finished, cli_environment
from tests.client.live import Live, live_services
from tests.secured import certified, enroll


class Secured(NamedTuple):
    """Is the services with what it takes to call them."""

    live: Live
    ca: Path
    reader: str
    admin: str

    def client(self, api_key: str) -> Recommender:
        return Recommender(self.live.encoder, self.live.retriever, deadline_s=20, api_key=api_key, tls=Tls(self.ca))

    def cli(self, api_key: str, *arguments: str) -> Finished:
        environment = cli_environment(
            MARQUEE_ENCODER=self.live.encoder, MARQUEE_RETRIEVER=self.live.retriever, MARQUEE_API_KEY=api_key
        )
        command = [sys.executable, "-m", "clients.cli", *arguments, "--json"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    ca = trustme.CA()
    files = certified(folder, ca.issue_cert("127.0.0.1"))
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    callers = folder / "callers"
    callers.touch()
    reader = enroll(callers, "web", Role.READER)
    admin = enroll(callers, "ops", Role.READER, Role.RECORDER, Role.ADMIN)
    security = (f"--tls-cert={files.cert}", f"--tls-key={files.key}", "--auth=keys", f"--callers={callers}")
    with live_services(folder, everywhere=security) as live:
        yield Secured(live, folder / "ca.pem", reader, admin)


def test_a_key_opens_what_it_may(secured: Secured) -> None:
    with secured.client(secured.admin) as marquee:
        marquee.like("ada", 7)
        assert len(list(marquee.history("ada"))) == 1
    with secured.client(secured.reader) as marquee:
        assert 7 not in marquee.recommend("ada", k=60).movie_ids
        assert [one.error for one in marquee.batch(["ada", "bob"])] == [None, None]
        with pytest.raises(errors.PermissionDenied, match="web may not call"):
            marquee.like("ada", 7)


@pytest.mark.parametrize(("key", "sentence"), [("", "the call has no key"), ("web.wrong", "the key is not known here")])
def test_without_a_key_that_is_known_nothing_is_answered(secured: Secured, key: str, sentence: str) -> None:
    with secured.client(key) as marquee, pytest.raises(errors.Unauthenticated, match=sentence):
        marquee.recommend("ada")


def test_a_plain_call_says_what_is_missing(secured: Secured) -> None:
    with (
        Recommender(secured.live.encoder, secured.live.retriever, deadline_s=20) as marquee,
        pytest.raises(errors.Unavailable, match="hung up: if it speaks TLS, give tls"),
    ):
        marquee.recommend("ada", fallback=False)


def test_the_doctor_looks_at_certificates_and_keys(secured: Secured) -> None:
    done = secured.cli(secured.reader, "doctor", "--tls-ca", str(secured.ca))
    assert done.code == 0, done.out
    assert all(one["certificate_days"] > 300 for one in json.loads(done.out)["replicas"])
    done = secured.cli("", "doctor", "--tls-ca", str(secured.ca))
    assert done.code == 1
    assert "the call has no key" in json.loads(done.out)["findings"][0]["cure"]


def test_why_needs_no_more_than_reading(secured: Secured) -> None:
    with secured.client(secured.admin) as marquee:
        marquee.like("bea", 7)
    done = secured.cli(secured.reader, "why", "bea", "7", "--tls-ca", str(secured.ca))
    told = json.loads(done.out)
    assert (told["verdict"], told["seen"], told["events"]) == ("not shown: they have seen it", True, [])
