"""TLS: what is no good is not served, what was served stays, and what is renewed counts from the next connection on."""

from __future__ import annotations

import asyncio
import base64
import datetime
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc.aio
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from marquee.errors import ConfigError
from services.common.server import Life
from services.common.settings import CommonSettings
from services.common.tls import Certificates
from tests.chain_rigs import read_metrics
from tests.rigs import eventually, run_retriever
from tests.secured import HOST, Files, answers, certified, connect, is_answered, serving, trusting

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def another_ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, ca: trustme.CA) -> Files:
    return certified(tmp_path, ca.issue_cert(HOST))


def expired(files: Files, ca: trustme.CA) -> None:
    files.hold(ca.issue_cert(HOST, not_before=NOW - 2 * DAY, not_after=NOW - DAY))


def of_tomorrow(files: Files, ca: trustme.CA) -> None:
    files.hold(ca.issue_cert(HOST, not_before=NOW + DAY, not_after=NOW + 2 * DAY))


def of_another_key(files: Files, ca: trustme.CA) -> None:
    files.key.write_bytes(ca.issue_cert(HOST).private_key_pem.bytes())


def with_a_password(files: Files, ca: trustme.CA) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    locked = BestAvailableEncryption(b"secret")
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))


def cut_off(files: Files, ca: trustme.CA) -> None:
    files.cert.write_bytes(files.cert.read_bytes()[:200])


def of_an_unknown_curve(files: Files, ca: trustme.CA) -> None:
    der = x509.load_pem_x509_certificate(files.cert.read_bytes()).public_bytes(Encoding.DER)
    p256, unknown = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    assert der.count(p256) == 1
    text = base64.encodebytes(der.replace(p256, unknown)).decode()
    files.cert.write_text(f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n")


def key_gone(files: Files, ca: trustme.CA) -> None:
    files.key.unlink()


BAD = pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (expired, r"server\.pem: expired on .* UTC; renew it"),
        (of_tomorrow, r"server\.pem: is valid from .* UTC on; look at this machine's clock"),
        (of_another_key, r"server\.key: is not the key of the first certificate in .*server\.pem"),
        (with_a_password, r"server\.key: has no key that can be read; write it as PEM, without a password"),
        (cut_off, r"server\.pem: has no certificates that can be read; write them as PEM"),
        (of_an_unknown_curve, r"server\.pem: its key is of a kind that is not known here; use RSA or a named curve"),
        (key_gone, r"server\.key: cannot be read \(No such file .*\); put the file back, or .* --tls-key"),
    ],
)
Spoil = Callable[[Files, trustme.CA], None]


@BAD
def test_what_is_no_good_is_not_served(files: Files, ca: trustme.CA, spoil: Spoil, told: str) -> None:
    spoil(files, ca)
    with pytest.raises(ConfigError, match=told) as refused:
        Certificates(*files)
    assert "PRIVATE" not in refused.value.message


@BAD
async def test_a_bad_renewal_keeps_the_last_good_one_and_is_logged_once(
    files: Files, ca: trustme.CA, spoil: Spoil, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "services.common.watched")
    good, before = [path.read_bytes() for path in files], Certificates(*files).expires_at
    async with serving(tls_cert=files.cert, tls_key=files.key) as port:
        spoil(files, ca)
        await eventually(lambda: "ERROR" in levels(caplog))
        assert await answers(port, trusting(ca))
        for path, text in zip(files, good, strict=True):
            path.write_bytes(text)
        await eventually(lambda: levels(caplog)[-1] == "INFO")
    [error] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert re.search(f"{told}.*; until then it serves a certificate that expires on ", error)
    assert Certificates(*files).expires_at == before


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Lists the levels of what the files' followers logged."""
    return [record.levelname for record in caplog.records if record.name == "services.common.watched"]


