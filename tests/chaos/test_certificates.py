"""Certificates that expire and are rotated, of the services and of the client, while the SDK calls over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from marquee.client import AsyncRecommender, Tls
from marquee.errors import Unavailable
from tests.bundles import make_bundle
from tests.chaos.damaged import PATIENT_S
from tests.chaos.load import RIGHT, Load, expect, loading, record_people
from tests.chaos.promises import Happened, promise
from tests.rigs import DEADLINE_S, Process, eventually, publish, service_process
from tests.secured import HOST, chain_of

MOVIES = 50
DAY = timedelta(days=1)
SOON = timedelta(seconds=4)
# Connections end every second: what a rotation breaks, shows.
CONNECTION_AGE_S = 1
RATE = 20


class Pair(NamedTuple):
    """Is where somebody's certificate and key are."""

    cert: Path
    key: Path

    def hold(self, issued: trustme.LeafCert) -> None:
        """Replaces both."""
        replace(self.cert, chain_of(issued))
        replace(self.key, issued.private_key_pem.bytes())


class Secured(NamedTuple):
    """Is both services under a load over TLS, the files of either side, and the authority that signs now."""

    ca: trustme.CA
    server: Pair
    client: Pair
    # Whom the client trusts, and whom the services do.
    trusted: Path
    admitted: Path
    processes: list[Process]
    load: Load

    def trust(self, *authorities: trustme.CA) -> None:
        """Makes these the authorities of both sides."""
        for path in (self.trusted, self.admitted):
            replace(path, b"".join(ca.cert_pem.bytes() for ca in authorities))

    async def serve(self, issued: trustme.LeafCert) -> None:
        """Gives the services a certificate, and waits until both serve it."""
        self.server.hold(issued)
        wanted = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
        for process in self.processes:
            await eventually(lambda process=process: served_at(process.port, wanted))  # type: ignore[misc]

    async def outlive_connections(self) -> None:
        """Waits until calls were answered for longer than any connection lives."""
        await self.load.until(RIGHT, times=2 * RATE * CONNECTION_AGE_S)


def replace(path: Path, data: bytes) -> None:
    """Replaces a file as a rotation does: in one step."""
    aside = path.with_suffix(".new")
    aside.write_bytes(data)
    os.replace(aside, path)


async def served_at(port: int, certificate: bytes) -> bool:
    """Says whether who connects now is shown a certificate, DER."""
    return await asyncio.to_thread(shown_at, port) == certificate


def shown_at(port: int) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((HOST, port)) as plain, context.wrap_socket(plain) as connection:
        return connection.getpeercert(binary_form=True)


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    ca, bundle = trustme.CA(), make_bundle(tmp_path / "bundle", movies=MOVIES)
    server, client = (Pair(tmp_path / f"{name}.pem", tmp_path / f"{name}.key") for name in ("server", "client"))
    trusted, admitted = tmp_path / "trusted.pem", tmp_path / "admitted.pem"
    server.hold(ca.issue_cert(HOST))
    client.hold(ca.issue_cert("web.internal"))
    for path in (trusted, admitted):
        replace(path, ca.cert_pem.bytes())
    flags = [f"--tls-cert={server.cert}", f"--tls-key={server.key}", f"--tls-client-ca={admitted}", "--drain-s=0"]
    flags += [f"--connection-age-s={CONNECTION_AGE_S}", f"--store={tmp_path / 'features.sqlite'}"]
    registry = publish(tmp_path / "registry", bundle).root
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(service_process("user_encoder", tmp_path, registry, *flags)),
            stack.enter_context(service_process("retriever", tmp_path, registry, *flags[:-1])),
        ]
        addresses = [f"{HOST}:{process.port}" for process in processes]
        tls = Tls(trusted, client.cert, client.key)
        async with AsyncRecommender(*addresses, deadline_s=PATIENT_S, tls=tls) as sdk:
            await record_people(sdk)
            async with loading(sdk, expect(bundle, MOVIES), rate=RATE) as load:
                yield Secured(ca, server, client, trusted, admitted, processes, load)


@promise(
    "certificates of the services and of the client, and the authorities that both trust, are replaced under load",
    "no call fails, with connections that end every second; what was replaced is no good any more",
)
async def test_a_rotation(secured: Secured, tmp_path: Path, happened: Happened) -> None:
    following = trustme.CA()
    await secured.serve(secured.ca.issue_cert(HOST))
    await secured.outlive_connections()
    secured.trust(secured.ca, following)
    await secured.outlive_connections()
    await secured.serve(following.issue_cert(HOST))
    secured.client.hold(following.issue_cert("web.internal"))
    await secured.outlive_connections()
    secured.trust(following)
    await secured.outlive_connections()
    await check_refused(secured, tmp_path / "old.pem")
    assert set(secured.load.count()) == {RIGHT}, secured.load.others()
    happened(f"2 certificates of the services, 1 of the client, 2 authorities; {secured.load.summary()}")


async def check_refused(secured: Secured, old: Path) -> None:
    """Checks that who trusts the old authority alone meets nobody."""
    old.write_bytes(secured.ca.cert_pem.bytes())
    addresses = [f"{HOST}:{process.port}" for process in secured.processes]
    tls = Tls(old, secured.client.cert, secured.client.key)
    async with AsyncRecommender(*addresses, deadline_s=DEADLINE_S, tls=tls) as sdk:
        with pytest.raises(Unavailable, match="is not signed by whom"):
            await sdk.encoder_state()


@promise(
    "the services are given a certificate that has expired; then the last good one expires as well",
    "the last good one is served as long as it is good, and no call fails; then calls fail and say why, until a good "
    "one is there, without a restart",
)
async def test_an_expiry(secured: Secured, happened: Happened) -> None:
    load, now = secured.load, datetime.now(UTC)
    expired = secured.ca.issue_cert(HOST, not_before=now - 2 * DAY, not_after=now - DAY)
    secured.server.hold(expired)
    await secured.outlive_connections()
    assert set(load.count()) == {RIGHT}, load.others()
    await secured.serve(secured.ca.issue_cert(HOST, not_after=datetime.now(UTC) + SOON))
    secured.server.hold(expired)
    await load.until("Unavailable", times=1)
    said = next(one.about for one in load.others() if one.said == "Unavailable")
    assert "has expired: replace it there" in said
    await secured.serve(secured.ca.issue_cert(HOST))
    back_s = await load.until(RIGHT)
    happened(f"right again {back_s:.1f} s after a good one; {load.summary()}")
    for process in secured.processes:
        code, log = await asyncio.to_thread(process.stop)
        assert (code, log.count("expired on")) == (0, 2), log
