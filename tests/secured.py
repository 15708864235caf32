"""Certificates, keys and callers for tests, and servers that ask for them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from marquee.client import Tls
from marquee.errors import MarqueeError
from services.common.callers import line_for, new_key
from services.common.policy import Role
from services.common.server import Life
from services.common.settings import CommonSettings
from tests.encoder_rigs import refused
from tests.rigs import service_process

HOST = "127.0.0.1"
SERVICE = "marquee.v1.TestService"


class Files(NamedTuple):
    """Are a server's certificate and key."""

    cert: Path
    key: Path

    def hold(self, issued: trustme.LeafCert) -> None:
        """Writes a certificate with its key."""
        self.cert.write_bytes(chain_of(issued))
        self.key.write_bytes(issued.private_key_pem.bytes())


def chain_of(issued: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in issued.cert_chain_pems)


def certified(folder: Path, issued: trustme.LeafCert) -> Files:
    """Writes a server's certificate and key to a folder."""
    files = Files(folder / "server.pem", folder / "server.key")
    files.hold(issued)
    return files


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[int]:
    """Serves the health alone, on a free port, which it yields."""
    told = CommonSettings(listen=f"{HOST}:0", drain_s=0.0, grace_s=1.0, **settings)
    async with Life(told, [SERVICE]) as life:
        running = asyncio.ensure_future(life.run())
        yield life.port
        life.stop()
        await running


def trusting(ca: trustme.CA, mine: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    """Makes the credentials of a client that trusts an authority, and may show a certificate."""
    key, chain = (mine.private_key_pem.bytes(), chain_of(mine)) if mine else (None, None)
    return grpc.ssl_channel_credentials(ca.cert_pem.bytes(), key, chain)


def connect(port: int, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    """Connects anew: no connection of an earlier channel is used again."""
    return grpc.aio.secure_channel(f"{HOST}:{port}", credentials, [("grpc.use_local_subchannel_pool", 1)])


async def answers(port: int, credentials: grpc.ChannelCredentials) -> bool:
    """Says whether a new connection of a client comes about and is answered."""
    async with connect(port, credentials) as channel:
        return await is_answered(channel)


async def is_answered(channel: grpc.aio.Channel) -> bool:
    """Says whether the health is answered."""
    check = health_pb2_grpc.HealthStub(channel).Check
    call = check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
    code = await call.code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE), await call.details()
    return code is grpc.StatusCode.OK


def enroll(path: Path, name: str, *roles: Role) -> str:
    """Adds a caller with a new key to a file of callers; returns the key."""
    key = new_key(name)
    with path.open("a") as file:
        file.write(line_for(name, roles, key) + "\n")
    return key


def bearer(key: str) -> Sequence[tuple[str, str]]:
    """Writes the metadata that carries a key."""
    return (("authorization", f"Bearer {key}"),)


async def code_of(channel: grpc.aio.Channel, method: str, metadata: Sequence[tuple[str, str]] = ()) -> grpc.StatusCode:
    """Calls a method with an empty request; returns the status."""
    code: grpc.StatusCode = await _call(channel, method, metadata).code()
    return code


async def refusal(channel: grpc.aio.Channel, method: str, metadata: Sequence[tuple[str, str]] = ()) -> MarqueeError:
    """Calls a method with an empty request that must be refused; returns the error in the status."""
    return await refused(_call(channel, method, metadata))


def _call(channel: grpc.aio.Channel, method: str, metadata: Sequence[tuple[str, str]]) -> Any:
    empty: Any = b""
    return channel.unary_unary(method)(empty, metadata=metadata, timeout=10)


class Guarded(NamedTuple):
    """Is both services behind certificates and keys, and what it takes to call them; `stranger` signed nothing here."""

    encoder: str
    retriever: str
    tls: Tls | None
    api_key: str
    stranger: Path

    def with_tls(self, **changed: Any) -> Guarded:
        """Changes files of the client."""
        assert self.tls is not None
        return self._replace(tls=dataclasses.replace(self.tls, **changed))


@contextlib.contextmanager
def guarded(folder: Path, registry: Path) -> Iterator[Guarded]:
    """Starts both services as processes that ask for TLS, for a certificate of the client and for a key."""
    ca, callers = trustme.CA(), folder / "callers"
    trusted, stranger = folder / "ca.pem", folder / "stranger.pem"
    trusted.write_bytes(ca.cert_pem.bytes())
    stranger.write_bytes(trustme.CA().cert_pem.bytes())
    mine, files = Files(folder / "client.pem", folder / "client.key"), certified(folder, ca.issue_cert(HOST))
    mine.hold(ca.issue_cert("client.internal"))
    key = enroll(callers, "client", *Role)
    flags = ["--auth=keys", f"--callers={callers}", f"--tls-cert={files.cert}", f"--tls-key={files.key}"]
    flags += [f"--tls-client-ca={trusted}", "--drain-s=0"]
    store = f"--store={folder / 'features.sqlite'}"
    with (
        service_process("user_encoder", folder, registry, *flags, store) as encoder,
        service_process("retriever", folder, registry, *flags) as retriever,
    ):
        tls = Tls(trusted, mine.cert, mine.key)
        yield Guarded(f"{HOST}:{encoder.port}", f"{HOST}:{retriever.port}", tls, key, stranger)


# What somebody gets wrong, and a part of what they are told then.
MISTAKES: Mapping[str, tuple[Callable[[Guarded], Guarded], str]] = {
    "another authority": (
        lambda right: right.with_tls(ca=right.stranger),
        "is not signed by whom this client trusts",
    ),
    "no certificate": (
        lambda right: right.with_tls(cert=None, key=None),
        "if it wants a certificate of the client, give tls.cert and tls.key",
    ),
    "no TLS": (lambda right: right._replace(tls=None), "hung up: if it speaks TLS, give tls"),
    "no key": (lambda right: right._replace(api_key=""), "the call has no key"),
}