def test_a_service_does_not_start_with_a_bad_certificate(files: Files, ca: trustme.CA, tmp_path: Path) -> None:
    expired(files, ca)
    done = run_retriever(f"--registry={tmp_path}", f"--tls-cert={files.cert}", f"--tls-key={files.key}")
    assert done.returncode == 2
    assert f"{files.cert}: expired on " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_expiry_is_that_of_the_certificate(files: Files, ca: trustme.CA) -> None:
    files.hold(ca.issue_cert(HOST, not_after=NOW + 30 * DAY))
    assert Certificates(*files).expires_at == pytest.approx((NOW + 30 * DAY).timestamp(), abs=1)


async def test_the_expiry_is_a_metric_that_follows_the_file(files: Files, ca: trustme.CA) -> None:
    name = "marquee_service_certificate_expires_timestamp_seconds"
    told = CommonSettings(listen=f"{HOST}:0", metrics_port=0, tls_cert=files.cert, tls_key=files.key)
    async with Life(told, ["marquee.v1.TestService"]) as life:

        async def told_expiry() -> float:
            lines = (await asyncio.to_thread(read_metrics, life.metrics_port)).splitlines()
            return next(float(line.split()[1]) for line in lines if line.startswith(name))

        running = asyncio.ensure_future(life.run())
        assert await told_expiry() == Certificates(*files).expires_at
        files.hold(ca.issue_cert(HOST, not_after=NOW + 30 * DAY))
        renewed = Certificates(*files).expires_at

        async def is_renewed() -> bool:
            return await told_expiry() == renewed

        await eventually(is_renewed)
        life.stop()
        await running


async def test_who_speaks_no_tls_or_trusts_another_authority_is_not_answered(
    files: Files, ca: trustme.CA, another_ca: trustme.CA
) -> None:
    async with serving(tls_cert=files.cert, tls_key=files.key) as port:
        assert await answers(port, trusting(ca))
        assert not await answers(port, trusting(another_ca))
        async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
            assert not await is_answered(channel)


async def test_a_renewed_certificate_is_served_to_the_next_connection_and_the_open_ones_go_on(
    files: Files, ca: trustme.CA, another_ca: trustme.CA
) -> None:
    async with serving(tls_cert=files.cert, tls_key=files.key) as port, connect(port, trusting(ca)) as earlier:
        assert await is_answered(earlier)
        assert not await answers(port, trusting(another_ca))
        files.hold(another_ca.issue_cert(HOST))
        await eventually(partial(answers, port, trusting(another_ca)))
        assert not await answers(port, trusting(ca))
        assert await is_answered(earlier)


async def test_no_call_fails_while_the_certificate_changes_again_and_again(files: Files, ca: trustme.CA) -> None:
    """Whoever connects meets the old certificate or the new one, never half of one."""
    async with serving(tls_cert=files.cert, tls_key=files.key) as port:
        for _ in range(4):
            files.hold(ca.issue_cert(HOST))
            for _ in range(10):
                assert all(await asyncio.gather(*(answers(port, trusting(ca)) for _ in range(4))))


async def test_with_an_authority_for_clients_only_who_has_its_certificate_connects(
    files: Files, ca: trustme.CA, another_ca: trustme.CA, tmp_path: Path
) -> None:
    authority = tmp_path / "clients.pem"
    authority.write_bytes(ca.cert_pem.bytes())
    async with serving(tls_cert=files.cert, tls_key=files.key, tls_client_ca=authority) as port:
        ours, theirs = ca.issue_cert("web.internal"), another_ca.issue_cert("web.internal")
        assert await answers(port, trusting(ca, ours))
        assert not await answers(port, trusting(ca))
        assert not await answers(port, trusting(ca, theirs))
        authority.write_bytes(another_ca.cert_pem.bytes())
        await eventually(partial(answers, port, trusting(ca, theirs)))
        assert not await answers(port, trusting(ca, ours))


def test_an_authority_for_clients_that_is_none_is_told(files: Files, tmp_path: Path) -> None:
    authority = tmp_path / "clients.pem"
    authority.write_text("nobody")
    with pytest.raises(ConfigError, match=r"clients\.pem: has no certificates that can be read"):
        Certificates(*files, authority)
