"""The flags of offline scoring: what scripts and timers are written against."""

from __future__ import annotations

from clients.batch.arguments import parser

FLAGS = {
    "--all-genre",
    "--as-of",
    "--bundle",
    "--calls",
    "--deadline",
    "--encoder",
    "--events",
    "--exclude",
    "--genre",
    "--help",
    "--include-seen",
    "--language",
    "--little-known",
    "--out",
    "--people-per-part",
    "--person",
    "--rated",
    "--registry",
    "--retriever",
    "--stars",
    "--threads",
    "--tls",
    "--tls-ca",
    "--tls-cert",
    "--tls-key",
    "--tls-name",
    "--users",
    "--without-genre",
    "--year",
    "-h",
    "-k",
}


def test_flags_are_these() -> None:
    assert {flag for action in parser({})._actions for flag in action.option_strings} == FLAGS
