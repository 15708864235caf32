"""Collects what happened, and writes docs/reliability.md where it is asked to."""

from __future__ import annotations

import pytest

from tests.chaos.promises import PROMISES, Happened, write_table

_HAPPENED = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_HAPPENED] = {}


@pytest.fixture
def happened(request: pytest.FixtureRequest) -> Happened:
    """Notes what came of the fault that this test is about; of several cases, each in its turn."""
    name = request.node.nodeid.partition("[")[0]
    case = getattr(getattr(request.node, "callspec", None), "id", "")

    def note(what: str) -> None:
        notes = request.config.stash[_HAPPENED]
        said = f"{case}: {what}" if case else what
        notes[name] = f"{notes[name]}; {said}" if name in notes else said

    return note


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if not session.config.getoption("write_reliability"):
        return
    notes = session.config.stash[_HAPPENED]
    missing = sorted(set(PROMISES) - set(notes))
    if exitstatus != 0 or missing:
        raise pytest.UsageError(f"docs/reliability.md is left as it was; without a kept promise: {missing}")
    write_table(notes)
