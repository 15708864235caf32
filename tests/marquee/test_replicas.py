"""How replicas are asked: whatever is said of TLS asks for TLS, so that no key goes over a plain connection."""

from __future__ import annotations

import argparse

import pytest

from clients.cli.arguments import parser
from clients.cli.connection import Connection
from marquee.bundle.__main__ import main
from marquee.client.tls import Tls
from marquee.client.tls_flags import add_tls_flags, tls_of
from services.retriever.milvus_cleanup import make_parser

ASKED = [
    (["--tls"], Tls()),
    (["--tls-ca=ca.pem"], Tls("ca.pem")),
    (["--tls-cert=c.pem", "--tls-key=k.pem"], Tls(None, "c.pem", "k.pem")),
    (["--tls-name=replica.example.com"], Tls(server_name="replica.example.com")),
    ([], None),
]


@pytest.mark.parametrize(("flags", "expected"), ASKED)
def test_any_of_it_asks_for_tls_and_nothing_does_not(flags: list[str], expected: Tls | None) -> None:
    told = argparse.ArgumentParser()
    add_tls_flags(told, "the replicas'")
    assert tls_of(told.parse_args(flags)) == expected


@pytest.mark.parametrize(("flags", "expected"), ASKED)
def test_the_clients_are_told_in_the_same_words(flags: list[str], expected: Tls | None) -> None:
    assert Connection.of_flags(parser({}).parse_args(["status", *flags])).tls == expected


def test_collections_are_dropped_and_spaces_activated_in_the_same_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["activate", "--help"])
    told = capsys.readouterr().out + make_parser().format_help()
    for flag in ("--tls ", "--tls-ca ", "--tls-cert ", "--tls-key ", "--tls-name "):
        assert told.count(f"  {flag}") == 2
