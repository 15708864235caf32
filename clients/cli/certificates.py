"""How long a service's certificate is good for."""

from __future__ import annotations

import socket
import ssl
import time

from marquee.client import Tls

_PATIENCE_S = 5.0
_DAY_S = 86_400.0


def days_left(address: str, tls: Tls) -> float | None:
    """Reads when the certificate at host:port ends, in days from now; None where no connection comes about."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=tls.ca)
    context.set_alpn_protocols(["h2"])
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=tls.server_name or host.strip("[]")) as encrypted,
        ):
            certificate = encrypted.getpeercert() or {}
    except OSError:
        return None
    return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / _DAY_S
