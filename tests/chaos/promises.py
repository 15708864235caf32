"""What is promised under each fault, and what happened when the suite broke it: the table in docs/reliability.md.

A test that breaks something on purpose is

    @promise("the retriever is killed", "no call fails while another replica answers")
    async def test_a_killed_retriever_…(happened: Happened) -> None:
        ...
        happened(f"{load.calls} calls, {load.failed} failed")

`python -m pytest tests/chaos --write-reliability` writes the table anew, with what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

T = TypeVar("T", bound=Callable[..., object])

TABLE = Path(__file__).parents[2] / "docs" / "reliability.md"
_HEAD = """\
# Reliability

What Marquee promises when something breaks, and what happened when the suite broke it. `tests/chaos` writes this table;
each line's command runs its test again:

```sh
python -m pytest tests/chaos                          # everything
python -m pytest tests/chaos --write-reliability      # and write this page
```

| what breaks | what is promised | what happened | test |
|---|---|---|---|
"""


class Promise(NamedTuple):
    """Is what holds under a fault, and the test, as pytest names it, that breaks it."""

    fault: str
    promised: str
    test: str


class Happened(Protocol):
    """Notes what came of a fault, in a few words with figures."""

    def __call__(self, what: str) -> None: ...


PROMISES: dict[str, Promise] = {}


def promise(fault: str, promised: str) -> Callable[[T], T]:
    """Says what a test breaks and what is to hold nonetheless."""

    def keep(test: T) -> T:
        path = f"tests/chaos/{test.__module__.rpartition('.')[2]}.py::{test.__name__}"
        PROMISES[path] = Promise(fault, promised, path)
        return test

    return keep


def write_table(happened: dict[str, str]) -> None:
    """Writes the page: a line for each promise that was tried, in the order of the tests' names."""
    lines = [_line(PROMISES[test], what) for test, what in sorted(happened.items())]
    TABLE.write_text(_HEAD + "".join(lines), "utf-8")


def _line(of: Promise, what: str) -> str:
    return f"| {of.fault} | {of.promised} | {what} | `pytest {of.test}` |\n"
