"""The flags of the desktop client, and that the window lists every key that it knows."""

from __future__ import annotations

from clients.desktop.app import make_parser
from clients.desktop.keys import KEYS, OPINION_KEYS

FLAGS = {
    "--deadline",
    "--encoder",
    "--help",
    "--retriever",
    "--theme",
    "--tls",
    "--tls-ca",
    "--tls-cert",
    "--tls-key",
    "--tls-name",
    "--user",
    "-h",
}


def test_flags_are_these() -> None:
    assert {flag for action in make_parser({})._actions for flag in action.option_strings} == FLAGS


def test_every_key_for_an_opinion_is_listed() -> None:
    listed = " ".join(keys for keys, _ in KEYS)
    assert {key for key in OPINION_KEYS if len(key) == 1 and key.isupper()} == {"L", "D", "U"}
    assert all(key in listed for key in ("L", "D", "U", "1 to 5"))
