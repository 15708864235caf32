"""The account of what a load read, kept and dropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from marquee.errors import DataError

EXAMPLES = 5
_WIDEST = 120
_SHOWN = 2


class Row(NamedTuple):
    """Quotes one row of a file; `line` counts from 1, in Parquet it is the row. `file` may be "" where all have one."""

    line: int
    text: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Counts what was dropped of one file for one reason; `examples` read "file:line: text", at most five."""

    file: str
    reason: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Accounts for every row of the events file, and for what the movies lack.

    rows_read = rows_kept + duplicates + retracted + rows_bad. `dropped` covers every file, bad cells of optional
    files included. `duplicates` are older events of the same (user, movie, kind); `retracted` are events that a
    RETRACTED one took back, and itself.
    """

    rows_read: int
    rows_kept: int
    rows_bad: int
    duplicates: int
    retracted: int
    dropped: tuple[Dropped, ...]
    movies: int
    movies_without_genres: int
    movies_without_year: int
    movies_without_events: int
    movies_with_metadata: int

    def lines(self) -> list[str]:
        """Writes the report as a few lines for a person."""
        out = [
            f"movies: {self.movies_without_events:,} without events, {self.movies_without_genres:,} without genres, "
            f"{self.movies_without_year:,} without a year, {self.movies_with_metadata:,} with metadata",
            f"rows: {self.rows_read:,} read, {self.rows_kept:,} kept, {self.rows_bad:,} bad, "
            f"{self.duplicates:,} duplicates, {self.retracted:,} retracted",
        ]
        for one in self.dropped:
            out.append(f"  {one.file}: {one.count:,} × {one.reason}")
            out += [f"    {example}" for example in one.examples[:_SHOWN]]
        return out


class Rejects:
    """Gathers the bad rows of one file, reason by reason."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts: dict[str, int] = {}
        self._rows: dict[str, list[Row]] = {}
        self._bad: set[str] = set()
        self.total = 0

    def add(self, reason: str, rows: Iterable[Row], count: int = 1) -> None:
        """Counts `count` bad rows, of which `rows` are the first few."""
        self.note(reason, rows, count)
        self._bad.add(reason)
        self.total += count

    def note(self, reason: str, rows: Iterable[Row], count: int = 1) -> None:
        """Counts what was left out of rows that are kept."""
        self._counts[reason] = self._counts.get(reason, 0) + count
        kept = self._rows.setdefault(reason, [])
        kept += list(rows)[: EXAMPLES - len(kept)]

    def dropped(self) -> tuple[Dropped, ...]:
        """Lists the reasons, the most frequent first."""
        order = sorted(self._counts, key=lambda reason: (-self._counts[reason], reason))
        return tuple(
            Dropped(self._path.name, reason, self._counts[reason], tuple(map(self._quote, self._rows[reason])))
            for reason in order
        )

    def refuse_if_mostly_bad(self, rows_read: int) -> None:
        """Raises DataError that quotes the first five bad rows where more than half of the rows are bad."""
        if 2 * self.total <= rows_read:
            return
        bad = sorted((row, reason) for reason in self._bad for row in self._rows[reason])
        quoted = "\n".join(f"  {self._quote(row)} ({reason})" for row, reason in bad[:EXAMPLES])
        raise DataError(
            f"{self._path}: {self.total:,} of {rows_read:,} rows cannot be used, the first of them:\n{quoted}\n"
            "Correct the file, or describe its columns, time unit and rating scale with a ColumnMap"
        )

    def _quote(self, row: Row) -> str:
        text = row.text if len(row.text) <= _WIDEST else row.text[:_WIDEST] + "…"
        return f"{row.file or self._path.name}:{row.line}: {text}"
