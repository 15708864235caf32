"""How replicas are asked: whatever is said of TLS asks for TLS, so that no key goes over a plain connection."""

from __future__ import annotations

import pytest

from marquee.bundle.replicas import tls_of
from marquee.client.tls import Tls


@pytest.mark.parametrize(
    "given", [("ca.pem", None, None, ""), (None, "c.pem", "k.pem", ""), (None, None, None, "replica.example.com")]
)
def test_any_of_it_asks_for_tls(given: tuple[str | None, str | None, str | None, str]) -> None:
    assert tls_of(*given) == Tls(*given)


def test_nothing_said_is_no_tls() -> None:
    assert tls_of(None, None, None, "") is None
