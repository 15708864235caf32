"""Reads an events file into columns, part by part: of a text file every cell as text, of Parquet as it is stored.

Letters in array names: n rows of a part.

A text file is read line by line: an event is one line, so that the line of a bad row is known without a look at the
good ones, and an unclosed quote costs its own line only. A part is cut at the end of a line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from marquee.errors import DataError
from training.data.columns import PARQUET_SUFFIXES
from training.data.report import Row

Int64s = npt.NDArray[np.int64]

# What is read at once: memory depends on it, and not on the file.
PART_BYTES = 32 << 20
PART_ROWS = 1 << 20
WRONG_FIELDS = "wrong number of fields"
WRONG_QUOTES = "quotes that do not pair around a field"
# Stands for "::", which pyarrow cannot split at: a control character that no MovieLens file has.
_DAT_SEPARATOR = "\x1f"
_NEWLINE, _RETURN, _QUOTE = b'\n\r"'


@dataclass(frozen=True, slots=True)
class Table:
    """Holds the wanted columns of a part of an events file, each a pyarrow ChunkedArray [n].

    `lines` [n] are the rows' lines in the file, from 1. `misfits` are the lines, by reason, that could not be split
    into cells and are not among the n. `quote` gives the text of a line.
    """

    file: str
    columns: dict[str, Any]
    lines: Int64s
    misfits: dict[str, Int64s]
    quote: Callable[[int], str]

    @property
    def rows_read(self) -> int:
        """Counts the rows, misfits included and blank lines not."""
        return len(self.lines) + sum(len(lines) for lines in self.misfits.values())

    def rows(self, lines: Int64s) -> list[Row]:
        """Quotes lines."""
        return [Row(line, self.quote(line), self.file) for line in lines.tolist()]


def read_tables(path: Path, wanted: Sequence[str], delimiter: str) -> Iterator[Table]:
    """Reads the wanted columns of a text or Parquet file, part by part.

    Raises DataError where the file is missing, empty or unreadable, or lacks one of the columns.
    """
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return _parquet_tables(path, wanted)
    return _text_tables(path, wanted, delimiter)


def read_bytes(path: Path) -> bytes:
    """Reads a text file as UTF-8 without byte-order mark; a `.dat` file is converted, its `::` as one character.

    Raises DataError where it is missing, unreadable, empty or not UTF-8.
    """
    return b"".join(part.raw for part in _parts(path))


def _parts(path: Path) -> Iterator[_Lines]:
    """Reads a text file in parts of whole lines, as `read_bytes` says; blank lines before all others go."""
    first, blank = 1, True
    try:
        with path.open("rb") as file:
            while raw := file.read(PART_BYTES) + file.readline():
                part = _Lines(_converted(path, raw, first), first)
                first += raw.count(b"\n")
                blank = blank and not part.raw.strip()
                if not blank:
                    yield part
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check that it is there and readable") from error
    if blank:
        raise DataError(f"{path} is empty: copy it again from where it came")


def _converted(path: Path, raw: bytes, first: int) -> bytes:
    if path.suffix.lower() == ".dat":
        raw = (raw if raw.isascii() else raw.decode("latin-1").encode()).replace(b"::", _DAT_SEPARATOR.encode())
    if first == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    _check_utf8(path, raw, first)
    return raw


def separator(path: Path, delimiter: str) -> str:
    """Says what lies between two cells of what `read_bytes` returned."""
    return _DAT_SEPARATOR if path.suffix.lower() == ".dat" else delimiter


def read_parquet(path: Path, wanted: Sequence[str]) -> Any:
    """Reads columns of a Parquet file as a pyarrow Table.

    Raises DataError where it is missing or unreadable, or lacks one of them.
    """
    try:
        with pa.parquet.ParquetFile(path) as file:
            check_header(path, file.schema_arrow.names, wanted)
            return file.read(columns=list(wanted)).select(list(wanted))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def check_header(path: Path, found: Sequence[str], wanted: Sequence[str], delimiter: str = ",") -> None:
    """Raises DataError, with the header found and the one wanted, unless all wanted columns are there."""
    missing = [name for name in wanted if name not in found]
    if not missing:
        return
    cure = "rename them in the file, or name the file's own in a ColumnMap"
    if len(found) == 1 and any(mark in found[0] for mark in ";\t,|"):
        cure = "its cells seem to be separated otherwise: name the character as ColumnMap.delimiter"
    elif any(cell.strip().isdigit() for cell in found):
        cure = "its first line seems to be data: put the header above it"
    raise DataError(
        f"{path}: the header is '{delimiter.join(found)[:200]}', but '{delimiter.join(wanted)}' is wanted and "
        f"{', '.join(map(repr, missing))} is not in it; {cure}"
    )


def _check_utf8(path: Path, raw: bytes, first: int) -> None:
    if raw.isascii():
        return
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = first + raw.count(b"\n", 0, error.start)
        raise DataError(
            f"{path}:{line} is not UTF-8: convert the file, such as with 'iconv -f latin1 -t utf-8'"
        ) from error


def _parquet_tables(path: Path, wanted: Sequence[str]) -> Iterator[Table]:
    try:
        with pa.parquet.ParquetFile(path) as file:
            check_header(path, file.schema_arrow.names, wanted)
            first = 1
            for batch in file.iter_batches(PART_ROWS, columns=list(wanted)):
                table = pa.Table.from_batches([batch]).select(list(wanted))
                lines = np.arange(first, first + table.num_rows)
                columns = dict(zip(wanted, table.columns, strict=True))
                yield Table(path.name, columns, lines, {}, partial(_quote_row, table, first))
                first += table.num_rows
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as Parquet ({error}): write it again, or copy it again")


def _quote_row(table: Any, first: int, line: int) -> str:
    row = table.slice(line - first, 1).to_pylist()[0]
    return ", ".join(f"{name}={value}" for name, value in row.items())


def _text_tables(path: Path, wanted: Sequence[str], delimiter: str) -> Iterator[Table]:
    dat, delimiter = path.suffix.lower() == ".dat", separator(path, delimiter)
    header = list(wanted) if dat else []
    for part in _parts(path):
        body = part
        if not header:
            header = _header(part.line(part.first), delimiter)
            check_header(path, header, wanted, delimiter)
            body = part.after(part.first)
        try:
            yield _text_table(path, body, (header, wanted, delimiter), quoted=not dat)
        except pa.ArrowException as error:
            raise DataError(f"{path} cannot be read as text ({error}): write it again, or copy it again") from error


def _text_table(path: Path, text: _Lines, layout: tuple[list[str], Sequence[str], str], *, quoted: bool) -> Table:
    header, wanted, delimiter = layout
    body, quotes = _blank_wrong_quotes(text, delimiter) if quoted else (text.raw, np.zeros(0, np.int64))
    cells, misfits = _split(pa.py_buffer(body), header, wanted, delimiter, quoted=quoted)
    lines = np.delete(text.first + np.arange(cells.num_rows + len(misfits)), misfits - 1)
    misfits += text.first - 1
    cells, lines = _without_blank(cells, lines, text)
    reasons = {WRONG_QUOTES: quotes, WRONG_FIELDS: np.setdiff1d(misfits, quotes)}
    columns = dict(zip(wanted, cells.columns, strict=True))
    return Table(path.name, columns, lines, reasons, partial(_quote, text))


def _quote(text: _Lines, line: int) -> str:
    return text.line(line).replace(_DAT_SEPARATOR, "::")


def _header(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [""])]


def _split(body: Any, header: list[str], wanted: Sequence[str], delimiter: str, *, quoted: bool) -> tuple[Any, Int64s]:
    """Splits lines into the wanted cells; returns them and the numbers, from 1, of the lines that do not fit."""
    misfits: list[int] = []

    def skip(row: Any) -> str:
        misfits.append(row.number)
        return "skip"

    numbers = [str(position) for position in range(len(header))]  # a header may name one column twice
    if not body.size:
        return pa.table({name: pa.array([], pa.string()) for name in wanted}), np.zeros(0, np.int64)
    cells = pyarrow.csv.read_csv(
        body,
        # Only a single thread tells the handler the line.
        pyarrow.csv.ReadOptions(use_threads=False, column_names=numbers),
        pyarrow.csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        pyarrow.csv.ConvertOptions(
            include_columns=[str(header.index(name)) for name in wanted],
            column_types={number: pa.string() for number in numbers},
        ),
    )
    return cells, np.array(misfits, np.int64)


def _without_blank(cells: Any, lines: Int64s, text: _Lines) -> tuple[Any, Int64s]:
    empty = pc.equal(cells.column(0), "").to_numpy().nonzero()[0]
    blank = [row for row in empty.tolist() if not text.line(int(lines[row]))]
    if not blank:
        return cells, lines
    keep = np.ones(len(lines), bool)
    keep[blank] = False
    return cells.filter(pa.array(keep)), lines[keep]


def _blank_wrong_quotes(text: _Lines, delimiter: str) -> tuple[bytes, Int64s]:
    """Empties the lines in which quotes do not pair around whole fields: they would swallow the lines after them."""
    if b'"' not in text.raw:
        return text.raw, np.zeros(0, np.int64)
    chars = np.frombuffer(text.raw, np.uint8).copy()
    wrong = text.first + _wrong_quotes(chars, text.ends, ord(delimiter))
    for line in wrong.tolist():
        chars[text.start(line) : text.end(line)] = ord(" ")
    return chars.tobytes(), wrong


def _wrong_quotes(chars: npt.NDArray[np.uint8], ends: Int64s, delimiter: int) -> Int64s:
    quotes = np.flatnonzero(chars == _QUOTE)
    lines = np.searchsorted(ends, quotes)
    odd = np.bincount(lines, minlength=len(ends) + 1) % 2 == 1
    quotes, lines = quotes[~odd[lines]], lines[~odd[lines]]
    # Every line left has an even number of quotes, so that each pair lies in one line; a doubled one closes and opens.
    opening, closing = quotes[0::2], quotes[1::2]
    before = np.where(opening == 0, _NEWLINE, chars[opening - 1])
    after = np.where(closing + 1 == len(chars), _NEWLINE, chars[np.minimum(closing + 1, len(chars) - 1)])
    fits = np.isin(before, [delimiter, _QUOTE, _NEWLINE]) & np.isin(after, [delimiter, _QUOTE, _NEWLINE, _RETURN])
    return np.union1d(np.flatnonzero(odd), lines[0::2][~fits])


class _Lines:
    """Finds the lines of a text by number, from `first`."""

    def __init__(self, raw: bytes, first: int) -> None:
        self.raw, self.first = raw, first

    @cached_property
    def ends(self) -> Int64s:
        return np.flatnonzero(np.frombuffer(self.raw, np.uint8) == _NEWLINE)

    def start(self, line: int) -> int:
        place = line - self.first
        if place > len(self.ends):
            return len(self.raw)
        return 0 if place == 0 else int(self.ends[place - 1]) + 1

    def end(self, line: int) -> int:
        place = line - self.first
        return int(self.ends[place]) if place < len(self.ends) else len(self.raw)

    def line(self, line: int) -> str:
        return self.raw[self.start(line) : self.end(line)].decode().rstrip("\r")

    def after(self, line: int) -> _Lines:
        return _Lines(self.raw[self.start(line + 1) :], line + 1)
