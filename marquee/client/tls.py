"""What encrypts the connections, and notices when its files were replaced."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc

from marquee.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tls:
    """Says how connections are encrypted; all of them are files in PEM.

    `ca`: who signed the services' certificates; None is whom gRPC trusts by default, the public authorities. `cert` and
    `key`: the client's own, for services that ask for one (mTLS). `server_name`: the name in the services'
    certificates, where it is not the host of the address. The files are read anew when they change.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str = ""


class _Pem(NamedTuple):
    """Holds the contents of the files."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None


class Credentials:
    """Reads the files of a `Tls`, at first and whenever they have changed; keeps the last good ones.

    Raises ConfigError where the first ones cannot be used.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._pem = _read(tls)
        _check(tls)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Makes what a channel is opened with."""
        ca, cert, key = self._pem
        return grpc.ssl_channel_credentials(ca, key, cert)

    def renew(self) -> bool:
        """Reads the files again; says whether there are new contents that can be used."""
        try:
            pem = _read(self._tls)
            if pem == self._pem:
                return False
            _check(self._tls)
            # Read twice: between the two a file may have been replaced, and the check was of another pair.
            if pem != _read(self._tls):
                return False
        except ConfigError:
            return False
        self._pem = pem
        return True


def _read(tls: Tls) -> _Pem:
    if (tls.cert is None) != (tls.key is None):
        given, missing = ("cert", "key") if tls.key is None else ("key", "cert")
        raise ConfigError(f"tls has a {given} and no {missing}; give both, or neither", field=f"tls.{missing}")
    return _Pem(_file("ca", tls.ca), _file("cert", tls.cert), _file("key", tls.key))


def _file(name: str, path: str | Path | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"tls.{name} {path} cannot be read ({(error.strerror or str(error)).lower()}); give a file in PEM",
            field=f"tls.{name}",
        ) from error


def _check(tls: Tls) -> None:
    """Tries what gRPC's core would only write to its log."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except OSError as error:
        raise ConfigError(
            f"tls.ca {tls.ca} holds no certificate in PEM; give the authority's", field="tls.ca"
        ) from error
    try:
        if tls.cert is not None:
            # A key under a password would stop here and wait for somebody to type it.
            context.load_cert_chain(tls.cert, tls.key, password="")
    except OSError as error:
        raise ConfigError(
            f"tls.cert {tls.cert} and tls.key {tls.key} are no pair in PEM without a password; give a certificate and "
            "the key that it was made with",
            field="tls.cert",
        ) from error
