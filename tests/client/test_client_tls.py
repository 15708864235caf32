"""Encrypted connections, what is said of those that fail, and files that change."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
import trustme

from clients.cli.certificates import days_left
from marquee import errors
from marquee.client import ConfigError, Recommender, Tls
from marquee.client.tls import Credentials
from tests.client.fakes import Ask, Fake, MakeClient, Services, encoder_on, hanging, retriever_on, serving

ANYWHERE = "127.0.0.1:50052"


class Authority(NamedTuple):
    """Signs certificates and writes them as files."""

    ca: trustme.CA
    folder: Path

    @property
    def pem(self) -> Path:
        """Is the file of the authority's own certificate."""
        return self.written("ca.pem", self.ca.cert_pem)

    def pair(self, name: str) -> tuple[Path, Path]:
        """Writes a certificate and its key."""
        issued = self.ca.issue_cert(name)
        return (
            self.written(f"{name}.pem", issued.cert_chain_pems[0]),
            self.written(f"{name}.key", issued.private_key_pem),
        )

    def server(
        self, name: str = "127.0.0.1", client_ca: bytes | None = None, until: datetime | None = None
    ) -> grpc.ServerCredentials:
        """Makes a server's credentials; with `client_ca` it wants a certificate of the client."""
        issued = self.ca.issue_cert(name, not_after=until)
        pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
        return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)

    def written(self, name: str, blob: trustme.Blob) -> Path:
        """Writes a file as a rotation does: in one step."""
        self.folder.mkdir(exist_ok=True)
        blob.write_to_path(str(self.folder / "new"))
        os.replace(self.folder / "new", self.folder / name)
        return self.folder / name


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(trustme.CA(), tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(trustme.CA(), tmp_path / "theirs")


def searching(make_client: MakeClient, address: str, tls: Tls | None) -> Ask:
    return make_client(ANYWHERE, address, tls=tls)


class TestConnections:
    async def test_an_encrypted_call(self, make_client: MakeClient, ours: Authority) -> None:
        fake = Fake()
        async with serving(lambda server: retriever_on(server, fake), credentials=ours.server()) as address:
            assert len(await searching(make_client, address, Tls(ours.pem))("search", "toy")) == 1

    async def test_a_certificate_of_the_client(self, make_client: MakeClient, ours: Authority) -> None:
        cert, key = ours.pair("client.example")
        credentials = ours.server(client_ca=ours.ca.cert_pem.bytes())
        async with serving(lambda server: retriever_on(server, Fake()), credentials=credentials) as address:
            client = searching(make_client, address, Tls(ours.pem, cert, key))
            assert len(await client("search", "toy")) == 1
            with pytest.raises(errors.Unavailable, match=r"if it wants a certificate of the client, give tls\.cert"):
                await searching(make_client, address, Tls(ours.pem))("search", "toy")

    async def test_a_certificate_for_another_name(self, make_client: MakeClient, ours: Authority) -> None:
        credentials = ours.server("retriever.example")
        async with serving(lambda server: retriever_on(server, Fake()), credentials=credentials) as address:
            with pytest.raises(errors.Unavailable, match=r"is for another name: .* or tls\.server_name"):
                await searching(make_client, address, Tls(ours.pem))("search", "toy")
            named = Tls(ours.pem, server_name="retriever.example")
            assert len(await searching(make_client, address, named)("search", "toy")) == 1

    async def test_a_signer_who_is_not_trusted(
        self, make_client: MakeClient, ours: Authority, theirs: Authority
    ) -> None:
        async with serving(lambda server: retriever_on(server, Fake()), credentials=theirs.server()) as address:
            expected = rf"the certificate of the retriever at {address} is not signed by whom .* as tls\.ca"
            with pytest.raises(errors.Unavailable, match=expected):
                await searching(make_client, address, Tls(ours.pem))("search", "toy")

    async def test_a_certificate_that_has_expired(self, make_client: MakeClient, ours: Authority) -> None:
        credentials = ours.server(until=datetime.now(UTC) - timedelta(days=1))
        async with serving(lambda server: retriever_on(server, Fake()), credentials=credentials) as address:
            with pytest.raises(errors.Unavailable, match=rf"retriever at {address} has expired: replace it there"):
                await searching(make_client, address, Tls(ours.pem))("search", "toy")

    async def test_a_plain_call_to_an_encrypted_port(self, make_client: MakeClient, ours: Authority) -> None:
        async with serving(lambda server: retriever_on(server, Fake()), credentials=ours.server()) as address:
            expected = rf"the retriever at {address} hung up: if it speaks TLS, give tls"
            with pytest.raises(errors.Unavailable, match=expected):
                await searching(make_client, address, None)("search", "toy")

    async def test_an_encrypted_call_to_a_plain_port(
        self, make_client: MakeClient, services: Services, ours: Authority
    ) -> None:
        expected = rf"what answers at {services.retriever} does not speak TLS: leave tls away"
        with pytest.raises(errors.Unavailable, match=expected):
            await searching(make_client, services.retriever, Tls(ours.pem))("search", "toy")


class TestRotation:
    async def test_a_new_signer_is_trusted_without_a_restart(
        self, make_client: MakeClient, ours: Authority, theirs: Authority
    ) -> None:
        fake = Fake()
        add = lambda server: retriever_on(server, fake)  # noqa: E731
        ca = ours.pem
        async with serving(add, credentials=ours.server()) as address:
            client = searching(make_client, address, Tls(ca))
            await client("search", "toy")
        async with serving(add, credentials=theirs.server(), port=int(address.rpartition(":")[2])):
            with pytest.raises(errors.Unavailable):
                await client("search", "toy", deadline_s=5.0)
            ours.written("ca.pem", theirs.ca.cert_pem)
            # The handshake fails once more, which is when the client looks at its files.
            assert len(await client("search", "toy")) == 1

    async def test_a_clients_new_certificate_is_used(self, make_client: MakeClient, ours: Authority) -> None:
        cert, key = ours.pair("client.example")
        who: list[str] = []

        async def note(request: object, context: grpc.aio.ServicerContext[object, object]) -> object:
            who.append(str(context.auth_context().get("x509_subject_alternative_name")))
            raise errors.MarqueeError("noted")

        fake = Fake()
        fake.then("SearchMovies", note, note)
        credentials = ours.server(client_ca=ours.ca.cert_pem.bytes())
        async with serving(lambda server: retriever_on(server, fake), credentials=credentials) as address:
            client = searching(make_client, address, Tls(ours.pem, cert, key))
            with pytest.raises(errors.MarqueeError):
                await client("search", "toy")
            issued = ours.ca.issue_cert("newer.example")
            ours.written("client.example.key", issued.private_key_pem)
            ours.written("client.example.pem", issued.cert_chain_pems[0])
            async with asyncio.timeout(30):
                while "newer" not in who[-1]:
                    fake.then("SearchMovies", note)
                    with pytest.raises(errors.MarqueeError):
                        await client("search", "toy")
        assert "client.example" in who[0]

    async def test_what_follows_in_a_method_goes_over_the_new_connections(
        self, make_client: MakeClient, ours: Authority, theirs: Authority
    ) -> None:
        fake, credentials = Fake(), theirs.server()
        async with (
            serving(lambda server: encoder_on(server, fake), credentials=credentials) as encoder,
            serving(lambda server: retriever_on(server, fake), credentials=credentials) as retriever,
        ):
            client = make_client(encoder, retriever, tls=Tls(ours.pem))
            ours.written("ca.pem", theirs.ca.cert_pem)
            # Encode is where it notices; Search is the first call to the retriever.
            assert len(await client("recommend", "42", k=2, fallback=False)) == 2

    async def test_all_who_call_at_the_same_time_are_answered(
        self, make_client: MakeClient, ours: Authority, theirs: Authority
    ) -> None:
        async with serving(lambda server: retriever_on(server, Fake()), credentials=theirs.server()) as address:
            client = searching(make_client, address, Tls(ours.pem))
            ours.written("ca.pem", theirs.ca.cert_pem)
            found = await asyncio.gather(*(client("search", "toy") for _ in range(8)))
        assert [len(one) for one in found] == [1] * 8

    async def test_a_call_that_outlives_the_old_connections_is_made_again(
        self, make_client: MakeClient, ours: Authority, theirs: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("marquee.client.channels._RETIRE_S", 0.0)
        monkeypatch.setattr("marquee.client.channels._LOOK_EVERY_S", 0.0)
        fake = Fake()
        hang, started = hanging()
        fake.then("SearchMovies", hang)
        async with serving(lambda server: retriever_on(server, fake), credentials=ours.server()) as address:
            client = searching(make_client, address, Tls(ours.pem))
            asking = asyncio.ensure_future(client("search", "toy"))
            await started.wait()
            both = ours.folder / "both.pem"
            both.write_bytes(ours.ca.cert_pem.bytes() + theirs.ca.cert_pem.bytes())
            os.replace(both, ours.folder / "ca.pem")
            for _ in range(2):
                assert len(await client("search", "toy")) == 1
            assert len(await asking) == 1


async def test_the_doctor_reads_when_a_certificate_ends(ours: Authority) -> None:
    soon = datetime.now(UTC) + timedelta(days=3, hours=1)
    async with serving(credentials=ours.server(until=soon)) as address:
        left = await asyncio.to_thread(days_left, address, Tls(ours.pem))
    assert left is not None
    assert 3 < left < 3.1


def test_files_that_cannot_be_used_keep_the_last_good_ones(ours: Authority, theirs: Authority) -> None:
    cert, key = ours.pair("client.example")
    credentials = Credentials(Tls(ours.pem, cert, key))
    assert not credentials.renew()
    # The certificate is there and its key is not yet.
    issued = ours.ca.issue_cert("client.example")
    ours.written("client.example.pem", issued.cert_chain_pems[0])
    assert not credentials.renew()
    ours.written("client.example.key", issued.private_key_pem)
    assert credentials.renew()
    assert not credentials.renew()
    cert.unlink()
    assert not credentials.renew()


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("field", "sentence"),
        [
            ("ca", r"tls\.ca .* cannot be read \(no such file or directory\); give a file in PEM"),
            ("cert", r"tls has a cert and no key; give both, or neither"),
            ("key", r"tls has a key and no cert; give both, or neither"),
        ],
    )
    def test_a_file_that_is_missing(self, tmp_path: Path, field: str, sentence: str) -> None:
        with pytest.raises(ConfigError, match=sentence):
            Recommender(ANYWHERE, ANYWHERE, tls=Tls(**{field: tmp_path / "none.pem"}))  # type: ignore[arg-type]

    def test_what_is_no_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("hello")
        with pytest.raises(ConfigError, match=r"tls\.ca .* holds no certificate in PEM"):
            Recommender(ANYWHERE, ANYWHERE, tls=Tls(tmp_path / "ca.pem"))

    def test_a_key_of_another_certificate(self, ours: Authority) -> None:
        cert, _ = ours.pair("one.example")
        _, key = ours.pair("other.example")
        with pytest.raises(ConfigError, match="are no pair in PEM"):
            Recommender(ANYWHERE, ANYWHERE, tls=Tls(ours.pem, cert, key))

    @pytest.mark.parametrize("key", ["a b", "clé", "a\n"])
    def test_a_key_that_is_none_is_not_repeated(self, key: str) -> None:
        with pytest.raises(ConfigError, match="api_key has a character that no key has") as caught:
            Recommender(ANYWHERE, ANYWHERE, api_key=key)
        assert key not in caught.value.message
