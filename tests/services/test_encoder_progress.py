"""The bar of the encoder's commands, and the files in which they keep how far they are."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from marquee.errors import DataError
from marquee.whole_files import read_json, write_json, write_whole
from services.user_encoder import progress
from services.user_encoder.progress import Bar, bar_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("part", "count", "seconds", "line"),
    [
        (0.0, 0, 0.0, "[------------------------]   0%  0 rows, 0/s"),
        (0.5, 1_000, 2.0, "[############------------]  50%  1,000 rows, 500/s"),
        (1.0, 3_000_000, 10.0, "[########################] 100%  3,000,000 rows, 300,000/s"),
        # A file that grows is longer than it was.
        (1.1, 10, 1.0, "[########################] 100%  10 rows, 10/s"),
    ],
)
def test_a_bar_says_how_far_and_how_fast(part: float, count: int, seconds: float, line: str) -> None:
    assert bar_line(part, count, "rows", seconds) == line


def test_a_bar_draws_over_itself_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_REDRAW_S", 0.0)
    terminal = Terminal()
    bar = Bar("rows", terminal)
    bar.show(1.0, 1_000_000)
    bar.show(0.5, 5)
    long, short = terminal.getvalue().split("\r")[1:]
    assert len(short) == len(long)
    assert short.startswith("[############------------]  50%  5 rows, ")
    bar.close()
    assert terminal.getvalue().endswith(f"\r{' ' * len(short.rstrip())}\r")


def test_a_bar_is_drawn_seldom_and_on_terminals_only() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        bar = Bar("rows", stream)
        for row in range(1000):
            bar.show(row / 1000, row)
        bar.close()
    assert file.getvalue() == ""
    # A thousand steps take less than a second.
    assert 1 <= terminal.getvalue().count("rows") <= 10


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    assert read_json(path) is None
    write_json(path, {"shards": 3})

    def half(temporary: Path) -> None:
        temporary.write_text('{"shards"')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, half)
    assert read_json(path) == {"shards": 3}
    path.write_text('{"shards"')
    with pytest.raises(DataError, match=r"kept.json is not JSON \(.*\); remove it to begin anew"):
        read_json(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)
