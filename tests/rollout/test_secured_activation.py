"""Activation asks replicas that want TLS and a key."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from marquee.bundle.__main__ import main
from marquee.bundle.registry import Registry
from services.common.policy import Role
from services.user_encoder.stores.sqlite import SqliteStore
from tests.bundles import make_bundle
from tests.encoder_rigs import encoder_on
from tests.rigs import ROOT, publish
from tests.secured import HOST, certified, enroll, trusting


class Secured(NamedTuple):
    """Is an encoder that wants TLS and a key: its address, whom to trust, a key, the registry and what is to follow."""

    address: str
    authority: Path
    key: str
    registry: Registry
    following: str


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    root, callers, ca = tmp_path / "registry", tmp_path / "callers", trustme.CA()
    publish(root, make_bundle(tmp_path / "one", seed=1))
    registry = publish(root, following := make_bundle(tmp_path / "two", seed=2), activate=False)
    files, authority = certified(tmp_path, ca.issue_cert(HOST)), tmp_path / "ca.pem"
    authority.write_bytes(ca.cert_pem.bytes())
    key = enroll(callers, "ops", Role.READER)
    settings = {"auth": "keys", "callers": callers, "tls_cert": files.cert, "tls_key": files.key}
    store = SqliteStore(tmp_path / "features.sqlite")
    async with encoder_on(store, root, credentials=trusting(ca), **settings) as encoder:
        yield Secured(f"{HOST}:{encoder.port}", authority, key, registry, following.id)


async def test_replicas_that_want_tls_and_a_key_are_asked(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ["activate", f"--registry={secured.registry.root}", f"--replica={secured.address}"]
    trusted = f"--tls-ca={secured.authority}"
    for flags, told in ([], "UNAVAILABLE"), ([trusted], "UNAUTHENTICATED: the call has no key"):
        assert await asyncio.to_thread(main, [*order, *flags]) == 1
        assert told in capsys.readouterr().err
    monkeypatch.setenv("MARQUEE_API_KEY", secured.key)
    assert await asyncio.to_thread(main, [*order, trusted]) == 0
    assert secured.key not in "".join(capsys.readouterr())
    assert secured.registry.read().active == secured.following


async def test_replicas_with_certificates_of_a_public_authority_are_asked(secured: Secured) -> None:
    order = ["activate", f"--registry={secured.registry.root}", f"--replica={secured.address}", "--tls"]
    # The core reads whom everybody trusts once a process.
    trusted = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(secured.authority), "MARQUEE_API_KEY": secured.key}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "marquee.bundle", *order, cwd=ROOT, env=os.environ | trusted, stderr=PIPE
    )
    _, told = await process.communicate()
    assert (process.returncode, told) == (0, b"")
    assert secured.registry.read().active == secured.following
