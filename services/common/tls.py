"""The certificate of a service: read again when it is renewed, the last good one kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from marquee.errors import ConfigError
from services.common.settings import CommonSettings
from services.common.watched import Watched


class _Loaded(NamedTuple):
    configuration: grpc.ServerCertificateConfiguration
    expires: datetime


class Certificates:
    """Proves to callers who the service is and, where `client_ca` is given, asks them for a certificate of its.

    Raises ConfigError where the files cannot be used: unreadable, expired, a key that does not match. They are read
    again when they change, and count from the next connection on.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        files = {"--tls-cert": cert, "--tls-key": key}
        if client_ca is not None:
            files["--tls-client-ca"] = client_ca
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._files = Watched(files, self._parse, _describe)
        self._served = self._files.value.configuration

    @property
    def expires_at(self) -> float:
        """Says when what is served expires, in seconds since 1970: the first certificate of the chain that does."""
        return self._files.value.expires.timestamp()

    def credentials(self) -> grpc.ServerCredentials:
        """Makes the credentials of a server, which ask for the newest certificate at every handshake."""
        asks_clients = self._client_ca is not None
        # None for "as before" is what the core wants; its types do not know.
        return grpc.dynamic_ssl_server_credentials(self._served, self._newer, asks_clients)  # type: ignore[arg-type]

    async def watch(self) -> None:
        """Follows the files until cancelled."""
        await self._files.watch()

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        # Runs on a thread of the core's.
        newest = self._files.value.configuration
        if newest is self._served:
            return None
        self._served = newest
        return newest

    def _parse(self, chain: bytes, key: bytes, client_ca: bytes | None = None) -> _Loaded:
        certificates = _certificates(self._cert, chain)
        if _public_key(self._key, key) != _key_in(self._cert, certificates[0]):
            raise ConfigError(
                f"{self._key}: is not the key of the first certificate in {self._cert}; put there two that belong "
                "together"
            )
        if self._client_ca is not None and client_ca is not None:
            _certificates(self._client_ca, client_ca)
        expires = _check_dates(self._cert, certificates)
        return _Loaded(grpc.ssl_server_certificate_configuration([(key, chain)], client_ca), expires)


def certificates_of(settings: CommonSettings) -> Certificates | None:
    """Makes what the settings ask for; None is a plaintext port."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def _describe(loaded: _Loaded) -> str:
    return f"serves a certificate that expires on {loaded.expires:%Y-%m-%d %H:%M} UTC"


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError(f"{path}: has no certificates that can be read; write them as PEM") from error


def _key_in(path: Path, certificate: x509.Certificate) -> PublicKeyTypes:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: its key is of a kind that is not known here; use RSA or a named curve") from error


def _public_key(path: Path, pem: bytes) -> PublicKeyTypes:
    try:
        return load_pem_private_key(pem, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: has no key that can be read; write it as PEM, without a password") from error


def _check_dates(path: Path, certificates: Sequence[x509.Certificate]) -> datetime:
    """Returns when the first of a chain expires; raises ConfigError where one has, or is not yet valid."""
    now = datetime.now(UTC)
    begins = max(one.not_valid_before_utc for one in certificates)
    expires = min(one.not_valid_after_utc for one in certificates)
    if expires <= now:
        raise ConfigError(f"{path}: expired on {expires:%Y-%m-%d %H:%M} UTC; renew it")
    if begins > now:
        raise ConfigError(f"{path}: is valid from {begins:%Y-%m-%d %H:%M} UTC on; look at this machine's clock")
    return expires
