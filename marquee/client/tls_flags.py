"""The flags that say how connections are encrypted, the same in every program that opens some."""

from __future__ import annotations

import argparse

from marquee.client.tls import Tls


def add_tls_flags(group: argparse._ActionsContainer, whose: str) -> None:
    """Adds the flags; `whose` certificates --tls-name is about. `tls_of` reads them."""
    group.add_argument("--tls", action="store_true", help="encrypt, and trust the public authorities")
    group.add_argument("--tls-ca", metavar="FILE", help="encrypt, and trust who is signed by this certificate (PEM)")
    group.add_argument("--tls-cert", metavar="FILE", help="with --tls-key: the certificate of this program")
    group.add_argument("--tls-key", metavar="FILE", help="the key of --tls-cert")
    group.add_argument("--tls-name", default="", metavar="NAME", help=f"the name in {whose} certificates")


def tls_of(options: argparse.Namespace) -> Tls | None:
    """Reads the flags: any of them asks for TLS, so that no key goes over a plain connection."""
    told = Tls(options.tls_ca, options.tls_cert, options.tls_key, options.tls_name)
    return told if options.tls or told != Tls() else None
